"""Shape arithmetic in plain integers: each function returns one layer of torch.nn with its output shape.

No tensor is created and no dummy forward pass is run. A shape is (C, H, W), or (features,) once flattened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

Shape = tuple[int, ...]

POSITIONAL = frozenset(
    {"in_channels", "out_channels", "num_features", "in_features", "out_features", "output_size", "p"}
)
TORCH_DEFAULTS = frozenset(
    {("Conv2d", "stride", 1), ("Conv2d", "padding", 0), ("Conv2d", "bias", True), ("Flatten", "start_dim", 1)}
)
"""Arguments that `source` omits, because they are defaults in torch.nn."""


@dataclass(frozen=True)
class Layer:
    """One layer of `torch.nn`: the name of its class, its arguments, and its input and output shapes."""

    kind: str
    arguments: Mapping[str, Any]
    input_shape: Shape
    output_shape: Shape
    arithmetic: str = ""
    part: str = field(default="", compare=False)

    @property
    def source(self) -> str:
        """The layer as Python code, as in `nn.Conv2d(1, 16, kernel_size=3)`; torch's defaults are omitted."""
        typed = [
            repr(value) if name in POSITIONAL else f"{name}={value!r}"
            for name, value in self.arguments.items()
            if (self.kind, name, value) not in TORCH_DEFAULTS
        ]
        return f"nn.{self.kind}({', '.join(typed)})"


def side_after(size: int, *, kernel_size: int, stride: int, padding: int) -> int:
    """Length of one side of a feature map after a convolution or a floor-mode pool.

    Source: the shape section of torch.nn.Conv2d. 0 or less means that it does not fit.
    """
    return (size + 2 * padding - kernel_size) // stride + 1


def convolution(
    shape: Shape, *, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0, bias: bool = True
) -> Layer:
    """Conv2d over (C, H, W)."""
    channels, height, width = shape
    sides = [side_after(side, kernel_size=kernel_size, stride=stride, padding=padding) for side in (height, width)]
    arguments = {
        "in_channels": channels,
        "out_channels": out_channels,
        "kernel_size": kernel_size,
        "stride": stride,
        "padding": padding,
        "bias": bias,
    }
    arithmetic = _sides_in_words((height, width), kernel_size=kernel_size, stride=stride, padding=padding)
    return Layer("Conv2d", arguments, shape, (out_channels, *sides), arithmetic)


def pool(shape: Shape, *, kind: str, kernel_size: int, stride: int) -> Layer:
    """MaxPool2d or AvgPool2d over (C, H, W) in floor mode: remaining rows and columns at the edges are ignored."""
    channels, height, width = shape
    sides = [side_after(side, kernel_size=kernel_size, stride=stride, padding=0) for side in (height, width)]
    arithmetic = _sides_in_words((height, width), kernel_size=kernel_size, stride=stride, padding=0)
    arguments = {"kernel_size": kernel_size, "stride": stride}
    return Layer(kind, arguments, shape, (channels, *sides), arithmetic)


def global_average(shape: Shape) -> Layer:
    """AdaptiveAvgPool2d(1): one mean for each channel."""
    channels, height, width = shape
    arithmetic = f"mean of {height}*{width}"
    return Layer("AdaptiveAvgPool2d", {"output_size": 1}, shape, (channels, 1, 1), arithmetic)


def flatten(shape: Shape) -> Layer:
    """Flatten: (C, H, W) becomes (C*H*W,)."""
    arithmetic = f"{'*'.join(map(str, shape))}={prod(shape)}"
    return Layer("Flatten", {"start_dim": 1}, shape, (prod(shape),), arithmetic)


def linear(shape: Shape, *, out_features: int) -> Layer:
    """Linear over (features,)."""
    (in_features,) = shape
    return Layer("Linear", {"in_features": in_features, "out_features": out_features}, shape, (out_features,))


def batch_norm(shape: Shape) -> Layer:
    """BatchNorm2d over (C, H, W)."""
    return Layer("BatchNorm2d", {"num_features": shape[0]}, shape, shape)


def same_shape(shape: Shape, kind: str, **arguments: float) -> Layer:
    """A layer that works element by element: an activation, or Dropout."""
    return Layer(kind, arguments, shape, shape)


def _sides_in_words(sides: tuple[int, int], *, kernel_size: int, stride: int, padding: int) -> str:
    """Format the arithmetic as in `28-3+1=26`; height and width are separate unless they are equal."""
    words = []
    for size in dict.fromkeys(sides):
        after = side_after(size, kernel_size=kernel_size, stride=stride, padding=padding)
        span = f"{size}+2*{padding}-{kernel_size}" if padding else f"{size}-{kernel_size}"
        words.append(f"{span}+1={after}" if stride == 1 else f"({span})//{stride}+1={after}")
    return ", ".join(words)
