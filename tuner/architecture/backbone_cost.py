"""The cost of a network with a backbone, and of training it: of its tail on features, or on images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from tuner.architecture.backbone_modules import layers_of_head
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.backbones import build_backbone
from tuner.architecture.cost import FLOAT_BYTES, NOTHING, Cost, layer_cost
from tuner.architecture.shapes import Shape
from tuner.errors import BackboneError

FEATURES_AT_ONCE = 32
"""How many images pass the frozen stages at once while features are computed."""
COPIES_OF_FROZEN = 4
"""Copies of frozen parameters in memory: in the network, as read, of the best epoch, and while that is saved."""
COPIES_OF_ACTIVATIONS = 1.5
"""Most copies that training holds of each activation of a backbone.

Its layers run one by one, and the outputs of all of them are counted, of which a backward pass needs a part.
"""
FORWARD_SHARE = 1 / 3
"""Work of a forward pass alone, as a share of the work of training: a backward pass takes twice as long."""


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage of a backbone, and the shape of its output for one image."""

    cost: Cost
    output_shape: Shape


@dataclass(frozen=True)
class TailCost:
    """The cost of training a network with a backbone, of which the first stages may be frozen.

    tail: of what is trained; its `ends` are its input, features or images, and the logits. num_frozen: parameters of
    the frozen stages. frozen_flops: of one image's pass through them in each epoch; 0 if features are stored.
    passed_at_once: how many images pass the frozen stages at once at most; None for a whole batch, 0 if no stage is
    frozen. widest: as in Cost, of the whole network.
    """

    tail: Cost
    num_frozen: int
    frozen_flops: int
    passed_at_once: int | None
    widest: int

    @property
    def work(self) -> float:
        """Cost of training on one image, in the units of `Cost.work`."""
        return self.tail.work + FORWARD_SHARE * self.frozen_flops

    def training_bytes(self, batch_size: int, *, has_average: bool = False) -> int:
        """Upper estimate of the memory for training, in bytes, as `Cost.training_bytes` has it.

        Frozen parameters need no gradients and no moments, and frozen layers keep no activations. Their feature maps
        are held while features are computed, or in each step if the images pass them in each epoch.
        """
        at_once = batch_size if self.passed_at_once is None else self.passed_at_once
        of_frozen = COPIES_OF_FROZEN * self.num_frozen + 2 * at_once * self.widest
        of_tail = self.tail.training_bytes(batch_size, has_average=has_average, copies=COPIES_OF_ACTIVATIONS)
        return FLOAT_BYTES * of_frozen + of_tail


def backbone_cost(network: BackboneNetwork) -> Cost:
    """The cost of a resolved network, counted on the meta device.

    Parameters and FLOPs are those of the whole network, as torch's counter counts them; activations are those of the
    tail, which training keeps, and the widest layer is that of the whole network. Raises BackboneError for images that
    the backbone cannot take.
    """
    stages, head = stage_costs(network.backbone, network.input_shape), _head_cost(network)
    whole = sum((stage.cost for stage in stages), head)
    _, trained = _divided(stages, network)
    tail = sum((stage.cost for stage in trained), head)
    return replace(whole, activations=tail.activations, ends=prod(network.input_shape) + network.num_classes)


def tail_cost(network: BackboneNetwork, *, is_on_features: bool) -> TailCost:
    """The cost of training a resolved network.

    is_on_features: whether the outputs of the frozen stages are computed once. Raises BackboneError as backbone_cost.
    """
    stages, head = stage_costs(network.backbone, network.input_shape), _head_cost(network)
    frozen_stages, trained_stages = _divided(stages, network)
    frozen = sum((stage.cost for stage in frozen_stages), NOTHING)
    tail = sum((stage.cost for stage in trained_stages), head)
    by_features = max(FEATURES_AT_ONCE, backbone_cost(network).scored_at_once) if is_on_features else None
    shape = features_shape(network) if is_on_features else network.input_shape
    return TailCost(
        tail=replace(tail, ends=prod(shape) + network.num_classes),
        num_frozen=frozen.num_parameters,
        frozen_flops=0 if is_on_features else frozen.flops,
        passed_at_once=by_features if frozen_stages else 0,
        widest=max(frozen.widest, tail.widest),
    )


def features_shape(network: BackboneNetwork) -> Shape:
    """Shape of one image's features: the output of the last frozen stage, or the image itself if none is frozen."""
    frozen, _ = _divided(stage_costs(network.backbone, network.input_shape), network)
    return frozen[-1].output_shape if frozen else network.input_shape


@lru_cache(maxsize=256)
def stage_costs(name: str, input_shape: Shape) -> tuple[StageCost, ...]:
    """The cost of each stage of a backbone. Raises BackboneError for images that the backbone cannot take."""
    with torch.device("meta"):
        backbone = build_backbone(name)
        maps = torch.empty(1, *input_shape)
    backbone.model.eval()
    backbone.model.requires_grad_(False)  # the counter cannot follow a parameter that is passed on as an input
    found = []
    for stage in backbone.stages:
        outputs = _Outputs(stage)
        try:
            with FlopCounterMode(display=False) as counter, torch.no_grad(), outputs:
                maps = stage(maps)
        except (AssertionError, RuntimeError, ValueError) as error:  # what the libraries raise for a wrong size
            height, width = input_shape[1:]
            words = " ".join(str(error).split())[:200]
            raise BackboneError(
                f"{name} cannot take images of {height}x{width} pixels ({words}): give another image_size"
            ) from error
        cost = Cost(
            num_parameters=sum(parameter.numel() for parameter in stage.parameters()),
            num_buffers=sum(buffer.numel() for buffer in stage.buffers() if buffer.is_floating_point()),
            flops=counter.get_total_flops(),
            activations=outputs.total,
            widest=outputs.widest,
        )
        found.append(StageCost(cost, tuple(maps.shape[1:])))
    return tuple(found)


def _divided(
    stages: tuple[StageCost, ...], network: BackboneNetwork
) -> tuple[tuple[StageCost, ...], tuple[StageCost, ...]]:
    """The frozen stages and those that are trained. Every stage of a backbone has parameters."""
    num_frozen = max(0, len(stages) - network.trained_stages)
    return stages[:num_frozen], stages[num_frozen:]


def _head_cost(network: BackboneNetwork) -> Cost:
    return sum((layer_cost(layer) for layer in layers_of_head(network)), NOTHING)


class _Outputs:
    """Counts the numbers in the outputs of a module's layers while it runs."""

    def __init__(self, module: nn.Module) -> None:
        self._layers = [one for one in module.modules() if not list(one.children())]
        self.total = self.widest = 0

    def __enter__(self) -> None:
        self._handles = [layer.register_forward_hook(self._count) for layer in self._layers]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _count(self, _: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        size = output.numel() if isinstance(output, Tensor) else 0
        before = sum(one.numel() for one in inputs if isinstance(one, Tensor))
        self.total += size
        self.widest = max(self.widest, before + size)
