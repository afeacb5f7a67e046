"""Networks of torchvision and timm by name, without weights: build_backbone, input_of, rebuild_source.

torchvision's own names (`resnet18`) are used, and `timm/NAME` for networks of timm. Both libraries are imported only
when a backbone is asked for.
"""

from __future__ import annotations

from difflib import get_close_matches

from tuner.architecture.backbones.backbone import (
    Backbone,
    BackboneInput,
    Interpolation,
    stages_with_parameters,
)
from tuner.architecture.backbones.timm_backbones import (
    PREFIX,
    timm_backbone,
    timm_input,
    timm_names,
    timm_source,
)
from tuner.architecture.backbones.torchvision_backbones import (
    torchvision_backbone,
    torchvision_input,
    torchvision_names,
    torchvision_source,
)
from tuner.errors import BackboneError

__all__ = [
    "Backbone",
    "BackboneInput",
    "Interpolation",
    "build_backbone",
    "check_name",
    "input_of",
    "is_timm",
    "known_backbones",
    "rebuild_source",
    "stages_with_parameters",
]


def known_backbones() -> tuple[str, ...]:
    """Names of torchvision's backbones. Those of timm are `timm/` with a name of `timm.list_models()`."""
    return torchvision_names()


def is_timm(name: str) -> bool:
    """Whether a name is that of a network of timm."""
    return name.startswith(PREFIX)


def check_name(name: str) -> None:
    """Raise BackboneError if no backbone has this name, or if it is one of timm and timm is not installed."""
    names = timm_names() if is_timm(name) else torchvision_names()
    if name not in names:
        similar = " or ".join(get_close_matches(name, names, n=3))
        hint = f"did you mean {similar}?" if similar else "torchvision's classifiers and timm/NAME are known"
        raise BackboneError(f"{name!r} is not the name of a backbone: {hint}")


def build_backbone(name: str) -> Backbone:
    """Build a backbone with random weights; under `torch.device("meta")`, without memory.

    Raises BackboneError for an unknown name, and for one of timm if timm is not installed.
    """
    check_name(name)
    return timm_backbone(name) if is_timm(name) else torchvision_backbone(name)


def input_of(name: str) -> BackboneInput:
    """How images must be prepared for the library's weights of a backbone. Raises BackboneError as build_backbone."""
    check_name(name)
    return timm_input(name) if is_timm(name) else torchvision_input(name)


def rebuild_source(name: str) -> str:
    """The Python expression that builds a backbone without weights, after `import torchvision` or `import timm`."""
    check_name(name)
    return timm_source(name) if is_timm(name) else torchvision_source(name)
