"""The kinds of layers: shape, cost and source text of each class of torch.nn that networks are made of.

This file does not import torch. The modules of each kind are in `layer_modules.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from tuner.architecture.shapes import Shape, side_after, sides_in_words

Arguments = Mapping[str, Any]

INDEX_FLOATS = 2
"""Memory that max pooling needs for the index of each output value, in floats: torch stores it as int64."""
MAX_NORM_GROUPS, MIN_GROUP_CHANNELS = 8, 4
"""Most groups of a group normalization, and fewest channels of a group.

The number of groups is the largest one within these limits that divides the channels, or else 1. Source: Wu and He,
Group Normalization, arXiv 1803.08494; their 32 groups are for layers of at least 64 channels.
"""


@dataclass(frozen=True)
class LayerKind:
    """What the layers of one class of torch.nn have in common. The defaults describe an elementwise layer.

    output_shape, arithmetic: from input shape and arguments; `arithmetic` writes out how the shape is computed.
    num_parameters, num_buffers: as torch holds them. multiply_adds: for each output value. index_floats: memory for
    indices beside each output value, in floats. positional: the arguments that are typed without their name. defaults:
    torch's default arguments, which need not be typed.
    """

    output_shape: Callable[[Shape, Arguments], Shape] = lambda shape, _: shape
    arithmetic: Callable[[Shape, Arguments], str] = lambda *_: ""
    num_parameters: Callable[[Arguments], int] = lambda _: 0
    num_buffers: Callable[[Arguments], int] = lambda _: 0
    multiply_adds: Callable[[Arguments], int] = lambda _: 0
    index_floats: int = 0
    positional: tuple[str, ...] = ()
    defaults: Arguments = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """One layer of `torch.nn`, by the name of its class and its arguments, and what it does to a shape."""

    kind: str
    arguments: Arguments
    input_shape: Shape
    output_shape: Shape

    @property
    def arithmetic(self) -> str:
        """The arithmetic of its output shape, written out: `28-3+1=26`."""
        return LAYER_KINDS[self.kind].arithmetic(self.input_shape, self.arguments)

    @property
    def source(self) -> str:
        """The layer as one would type it: `nn.Conv2d(1, 16, kernel_size=3)`. Defaults of torch are omitted."""
        kind = LAYER_KINDS[self.kind]
        typed = [
            repr(value) if name in kind.positional else f"{name}={value!r}"
            for name, value in self.arguments.items()
            if name not in kind.defaults or kind.defaults[name] != value
        ]
        return f"nn.{self.kind}({', '.join(typed)})"


def layer(shape: Shape, kind: str, **arguments: Any) -> Layer:
    """A layer of this kind over a shape."""
    return Layer(kind, arguments, shape, LAYER_KINDS[kind].output_shape(shape, arguments))


def convolution(
    shape: Shape,
    *,
    out_channels: int,
    kernel_size: int,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
    bias: bool = True,
) -> Layer:
    """Conv2d over (C, H, W); with `groups`, an output channel depends only on the input channels of its group."""
    grouped = {"groups": groups} if groups > 1 else {}
    return layer(
        shape,
        "Conv2d",
        in_channels=shape[0],
        out_channels=out_channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        **grouped,
        bias=bias,
    )


def pool(shape: Shape, *, kind: str, kernel_size: int, stride: int) -> Layer:
    """MaxPool2d or AvgPool2d over (C, H, W), floor mode: incomplete windows at the right and lower edge are ignored."""
    return layer(shape, kind, kernel_size=kernel_size, stride=stride)


def global_average(shape: Shape) -> Layer:
    """AdaptiveAvgPool2d(1): one mean for each channel."""
    return layer(shape, "AdaptiveAvgPool2d", output_size=1)


def flatten(shape: Shape) -> Layer:
    """Flatten: (C, H, W) becomes (C*H*W,)."""
    return layer(shape, "Flatten", start_dim=1)


def linear(shape: Shape, *, out_features: int) -> Layer:
    """Linear over (features,)."""
    (in_features,) = shape
    return layer(shape, "Linear", in_features=in_features, out_features=out_features)


def batch_norm(shape: Shape) -> Layer:
    """BatchNorm2d over (C, H, W)."""
    return layer(shape, "BatchNorm2d", num_features=shape[0])


def group_norm(shape: Shape) -> Layer:
    """GroupNorm over (C, H, W), in as many groups as MAX_NORM_GROUPS and MIN_GROUP_CHANNELS allow."""
    channels = shape[0]
    most = min(MAX_NORM_GROUPS, channels // MIN_GROUP_CHANNELS)
    num_groups = next((groups for groups in range(most, 1, -1) if channels % groups == 0), 1)
    return layer(shape, "GroupNorm", num_groups=num_groups, num_channels=channels)


def _window(arguments: Arguments) -> int:
    """Number of input values from which a convolution computes one output value."""
    channels: int = arguments["in_channels"] // arguments.get("groups", 1)
    size: int = arguments["kernel_size"]
    return channels * size**2


def _sides(shape: Shape, arguments: Arguments) -> Shape:
    window = {"kernel_size": arguments["kernel_size"], "stride": arguments["stride"]}
    return tuple(side_after(side, **window, padding=arguments.get("padding", 0)) for side in shape[1:])


def _sides_in_words(shape: Shape, arguments: Arguments) -> str:
    window = {"kernel_size": arguments["kernel_size"], "stride": arguments["stride"]}
    return sides_in_words(shape[1:], **window, padding=arguments.get("padding", 0))


ELEMENTWISE = LayerKind()
POOL = LayerKind(lambda shape, arguments: (shape[0], *_sides(shape, arguments)), _sides_in_words)

LAYER_KINDS: dict[str, LayerKind] = {
    "Conv2d": LayerKind(
        lambda shape, arguments: (arguments["out_channels"], *_sides(shape, arguments)),
        _sides_in_words,
        num_parameters=lambda arguments: arguments["out_channels"] * (_window(arguments) + arguments["bias"]),
        multiply_adds=_window,
        positional=("in_channels", "out_channels"),
        defaults={"stride": 1, "padding": 0, "groups": 1, "bias": True},
    ),
    "Linear": LayerKind(
        lambda _, arguments: (arguments["out_features"],),
        num_parameters=lambda arguments: arguments["out_features"] * (arguments["in_features"] + 1),
        multiply_adds=lambda arguments: int(arguments["in_features"]),
        positional=("in_features", "out_features"),
    ),
    "BatchNorm2d": LayerKind(
        num_parameters=lambda arguments: 2 * arguments["num_features"],
        num_buffers=lambda arguments: 2 * arguments["num_features"] + 1,
        positional=("num_features",),
    ),
    "GroupNorm": LayerKind(
        num_parameters=lambda arguments: 2 * arguments["num_channels"], positional=("num_groups", "num_channels")
    ),
    "MaxPool2d": LayerKind(POOL.output_shape, POOL.arithmetic, index_floats=INDEX_FLOATS),
    "AvgPool2d": POOL,
    "AdaptiveAvgPool2d": LayerKind(
        lambda shape, _: (shape[0], 1, 1),
        lambda shape, _: f"mean of {shape[1]}*{shape[2]}",
        positional=("output_size",),
    ),
    "Flatten": LayerKind(
        lambda shape, _: (prod(shape),),
        lambda shape, _: f"{'*'.join(map(str, shape))}={prod(shape)}",
        defaults={"start_dim": 1},
    ),
    "Dropout": LayerKind(positional=("p",)),
    "ReLU": ELEMENTWISE,
    "ReLU6": ELEMENTWISE,
    "LeakyReLU": ELEMENTWISE,
    "ELU": ELEMENTWISE,
    "GELU": ELEMENTWISE,
    "SiLU": ELEMENTWISE,
    "Tanh": ELEMENTWISE,
    "Sigmoid": ELEMENTWISE,
}
"""Each kind of layer, by the name of its class in torch.nn."""
