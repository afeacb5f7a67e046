"""What a network costs, in pure arithmetic over integers: parameters, FLOPs, memory. No tensor is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from tuner.architecture.shapes import Layer

FLOAT_BYTES = 4
SCORED_AT_ONCE = 64
"""Images that are scored at once at least, and on a CPU: as many as keep the feature maps in its caches."""
INDEX_FLOATS = 2
"""Room that max pooling takes for the place of each of its values, in floats: torch writes it as int64."""
FLOPS_OF_AN_ACTIVATION = 300
"""What it costs to write, normalize, activate and drop one number and to go back over it, in FLOPs of the forward pass.

A rule of thumb, for comparing networks before either is trained; the faster a machine multiplies, the more it is.
"""


@dataclass(frozen=True)
class Cost:
    """Of one network, or of one layer.

    num_parameters: trained numbers (running statistics of batch normalization are not trained).
    num_buffers: numbers kept with the weights but not trained.
    flops: of one image's forward pass, 2 for each multiply-add of convolutions and linear layers, none for the rest,
        as torch.utils.flop_counter counts them.
    activations: numbers that leave the layers for one image; what a training step keeps for its backward pass.
    widest: numbers that enter and leave a layer for one image, of the layer where they are most; what scoring holds.
    """

    num_parameters: int
    num_buffers: int
    flops: int
    activations: int
    widest: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.num_parameters + other.num_parameters,
            self.num_buffers + other.num_buffers,
            self.flops + other.flops,
            self.activations + other.activations,
            max(self.widest, other.widest),
        )

    @property
    def work(self) -> int:
        """What training takes for one image, in FLOPs of the forward pass; small networks wait for memory as well."""
        return self.flops + FLOPS_OF_AN_ACTIVATION * self.activations

    def training_bytes(self, batch_size: int) -> int:
        """Upper estimate of what training takes, its scoring included, in bytes, fp32.

        Weights, gradients and Adam's two moments; for each activation its value, its gradient and one temporary.
        Scoring comes on top, since its feature maps are of another size and may not fit where those of a step were, and
        those of the widest layer twice, since one layer's may not fit where another's were.
        """
        num_values = 3 * batch_size * self.activations + 2 * SCORED_AT_ONCE * self.widest
        return FLOAT_BYTES * (4 * self.num_parameters + num_values)


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
    return sum((layer_cost(layer) for layer in layers), start=Cost(0, 0, 0, 0, 0))
