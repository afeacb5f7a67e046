"""Backbone, BackboneInput: a library's network in stages, and the images that its weights were trained on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from torch import nn

Interpolation = Literal["bilinear", "bicubic"]
LEAST_CROP_FRACTION = 0.1
"""Smallest crop fraction of an input, as in `tuner.data.resizing`; the largest is 1."""


@dataclass(frozen=True)
class BackboneInput:
    """How the images were prepared that the library's weights were evaluated on.

    height, width: pixels after the crop. crop_fraction: shorter side of the crop by that of the resized image. mean,
    std: by channel, of values in 0..1. fixed_size: whether the network accepts no other height and width.
    """

    height: int
    width: int
    interpolation: Interpolation
    crop_fraction: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fixed_size: bool = False


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network of torchvision or timm, whose classifier is to be replaced by a head.

    model: the library's module. stages: modules that share the model's submodules; applied one after another, they turn
    images_NCHW into features_NF with F = num_features. A head that takes features_NF gives the logits that `model`
    gives once the head is attached. Every stage has parameters. head_name: name of the classifier's module in `model`.
    """

    name: str
    model: nn.Module
    stages: tuple[nn.Module, ...]
    num_features: int
    head_name: str

    def attach_head(self, head: nn.Module) -> nn.Module:
        """Replace the model's classifier by a head, in place, and return the model."""
        self.model.set_submodule(self.head_name, head)
        return self.model


def stages_with_parameters(backbone: Backbone) -> int:
    """How many of the last stages can be trained."""
    return sum(any(True for _ in stage.parameters()) for stage in backbone.stages)


def stages_from(modules: Iterable[nn.Module], *, ending: Iterable[nn.Module]) -> tuple[nn.Module, ...]:
    """Stages from modules that follow each other: one for each module that has parameters.

    Modules without parameters, and those of `ending`, which turn the last feature map into features, are in the same
    stage as the module before them.
    """
    groups: list[list[nn.Module]] = []
    for module in modules:
        if groups and not any(True for _ in module.parameters()):
            groups[-1].append(module)
        else:
            groups.append([module])
    groups[-1] += ending
    return tuple(group[0] if len(group) == 1 else nn.Sequential(*group) for group in groups)
