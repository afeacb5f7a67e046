"""The plain family: convolution, normalization, activation, pooling, dropout, in this order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydantic import ConfigDict, with_config

from tuner.architecture import layer_kinds
from tuner.architecture.blocks.fields import (
    NORMALIZATION_WORDS,
    Activation,
    Count,
    DropoutRate,
    Normalization,
    Padding,
    Pooling,
    Window,
    activated,
    dropout_in_words,
    dropped_out,
    fit_normalization,
    fit_pooling,
    fit_stride,
    normalized,
    pooled,
    pooling_in_words,
)
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.shapes import Shape


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
        """Format as in `32 k3 bn relu max3s2 d0.05`.

        A stride of 1 is omitted, and so is a pooling stride that equals the window.
        """
        words = [str(self.out_channels), f"k{self.kernel_size}"]
        words += [f"s{self.stride}"] if self.stride > 1 else []
        words += ["valid"] if self.padding == "valid" else []
        words += [NORMALIZATION_WORDS[self.normalization]] if self.normalization != "none" else []
        words.append(self.activation)
        words += pooling_in_words(self.pooling, pool_size=self.pool_size, pool_stride=self.pool_stride)
        return " ".join(words + dropout_in_words(self.dropout))

    def resolve(self, shape: Shape) -> PlainBlock:
        """Resolve the block for a feature map of `shape` (C, H, W).

        The rule: a window (the kernel of a valid convolution, or a pooling window) that is larger than the feature
        map's smaller side is reduced to that side, and a pooling stride to at most the new window. A pooling window of
        one pixel means no pooling, and a single value gets no group normalization. Fields that then have no effect get
        their defaults, so that equal networks are equal values.
        """
        block = self
        if block.padding == "valid":
            block = replace(block, kernel_size=min(block.kernel_size, *shape[1:]))
            if block.kernel_size == 1:
                block = replace(block, padding="same")
        padding = block.kernel_size // 2 if block.padding == "same" else 0
        stride = fit_stride(block.stride, shape[1:], kernel_size=block.kernel_size, padding=padding)
        block = replace(block, stride=stride)
        convolved = block._convolution(shape).output_shape
        pooling, pool_size, pool_stride = fit_pooling(
            convolved[1:],
            pooling=block.pooling,
            pool_size=block.pool_size,
            pool_stride=block.pool_stride,
        )
        normalization = fit_normalization(block.normalization, convolved)
        return replace(
            block, normalization=normalization, pooling=pooling, pool_size=pool_size, pool_stride=pool_stride
        )

    def path(self, shape: Shape) -> Iterator[Layer]:
        """The layers of a resolved block over a feature map of `shape` (C, H, W)."""
        yield (layer := self._convolution(shape))
        shape = layer.output_shape
        yield from normalized(shape, self.normalization)
        yield activated(shape, self.activation)
        for layer in pooled(shape, self.pooling, pool_size=self.pool_size, pool_stride=self.pool_stride):
            yield layer
            shape = layer.output_shape
        yield from dropped_out(shape, self.dropout)

    def _convolution(self, shape: Shape) -> Layer:
        """The convolution. It has no bias if normalization follows, which has its own."""
        return layer_kinds.convolution(
            shape,
            out_channels=self.out_channels,
            kernel_size=self.kernel_size,
            stride=self.stride,
            padding=self.kernel_size // 2 if self.padding == "same" else 0,
            bias=self.normalization == "none",
        )
