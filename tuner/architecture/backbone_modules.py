"""The modules of a backbone network: the library's own network, its frozen stages, and the tail that is trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import nn

from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.backbones import build_backbone, input_of
from tuner.architecture.factory import build_path
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.layer_modules import build_layer
from tuner.architecture.trace import head_layers


@dataclass(frozen=True, eq=False)
class SplitNetwork:
    """The modules of a backbone network, which share their parameters.

    model: images_NCHW to logits_NK, with the names that the library gives its parameters. frozen: its first stages,
    which are not trained, from images to feature maps. stages: the others. head: from features_NF to logits. tail:
    stages and head in one.
    """

    model: nn.Module
    frozen: nn.Sequential
    stages: tuple[nn.Module, ...]
    head: nn.Sequential
    head_name: str

    @property
    def tail(self) -> nn.Sequential:
        """What is trained, from feature maps to logits_NK: the stages that are not frozen, and the head."""
        return nn.Sequential(*self.stages, self.head)


def split_network(network: BackboneNetwork) -> SplitNetwork:
    """Build a resolved network without its weights. Raises BackboneError if its library is not installed."""
    backbone = build_backbone(network.backbone)
    head = build_path(layers_of_head(network, num_features=backbone.num_features), build_layer)
    model = backbone.attach_head(head)
    start = _first_trained(backbone.stages, network.trained_stages)
    frozen, trained = backbone.stages[:start], backbone.stages[start:]
    return SplitNetwork(model, nn.Sequential(*frozen), trained, head, backbone.head_name)


def layers_of_head(network: BackboneNetwork, *, num_features: int | None = None) -> list[Layer]:
    """The layers of a network's head, from features (F) to logits. num_features: F, if it is known already."""
    if num_features is None:
        num_features = _num_features(network.backbone)
    layers = head_layers(replace(network.head, pooling="flatten"), (num_features, 1, 1), network.num_classes)
    return [layer for layer in layers if layer.kind != "Flatten"]


@lru_cache
def _num_features(name: str) -> int:
    with torch.device("meta"):
        return build_backbone(name).num_features


@lru_cache
def head_name_of(name: str) -> str:
    """The name that a backbone's classifier, and so the head of a network with it, has in the library's module."""
    with torch.device("meta"):
        return build_backbone(name).head_name


def resolve_backbone(network: BackboneNetwork) -> BackboneNetwork:
    """Return the network with at most as many trained stages as it has, and with defaults for fields without effect."""
    head = replace(network.head, pooling="average")
    if head.hidden_features == 0:
        head = replace(head, activation="relu")
    trained_stages = min(network.trained_stages, num_stages(network.backbone))
    network = replace(network, trained_stages=trained_stages, head=head)
    if network.crop_fraction == input_of(network.backbone).crop_fraction:
        network = replace(network, crop_fraction=0.0)
    return network if has_frozen_stages(network) else replace(network, views=0)


def has_frozen_stages(network: BackboneNetwork) -> bool:
    """Whether some stages of a network are frozen, so that it can be trained on their features."""
    return network.trained_stages < num_stages(network.backbone)


@lru_cache
def num_stages(name: str) -> int:
    """How many stages of a backbone have parameters that can be trained."""
    with torch.device("meta"):
        return sum(_has_parameters(stage) for stage in build_backbone(name).stages)


def _has_parameters(stage: nn.Module) -> bool:
    return next(stage.parameters(), None) is not None


def _first_trained(stages: tuple[nn.Module, ...], num_trained: int) -> int:
    """Index of the first stage that is trained; the number of stages if none is."""
    with_parameters = [at for at, stage in enumerate(stages) if _has_parameters(stage)]
    return with_parameters[-num_trained] if num_trained else len(stages)
