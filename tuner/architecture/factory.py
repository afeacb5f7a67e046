"""From a resolved architecture to a torch module: an `nn.Sequential` of the traced layers, one for one."""

from __future__ import annotations

import torch
from torch import nn

from tuner.architecture import layers as own
from tuner.architecture.shapes import Layer
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace


def build_model(architecture: Architecture) -> nn.Sequential:
    """The network of a resolved architecture, images_NCHW (float, normalised) to logits_NK.

    Position i holds the traced layer i, so the keys of its state dict fit any `nn.Sequential` of the same layers.
    """
    return nn.Sequential(*(build_layer(layer) for layer in trace(architecture)))


def build_layer(layer: Layer) -> nn.Module:
    """One traced layer as a module: torch's class, or our own twin of it."""
    module_class = own.TWINS.get(layer.kind) or getattr(nn, layer.kind)
    module = module_class(**layer.arguments)
    assert isinstance(module, nn.Module)
    return module


def initialise(model: nn.Module, *, seed: int) -> None:
    """Initialise the weights by torch's default rules, with random numbers that depend only on `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
                module.reset_parameters()
