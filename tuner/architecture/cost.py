"""What a network costs, in pure arithmetic over integers: parameters, FLOPs, memory. No tensor is made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from tuner.architecture.layer_kinds import LAYER_KINDS, Layer
from tuner.architecture.parts import Items, Part

FLOAT_BYTES = 4
SCORED_AT_ONCE, SCORED_VALUES = 64, 2**23
"""Images that are scored at once on a CPU, if what enters and leaves the widest layer for them is no more numbers than
the second, 32 MiB in fp32; fewer in wider networks."""
COPIES_OF_PARAMETERS, COPIES_OF_ENDS = 7, 4
"""Numbers that a training holds for each parameter, and for each number of a batch's images and logits, at most; seen
at the peaks of networks that are mostly the one or the other (tests/training/test_peak_memory.py)."""
FLOPS_OF_AN_ACTIVATION = 300
"""What it costs to write, normalize, activate and drop one number and to go back over it, in FLOPs of the forward pass.

A rule of thumb, for comparing networks before either is trained; the faster a machine multiplies, the more it is.
"""


@dataclass(frozen=True)
class Cost:
    """The cost of one network, or of one layer.

    num_parameters: trained numbers (running statistics of batch normalization are not trained).
    num_buffers: numbers kept with the weights but not trained.
    flops: of one image's forward pass, 2 for each multiply-add of convolutions and linear layers, none for the rest,
        as torch.utils.flop_counter counts them.
    activations: numbers that leave the layers for one image; what a training step keeps for its backward pass.
    widest: numbers that enter and leave a layer for one image, and those that wait beside it for a join, of the layer
        where they are most; what scoring holds.
    ends: numbers that enter and leave the network for one image, of which there are more copies than of others.
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
        """What training takes for one image, in FLOPs of the forward pass; small networks wait for memory as well."""
        return self.flops + FLOPS_OF_AN_ACTIVATION * self.activations

    @property
    def scored_at_once(self) -> int:
        """How many images are scored at once on a CPU."""
        return max(1, min(SCORED_AT_ONCE, SCORED_VALUES // self.widest))

    def training_bytes(self, batch_size: int) -> int:
        """Upper estimate of what training takes, its scoring and saving included, in bytes.

        Weights, gradients, Adam's two moments, and copies of weights and gradients in another precision or layout. For
        each activation its value, its gradient and one temporary. Of the images those of this batch and of the last, as
        bytes, floats and in the layout of the convolutions; of the logits those that the loss makes. Scoring comes on
        top, since its feature maps are of another size and may not fit where those of a step were, and those of the
        widest layer twice, since one layer's may not fit where another's were.
        """
        of_batch = batch_size * (3 * self.activations + COPIES_OF_ENDS * self.ends)
        of_scoring = 2 * self.scored_at_once * self.widest
        return FLOAT_BYTES * (COPIES_OF_PARAMETERS * self.num_parameters + of_batch + of_scoring)


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
    """The cost of a whole network, as traced."""
    return replace(_path_cost(path), ends=prod(path[0].input_shape) + prod(path[-1].output_shape))


def _path_cost(path: Items, *, waiting: int = 0) -> Cost:
    """The cost of what follows one another; `waiting` numbers for each image are kept beside what the first takes."""
    total = NOTHING
    for position, item in enumerate(path):
        cost = layer_cost(item) if isinstance(item, Layer) else part_cost(item)
        total += replace(cost, widest=cost.widest + waiting) if position and waiting else cost
    return total


def part_cost(part: Part) -> Cost:
    """The cost of a part: of both paths and of the join, whose output is one more activation.

    What enters waits for the shortcut while the main path is computed, and what leaves that for the join.
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
