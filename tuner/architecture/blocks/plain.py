"""The plain family: convolution, normalization, activation, pooling, dropout, in this order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config

from tuner.architecture import shapes
from tuner.architecture.shapes import Layer, Shape, side_after

Padding = Literal["same", "valid"]
Normalization = Literal["none", "batch"]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid"]
Pooling = Literal["none", "max", "average"]
Count = Annotated[int, Field(ge=1, le=65_536, strict=True)]
Window = Annotated[int, Field(ge=1, le=64, strict=True)]
DropoutRate = Annotated[float, Field(ge=0.0, lt=1.0, strict=True)]

ACTIVATION_LAYERS: dict[Activation, str] = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
}
POOLING_LAYERS = {"max": "MaxPool2d", "average": "AvgPool2d"}


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class PlainBlock:
    """One block, as sampled or as resolved. Windows are square; `dropout` is the probability of dropping an element."""

    out_channels: Count
    kernel_size: Window = 3
    stride: Window = 1
    padding: Padding = "same"
    normalization: Normalization = "none"
    activation: Activation = "relu"
    pooling: Pooling = "none"
    pool_size: Window = 2
    pool_stride: Window = 2
    dropout: DropoutRate = 0.0

    def __str__(self) -> str:
        """Format as in `32 k3 bn relu max3s2 d0.05`; a stride of 1, or for pooling of the window size, is omitted."""
        words = [str(self.out_channels), f"k{self.kernel_size}"]
        words += [f"s{self.stride}"] if self.stride > 1 else []
        words += ["valid"] if self.padding == "valid" else []
        words += ["bn"] if self.normalization == "batch" else []
        words.append(self.activation)
        if self.pooling != "none":
            stride = f"s{self.pool_stride}" if self.pool_stride != self.pool_size else ""
            words.append(f"{self.pooling}{self.pool_size}{stride}")
        words += [f"d{self.dropout:.2g}"] if self.dropout else []
        return " ".join(words)

    def resolve(self, shape: Shape) -> PlainBlock:
        """Resolve the block for a feature map of `shape` (C, H, W).

        Rule: a window (the kernel of a valid convolution, or a pooling window) that is larger than the feature map's
        smaller side is reduced to that side, and its pooling stride to the window. A pooling window of one pixel means
        no pooling. Fields that then have no effect take their defaults, so that equal networks are equal values.
        """
        block = self
        if block.padding == "valid":
            block = replace(block, kernel_size=min(block.kernel_size, *shape[1:]))
            if block.kernel_size == 1:
                block = replace(block, padding="same")
        if block._convolution(shape).output_shape[1:] == (1, 1):
            unit = replace(block, stride=1)
            block = unit if unit._convolution(shape).output_shape[1:] == (1, 1) else block
        sides = block._convolution(shape).output_shape[1:]
        pool_size = min(block.pool_size, *sides)
        if block.pooling == "none" or pool_size == 1:
            return replace(block, pooling="none", pool_size=2, pool_stride=2)
        pool_stride = block.pool_stride if pool_size == block.pool_size else min(block.pool_stride, pool_size)
        pooled = [side_after(side, kernel_size=pool_size, stride=1, padding=0) for side in sides]
        pool_stride = pool_size if pooled == [1, 1] else pool_stride
        return replace(block, pool_size=pool_size, pool_stride=pool_stride)

    def layers(self, shape: Shape) -> Iterator[Layer]:
        """The layers of a resolved block over a feature map of `shape` (C, H, W)."""
        yield (layer := self._convolution(shape))
        if self.normalization == "batch":
            yield (layer := shapes.batch_norm(layer.output_shape))
        yield (layer := shapes.same_shape(layer.output_shape, ACTIVATION_LAYERS[self.activation]))
        if self.pooling != "none":
            kind = POOLING_LAYERS[self.pooling]
            yield (
                layer := shapes.pool(layer.output_shape, kind=kind, kernel_size=self.pool_size, stride=self.pool_stride)
            )
        if self.dropout > 0:
            yield shapes.same_shape(layer.output_shape, "Dropout", p=self.dropout)

    def _convolution(self, shape: Shape) -> Layer:
        """Return the convolution, which has no bias if batch normalization would cancel it."""
        return shapes.convolution(
            shape,
            out_channels=self.out_channels,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.kernel_size // 2 if self.padding == "same" else 0,
            bias=self.normalization == "none",
        )
