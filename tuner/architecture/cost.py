"""The cost of a network: parameters, FLOPs and memory, computed with integers and without tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from tuner.architecture.layer_kinds import LAYER_KINDS, Layer
from tuner.architecture.parts import Items, Part

FLOAT_BYTES = 4
SCORED_AT_ONCE, SCORED_VALUES = 64, 2**23
"""Most images that are scored at once on a CPU, and most numbers in the input and output of their widest layer.

The numbers take at most 32 MiB in fp32; wider networks score fewer images at once.
"""
COPIES_OF_ACTIVATIONS = 3
"""Each activation needs its value, its gradient and one temporary."""
COPIES_OF_PARAMETERS, COPIES_OF_ENDS = 7, 4
"""Most copies that training holds of each parameter, and of each number in a batch's images and logits.

They were measured at the memory peaks of networks that are mostly parameters, or mostly images and logits
(tests/training/test_peak_memory.py).
"""
FLOPS_OF_AN_ACTIVATION = 300
"""Cost of normalizing, activating and dropping one number, forward and backward, in FLOPs of the forward pass.

This is a rule of thumb to compare networks before they are trained. It is larger on machines that multiply faster.
"""


@dataclass(frozen=True)
class Cost:
    """The cost of one network, or of one layer.

    num_parameters: trained numbers (running statistics of batch normalization are not trained).
    num_buffers: numbers that are stored with the weights but not trained.
    flops: for one image's forward pass, 2 for each multiply-add of convolutions and linear layers and none for other
        layers, as torch.utils.flop_counter counts.
    activations: numbers in the outputs of all layers for one image, which a training step keeps for its backward pass.
    widest: numbers in the input and output of the widest layer for one image, and those that are kept for a join
        meanwhile; scoring holds these in memory.
    ends: numbers in the input and output of the network for one image; training holds more copies of these than of
        activations.
    """

    num_parameters: int
    num_buffers: int
    flops: int
    activations: int
    widest: int
    ends: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.num_parameters + other.num_parameters,
            self.num_buffers + other.num_buffers,
            self.flops + other.flops,
            self.activations + other.activations,
            max(self.widest, other.widest),
            self.ends + other.ends,
        )

    @property
    def work(self) -> int:
        """Cost of training on one image, in FLOPs of the forward pass. It includes time spent on memory access."""
        return self.flops + FLOPS_OF_AN_ACTIVATION * self.activations

    @property
    def scored_at_once(self) -> int:
        """How many images are scored at once on a CPU."""
        return max(1, min(SCORED_AT_ONCE, SCORED_VALUES // self.widest))

    def training_bytes(
        self, batch_size: int, *, has_average: bool = False, copies: float = COPIES_OF_ACTIVATIONS
    ) -> int:
        """Upper estimate of the memory for training, including scoring and saving, in bytes.

        copies: of each activation. Parameters need weights, gradients, Adam's two moments, and copies of weights and
        gradients in another precision or layout. A moving average of the weights is one more copy. Images of this and
        the previous batch are held as bytes, as floats and in the layout of the convolutions, and logits with the
        temporaries of the loss.

        Scoring is added, because its feature maps have other sizes and may not fit into the memory that was used by a
        step. Its widest layer counts twice, because one layer's maps may not fit where another's were.
        """
        of_batch = round(batch_size * (copies * self.activations + COPIES_OF_ENDS * self.ends))
        of_scoring = 2 * self.scored_at_once * self.widest
        of_parameters = (COPIES_OF_PARAMETERS + has_average) * self.num_parameters
        return FLOAT_BYTES * (of_parameters + of_batch + of_scoring)


def layer_cost(layer: Layer) -> Cost:
    """The cost of one layer."""
    kind = LAYER_KINDS[layer.kind]
    activations = prod(layer.output_shape)
    return Cost(
        num_parameters=kind.num_parameters(layer.arguments),
        num_buffers=kind.num_buffers(layer.arguments),
        flops=2 * kind.multiply_adds(layer.arguments) * activations,
        activations=activations,
        widest=prod(layer.input_shape) + (1 + kind.index_floats) * activations,
    )


def network_cost(path: Items) -> Cost:
    """The cost of a whole network from its traced parts."""
    return replace(_path_cost(path), ends=prod(path[0].input_shape) + prod(path[-1].output_shape))


def _path_cost(path: Items, *, waiting: int = 0) -> Cost:
    """The cost of a path. `waiting`: numbers of its input for each image, if they are kept until its end."""
    total = NOTHING
    for position, item in enumerate(path):
        cost = layer_cost(item) if isinstance(item, Layer) else part_cost(item)
        total += replace(cost, widest=cost.widest + waiting) if position and waiting else cost
    return total


def part_cost(part: Part) -> Cost:
    """The cost of a part: both paths and the join, whose output is one more activation.

    While the main path is computed, the input is kept for the shortcut; then the main path's output is kept for the
    join.
    """
    main = _path_cost(part.main, waiting=prod(part.input_shape) if part.join != "none" else 0)
    if part.join == "none":
        return main
    left_by_main, left_by_shortcut = prod(part.main[-1].output_shape), prod(part.shortcut_shape)
    shortcut = _path_cost(part.shortcut)
    shortcut = replace(shortcut, widest=shortcut.widest + left_by_main)
    joined = prod(part.output_shape)
    return main + shortcut + Cost(0, 0, 0, joined, left_by_main + left_by_shortcut + joined)


NOTHING = Cost(0, 0, 0, 0, 0)
