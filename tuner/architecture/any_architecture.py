"""AnyArchitecture: a traced network, or a pretrained backbone with a head, and what both can be asked.

torch is imported only for a backbone, or to build a network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.cost import Cost, network_cost
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import resolve, trace

if TYPE_CHECKING:
    from torch import nn

AnyArchitecture = Architecture | BackboneNetwork


def as_traced(architecture: AnyArchitecture) -> Architecture:
    """Return an architecture that must be a traced one. Raises TypeError for a backbone."""
    if not isinstance(architecture, Architecture):
        raise TypeError(f"must be a network of layers that are traced, got {architecture}")
    return architecture


def resolve_any(architecture: AnyArchitecture) -> AnyArchitecture:
    """Return the architecture as it is built and stored."""
    if isinstance(architecture, BackboneNetwork):
        from tuner.architecture.backbone_modules import resolve_backbone

        return resolve_backbone(architecture)
    return resolve(architecture)


def kind_of(architecture: AnyArchitecture) -> str:
    """The kind of a resolved network, within which accuracies after the same few epochs are compared.

    A head on frozen features is nearly as good after two epochs as it ever becomes. The more of a backbone is trained,
    the worse it is at first, and the better in the end. Traced networks are all of one kind, which has no name.
    """
    if not isinstance(architecture, BackboneNetwork):
        return ""
    if not architecture.trained_stages:
        return "frozen networks"
    from tuner.architecture.backbone_modules import has_frozen_stages

    return "partly frozen networks" if has_frozen_stages(architecture) else "networks trained as a whole"


def cost_of(architecture: AnyArchitecture) -> Cost:
    """The cost of a resolved architecture."""
    if isinstance(architecture, BackboneNetwork):
        from tuner.architecture.backbone_cost import backbone_cost

        return backbone_cost(architecture)
    return network_cost(trace(architecture))


def build_any(architecture: AnyArchitecture) -> nn.Module:
    """The module of a resolved architecture, images_NCHW (float, normalised) to logits_NK, without its weights."""
    if isinstance(architecture, BackboneNetwork):
        from tuner.architecture.backbone_modules import split_network

        return split_network(architecture).model
    from tuner.architecture.factory import build_model

    return build_model(architecture)
