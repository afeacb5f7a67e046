"""Networks of timm as backbones: names, stages, and the input of their weights. timm is an optional package."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

from torch import Tensor, nn

from tuner.architecture.backbones.backbone import (
    LEAST_CROP_FRACTION,
    Backbone,
    BackboneInput,
    Interpolation,
    stages_from,
)
from tuner.architecture.backbones.without_classifier import WithoutClassifier
from tuner.errors import BackboneError

PREFIX = "timm/"
"""What the names of these backbones begin with; timm's own name follows."""


def timm_names() -> tuple[str, ...]:
    """Names of the networks, each alone and with the tags of its weights. Raises BackboneError without timm."""
    return _names_in(import_timm())


@cache
def _names_in(timm: Any) -> tuple[str, ...]:
    """The names in timm, whose lists take milliseconds to make."""
    names = {*timm.list_models(include_tags=False), *timm.list_models(include_tags=True)}
    return tuple(sorted(PREFIX + name for name in names))


def timm_backbone(name: str) -> Backbone:
    """Build a network, with random weights, and its stages.

    Raises BackboneError if timm is not installed, or if no features enter a linear classifier of the network.
    """
    model = import_timm().create_model(name.removeprefix(PREFIX), pretrained=False)
    classifier = model.get_classifier() if hasattr(model, "get_classifier") else None
    names = [inner for inner, module in model.named_modules() if module is classifier]
    if not isinstance(classifier, nn.Linear) or not names or not hasattr(model, "forward_head"):
        raise BackboneError(f"a backbone must end with one linear classifier, and {name} does not: choose another one")
    stages = _stages(model, names[0])
    return Backbone(name, model, stages, num_features=classifier.in_features, head_name=names[0])


def timm_input(name: str) -> BackboneInput:
    """The input of a network's default weights, or of those that the tag in the name selects.

    Raises BackboneError if images cannot be prepared as these weights expect.
    """
    configuration = import_timm().models.get_pretrained_cfg(name.removeprefix(PREFIX))
    channels, height, width = configuration.input_size
    expected = {
        "number of channels": (channels, channels == 3),
        "crop mode": (configuration.crop_mode, configuration.crop_mode == "center"),
        "crop fraction": (configuration.crop_pct, LEAST_CROP_FRACTION <= configuration.crop_pct <= 1),
        "interpolation": (configuration.interpolation, configuration.interpolation in get_args(Interpolation)),
    }
    for what, (value, is_possible) in expected.items():
        if not is_possible:
            raise BackboneError(
                f"images must be prepared as the weights of a backbone expect, and those of {name} expect the {what} "
                f"{value!r}, which is not supported: choose another backbone"
            )
    return BackboneInput(
        height=height,
        width=width,
        interpolation=configuration.interpolation,
        crop_fraction=configuration.crop_pct,
        mean=tuple(configuration.mean),
        std=tuple(configuration.std),
        fixed_size=configuration.fixed_input_size,
    )


def timm_source(name: str) -> str:
    """The expression that builds a network, in a module that imports timm."""
    return f"timm.create_model({name.removeprefix(PREFIX)!r}, pretrained=False)".replace("'", '"')


def import_timm() -> Any:
    """Import timm, which is slow. Raises BackboneError, with the command to run, if it is not installed."""
    try:
        import timm
    except ImportError as error:
        message = 'backbones named timm/... need timm, which is not installed: pip install "tuner[pretrained]"'
        raise BackboneError(message) from error
    return timm


def _stages(model: Any, classifier: str) -> tuple[nn.Module, ...]:
    """The stages of a network; one for all of it if its class is not listed here."""
    from timm.models import convnext, efficientnet, mobilenetv3, resnet

    kind = type(model)  # not isinstance, since a subclass may compute its features in another way
    if kind is efficientnet.EfficientNet:
        layers = [_in_a_row(model.conv_stem, model.bn1), *model.blocks, _in_a_row(model.conv_head, model.bn2)]
        return stages_from(layers, ending=[model.global_pool])
    if kind is mobilenetv3.MobileNetV3:
        ending = [model.global_pool, model.conv_head, model.norm_head, model.act2, model.flatten]
        return stages_from([_in_a_row(model.conv_stem, model.bn1), *model.blocks], ending=ending)
    if kind is resnet.ResNet:
        stem = _in_a_row(model.conv1, model.bn1, model.act1, model.maxpool)
        layers = [stem, model.layer1, model.layer2, model.layer3, model.layer4]
        return stages_from(layers, ending=[model.global_pool])
    if kind is convnext.ConvNeXt:
        head = WithoutClassifier(model.head, classifier.removeprefix("head."), _head_features)
        return stages_from([model.stem, *model.stages], ending=[model.norm_pre, head])
    return (WithoutClassifier(model, classifier, _features),)


def _in_a_row(*layers: nn.Module) -> nn.Module:
    """One module of several, so that they are one stage."""
    return nn.Sequential(*layers)


def _features(model: Any, images_NCHW: Tensor) -> Tensor:
    features_NF: Tensor = model.forward_head(model.forward_features(images_NCHW), pre_logits=True)
    return features_NF


def _head_features(head: Any, maps_NCHW: Tensor) -> Tensor:
    features_NF: Tensor = head(maps_NCHW, pre_logits=True)
    return features_NF
