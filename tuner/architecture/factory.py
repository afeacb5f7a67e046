"""From a resolved architecture to a torch module: an `nn.Sequential` of the traced steps, one for one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tuner.architecture.joined import Joined
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.layer_modules import build_layer
from tuner.architecture.parts import Items, steps_of
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace


def build_model(architecture: Architecture) -> nn.Sequential:
    """The network of a resolved architecture, images_NCHW (float, normalised) to logits_NK.

    Module i is step i: a layer, or a part with a join. Without joins, the keys of the model's state dict fit any
    `nn.Sequential` of the same layers. Within a part, keys are like `1.main.0.weight` and `1.shortcut.0.weight`.
    """
    return build_path(trace(architecture), build_layer)


def build_path(path: Items, build: Callable[[Layer], nn.Module]) -> nn.Sequential:
    """The steps of a path as modules, each layer as `build` makes it."""
    modules = (
        build(step)
        if isinstance(step, Layer)
        else Joined(build_path(step.main, build), build_path(step.shortcut, build), step.join)
        for step in steps_of(path)
    )
    return nn.Sequential(*modules)


def initialise(model: nn.Module, *, seed: int) -> None:
    """Initialise the weights by torch's default rules, with random numbers that depend only on `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.GroupNorm):
                module.reset_parameters()
