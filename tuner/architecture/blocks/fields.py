"""What the families of blocks share: the types of their fields, their layers, and the rules for what does not fit."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tuner.architecture import layer_kinds
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.shapes import Shape, side_after

Padding = Literal["same", "valid"]
Normalization = Literal["none", "batch", "group"]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "relu6"]
Pooling = Literal["none", "max", "average"]
Count = Annotated[int, Field(ge=1, le=65_536, strict=True)]
Window = Annotated[int, Field(ge=1, le=64, strict=True)]
DropoutRate = Annotated[float, Field(ge=0.0, lt=1.0, strict=True)]

NORMALIZATION_WORDS: dict[Normalization, str] = {"batch": "bn", "group": "gn"}
ACTIVATION_LAYERS: dict[Activation, str] = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "relu6": "ReLU6",
}
POOLING_LAYERS = {"max": "MaxPool2d", "average": "AvgPool2d"}


def _is_odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError(f"must be odd, so that the padding keeps the size of the feature map, got {size}")
    return size


OddWindow = Annotated[Window, AfterValidator(_is_odd)]


def normalized(shape: Shape, normalization: Normalization) -> list[Layer]:
    """The layer of a normalization over (C, H, W), if there is one.

    A single value gets no group normalization, because the result would not depend on it.
    """
    if normalization == "none" or (normalization == "group" and prod(shape) == 1):
        return []
    return [layer_kinds.batch_norm(shape) if normalization == "batch" else layer_kinds.group_norm(shape)]


def fit_normalization(normalization: Normalization, shape: Shape) -> Normalization:
    """The normalization for a feature map of `shape` (C, H, W): a single value gets no group normalization."""
    return normalization if normalized(shape, normalization) else "none"


def activated(shape: Shape, activation: Activation) -> Layer:
    """The layer of an activation."""
    return layer_kinds.layer(shape, ACTIVATION_LAYERS[activation])


def pooled(shape: Shape, pooling: Pooling, *, pool_size: int, pool_stride: int) -> list[Layer]:
    """The layer of a pooling over (C, H, W), if there is one."""
    if pooling == "none":
        return []
    return [layer_kinds.pool(shape, kind=POOLING_LAYERS[pooling], kernel_size=pool_size, stride=pool_stride)]


def dropped_out(shape: Shape, rate: float) -> list[Layer]:
    """The layer of a dropout, if there is one."""
    return [layer_kinds.layer(shape, "Dropout", p=rate)] if rate > 0 else []


def fit_stride(stride: int, sides: Shape, *, kernel_size: int, padding: int) -> int:
    """The stride of a convolution, or 1 if the output is one pixel with any stride."""
    window = {"kernel_size": kernel_size, "padding": padding}
    unit, strided = ([side_after(side, **window, stride=one) for side in sides] for one in (1, stride))
    return 1 if unit == strided == [1, 1] else stride


def fit_pooling(sides: Shape, *, pooling: Pooling, pool_size: int, pool_stride: int) -> tuple[Pooling, int, int]:
    """Pooling, window and stride that fit a feature map with these sides.

    A window that is larger than the smaller side is reduced to that side, and its stride to at most the new window. A
    window of one pixel means no pooling. If the output is one pixel with any stride, the stride becomes the window.
    """
    cut_size = min(pool_size, *sides)
    if pooling == "none" or cut_size == 1:
        return "none", 2, 2
    stride = pool_stride if cut_size == pool_size else min(pool_stride, cut_size)
    left = [side_after(side, kernel_size=cut_size, stride=1, padding=0) for side in sides]
    return pooling, cut_size, cut_size if left == [1, 1] else stride


def pooling_in_words(pooling: Pooling, *, pool_size: int, pool_stride: int) -> list[str]:
    """Like `max3s2`; the stride is omitted if it equals the window."""
    stride = f"s{pool_stride}" if pool_stride != pool_size else ""
    return [f"{pooling}{pool_size}{stride}"] if pooling != "none" else []


def dropout_in_words(rate: float) -> list[str]:
    """Like `d0.05`."""
    return [f"d{rate:.2g}"] if rate else []
