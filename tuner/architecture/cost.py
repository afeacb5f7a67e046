"""The cost of a network: parameters, FLOPs and memory, computed with integers and without tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from tuner.architecture.shapes import Layer

FLOAT_BYTES = 4
SCORED_AT_ONCE, SCORED_VALUES = 64, 2**23
"""Number of images scored at once on a CPU, and limit for the numbers that enter and leave their widest layer.

The limit is 32 MiB in fp32; wider networks score fewer images at once.
"""
INDEX_FLOATS = 2
"""Memory that max pooling takes for the index of each value, in floats: torch stores it as int64."""
COPIES_OF_PARAMETERS, COPIES_OF_ENDS = 7, 4
"""Most copies that training holds of each parameter, and of each number in a batch's images and logits.

They were measured at the peaks of networks that consist mostly of one or the other
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
    widest: numbers in the input and output of the widest layer for one image, which scoring holds.
    ends: numbers in the input and output of the network for one image, of which there are more copies than of others.
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

    def training_bytes(self, batch_size: int) -> int:
        """Upper estimate of the memory for training, including scoring and saving, in bytes.

        Parameters need weights, gradients, Adam's two moments, and copies of weights and gradients in another precision
        or layout. Each activation needs its value, its gradient and one temporary. Images of this batch and the last
        are held as bytes, as floats and in the layout of the convolutions, and logits with the temporaries of the loss.
        Scoring is added, because its feature maps have other sizes and may not fit into the memory that was used by a
        step. Its widest layer counts twice, because one layer's maps may not fit where another's were.
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
