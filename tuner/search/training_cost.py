"""What training a network takes in a study: of a backbone, only what is trained, on stored features where they fit."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from tuner.architecture.any_architecture import AnyArchitecture, cost_of
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.cost import FLOAT_BYTES, Cost
from tuner.data.stream_limit import StreamLimit
from tuner.data.training_data import stream_limit_of

if TYPE_CHECKING:
    import torch

    from tuner.architecture.backbone_cost import TailCost


def training_cost(architecture: AnyArchitecture, num_images: int) -> Cost | TailCost:
    """The cost of training a resolved architecture. num_images: of the development part, whose features are stored."""
    if not isinstance(architecture, BackboneNetwork):
        return cost_of(architecture)
    from tuner.architecture.backbone_cost import tail_cost

    return tail_cost(architecture, is_on_features=is_trained_on_features(architecture, num_images))


def is_trained_on_features(network: BackboneNetwork, num_images: int) -> bool:
    """Whether the outputs of a network's frozen stages are computed once and stored, as `cached_features` decides."""
    from tuner.architecture.backbone_cost import features_shape
    from tuner.architecture.backbone_modules import has_frozen_stages
    from tuner.pretrained.features import FEATURES_BYTES, LARGEST_SHARE

    if not has_frozen_stages(network):
        return False
    num_bytes = FLOAT_BYTES * num_images * prod(features_shape(network))
    return (network.views + 1) * num_bytes <= LARGEST_SHARE * FEATURES_BYTES


@dataclass(frozen=True)
class BackboneImages:
    """The images of a study of pretrained networks, which each network takes in a size of its own.

    num_images: of the development part. device, memory_bytes: as in open_data.
    """

    num_images: int
    device: torch.device
    memory_bytes: int

    def stream_limit(self, network: BackboneNetwork) -> StreamLimit | None:
        """Return the memory limit for batches if a network's images would be streamed; None if they would not."""
        if is_trained_on_features(network, self.num_images):
            return None
        return stream_limit_of(self.num_images, network.input_shape, device=self.device, memory_bytes=self.memory_bytes)
