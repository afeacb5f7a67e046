"""Networks of torchvision as backbones: names, arguments, stages, and the input of their default weights."""

from __future__ import annotations

import inspect
from contextlib import nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tuner.architecture.backbones.backbone import Backbone, BackboneInput, stages_from
from tuner.architecture.backbones.without_classifier import WithoutClassifier
from tuner.versions import check_installation

_HALVES = (0.5, 0.5, 0.5)


@cache
def torchvision_names() -> tuple[str, ...]:
    """Names of the networks, in alphabetical order.

    SqueezeNets are not among them: they end with a convolution, so that no features enter their classifier.
    """
    models = _models()
    return tuple(name for name in models.list_models(module=models) if not name.startswith("squeezenet"))


@cache
def torchvision_arguments(name: str) -> dict[str, Any]:
    """The arguments of a network's function that fit its weights. Only our head has dropout.

    The weights of GoogLeNet and Inception expect values in -1..1. torchvision converts the usual mean and standard
    deviation inside the network; here they are part of the input instead.
    """
    models = _models()
    accepted = inspect.signature(_class_of(name).__init__).parameters
    arguments: dict[str, Any] = {"weights": None}
    if "transform_input" in accepted:
        arguments |= {"aux_logits": False, "transform_input": False, "init_weights": False}
    if "image_size" in accepted:
        arguments["image_size"] = models.get_model_weights(name).DEFAULT.meta["min_size"][0]
    if name.startswith(("mobilenet_v3", "vgg", "alexnet")) or "transform_input" in accepted:
        arguments["dropout"] = 0.0  # these layers stay in the network, before the head
    return arguments


def torchvision_backbone(name: str) -> Backbone:
    """Build a network, with random weights, and its stages."""
    with WidthsOnCpu() if name.startswith("regnet_") else nullcontext():
        model = _models().get_model(name, **torchvision_arguments(name))
    stages, head_name = _stages(model)
    linear = [module for module in model.get_submodule(head_name).modules() if isinstance(module, nn.Linear)]
    return Backbone(name, model, stages, num_features=linear[-1].in_features, head_name=head_name)


def torchvision_input(name: str) -> BackboneInput:
    """The input of a network's default weights. They are not loaded."""
    transforms = _models().get_model_weights(name).DEFAULT.transforms()
    (side,), (resized,) = set(transforms.crop_size), set(transforms.resize_size)
    has_range_of_its_own = "transform_input" in torchvision_arguments(name)
    return BackboneInput(
        height=side,
        width=side,
        interpolation=transforms.interpolation.value,
        crop_fraction=side / resized,
        mean=_HALVES if has_range_of_its_own else tuple(transforms.mean),
        std=_HALVES if has_range_of_its_own else tuple(transforms.std),
        fixed_size=name.startswith(("vit_", "maxvit_")),
    )


def torchvision_source(name: str) -> str:
    """The expression that builds a network, in a module that imports torchvision."""
    arguments = ", ".join(f"{key}={value!r}" for key, value in torchvision_arguments(name).items())
    return f"torchvision.models.{name}({arguments})"


class WidthsOnCpu(TorchFunctionMode):
    """Let a RegNet compute its widths on the CPU. It does so with tensors, which have no values on the meta device."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch; `arange` and `tensor` on the CPU."""
        device = {"device": "cpu"} if func in (torch.arange, torch.tensor) else {}
        return func(*args, **{**(kwargs or {}), **device})


class SpatialMean(nn.Module):
    """The mean over height and width, as MNASNet and ShuffleNet compute it."""

    def forward(self, maps_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C)."""
        return maps_NCHW.mean([2, 3])


def _stages(model: Any) -> tuple[tuple[nn.Module, ...], str]:
    """The stages of a network, and the name of what a head replaces."""
    models = _models()
    average = [nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten()]
    match model:
        case models.ResNet():
            stem = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool)
            layers = [model.layer1, model.layer2, model.layer3, model.layer4]
            return stages_from([stem, *layers], ending=[model.avgpool, nn.Flatten()]), "fc"
        case models.RegNet():
            return stages_from([model.stem, *model.trunk_output], ending=[model.avgpool, nn.Flatten()]), "fc"
        case models.ConvNeXt():
            return stages_from(model.features, ending=[model.avgpool, *model.classifier[:2]]), "classifier.2"
        case models.EfficientNet():
            return stages_from(model.features, ending=[model.avgpool, nn.Flatten()]), "classifier"
        case models.MobileNetV2():
            return stages_from(model.features, ending=average), "classifier"
        case models.MobileNetV3():
            ending = [model.avgpool, nn.Flatten(), *model.classifier[:3]]
            return stages_from(model.features, ending=ending), "classifier.3"
        case models.DenseNet():
            return stages_from(_dense_blocks(model), ending=[nn.ReLU(inplace=True), *average]), "classifier"
        case models.MNASNet():
            layers = [nn.Sequential(*model.layers[:8]), *model.layers[8:14], nn.Sequential(*model.layers[14:])]
            return stages_from(layers, ending=[SpatialMean()]), "classifier"
        case models.ShuffleNetV2():
            layers = [model.conv1, model.maxpool, model.stage2, model.stage3, model.stage4, model.conv5]
            return stages_from(layers, ending=[SpatialMean()]), "fc"
        case models.SwinTransformer():
            ending = [model.norm, model.permute, model.avgpool, model.flatten]
            return stages_from(model.features, ending=ending), "head"
        case models.MaxVit():
            return stages_from([model.stem, *model.blocks], ending=model.classifier[:5]), "classifier.5"
        case models.VGG() | models.AlexNet():
            ending = [model.avgpool, nn.Flatten(), *model.classifier[:6]]
            return stages_from(_between_poolings(model.features), ending=ending), "classifier.6"
        case models.GoogLeNet() | models.Inception3():
            layers = [child for name, child in model.named_children() if name not in ("avgpool", "dropout", "fc")]
            return stages_from(layers, ending=[model.avgpool, nn.Flatten()]), "fc"
        case models.VisionTransformer():
            return (WithoutClassifier(model, "heads", _class_token),), "heads"
    raise AssertionError(f"{type(model).__name__} of torchvision has no stages here")


def _dense_blocks(model: Any) -> list[nn.Module]:
    """The stem, and each dense block with the transition or the normalization that follows it."""
    stages: list[list[nn.Module]] = [[]]
    for name, child in model.features.named_children():
        if name.startswith("denseblock"):
            stages.append([])
        stages[-1].append(child)
    return [nn.Sequential(*stage) for stage in stages]


def _between_poolings(layers: nn.Sequential) -> list[nn.Module]:
    """The layers of a sequence in groups that end with a max pooling."""
    groups: list[list[nn.Module]] = [[]]
    for layer in layers:
        groups[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d):
            groups.append([])
    return [nn.Sequential(*group) for group in groups if group]


def _class_token(model: Any, images_NCHW: Tensor) -> Tensor:
    """The features of a vision transformer. Source: VisionTransformer.forward in torchvision."""
    patches_NSF = model._process_input(images_NCHW)
    token_NSF = model.class_token.expand(patches_NSF.shape[0], -1, -1)
    features_NF: Tensor = model.encoder(torch.cat([token_NSF, patches_NSF], dim=1))[:, 0]
    return features_NF


def _class_of(name: str) -> Any:
    """The class of the network that a function returns."""
    return _models().get_model_builder(name).__annotations__["return"]


def _models() -> Any:
    """torchvision.models, which is slow to import."""
    check_installation()
    from torchvision import models

    return models
