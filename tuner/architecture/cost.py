"""What a network costs, in pure arithmetic over integers: parameters, FLOPs, memory. No tensor is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from tuner.architecture.shapes import Layer

FLOAT_BYTES = 4
SCORED_AT_ONCE, SCORED_VALUES = 64, 2**23
"""Images that are scored at once on a CPU, if what enters and leaves the widest layer for them is no more numbers than
the second, 32 MiB in fp32; fewer in wider networks."""
INDEX_FLOATS = 2
"""Room that max pooling takes for the place of each of its values, in floats: torch writes it as int64."""
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
    widest: numbers that enter and leave a layer for one image, of the layer where they are most; what scoring holds.
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
    num_parameters = num_buffers = flops = 0
    if layer.kind == "Conv2d":
        window = layer.arguments["in_channels"] * layer.arguments["kernel_size"] ** 2
        out_channels = layer.arguments["out_channels"]
        num_parameters = out_channels * (window + layer.arguments["bias"])
        flops = 2 * window * prod(layer.output_shape)
    elif layer.kind == "Linear":
        in_features, out_features = layer.arguments["in_features"], layer.arguments["out_features"]
        num_parameters = out_features * (in_features + 1)
        flops = 2 * in_features * out_features
    elif layer.kind == "BatchNorm2d":
        num_features = layer.arguments["num_features"]
        num_parameters = 2 * num_features
        num_buffers = 2 * num_features + 1
    activations = prod(layer.output_shape)
    held = prod(layer.input_shape) + activations
    if layer.kind == "MaxPool2d":
        held += INDEX_FLOATS * activations
    return Cost(num_parameters, num_buffers, flops, activations, held)


def network_cost(layers: Sequence[Layer]) -> Cost:
    """The cost of a whole network, as traced."""
    total = sum((layer_cost(layer) for layer in layers), start=Cost(0, 0, 0, 0, 0))
    return replace(total, ends=prod(layers[0].input_shape) + prod(layers[-1].output_shape))
