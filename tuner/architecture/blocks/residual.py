"""The residual family: two convolutions beside a shortcut, with activations after the sum or before the convolutions.

Sources: He et al., Deep Residual Learning, arXiv 1512.03385, and Identity Mappings in Deep Residual Networks, arXiv
1603.05027; dropout between the convolutions as in Zagoruyko and Komodakis, Wide Residual Networks, arXiv 1605.07146.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import ConfigDict, with_config

from tuner.architecture import layer_kinds
from tuner.architecture.blocks.fields import (
    NORMALIZATION_WORDS,
    Activation,
    Count,
    DropoutRate,
    Normalization,
    OddWindow,
    Pooling,
    Window,
    activated,
    dropout_in_words,
    dropped_out,
    fit_pooling,
    fit_stride,
    normalized,
    pooled,
    pooling_in_words,
)
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.parts import Part
from tuner.architecture.shapes import Shape

Order = Literal["post", "pre"]
Shortcut = Literal["identity", "projection"]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class ResidualBlock:
    """One block as sampled or as resolved.

    order: where the activations are. `post` places them after the first convolution and after the sum. `pre` places
    normalization and activation before each convolution and nothing after the sum, so that an ActivationBlock must
    follow the last block in a row. stride: of the first convolution. shortcut: a projection is a 1x1 convolution with
    this stride and without normalization. dropout: the rate of dropped elements between the convolutions. Pooling comes
    last.
    """

    out_channels: Count
    kernel_size: OddWindow = 3
    stride: Window = 1
    normalization: Normalization = "batch"
    activation: Activation = "relu"
    order: Order = "post"
    shortcut: Shortcut = "identity"
    pooling: Pooling = "none"
    pool_size: Window = 2
    pool_stride: Window = 2
    dropout: DropoutRate = 0.0
    family: Literal["residual"] = "residual"

    def __str__(self) -> str:
        """Like `residual 32 k3 s2 bn relu projection max2 d0.05`."""
        words = ["residual" if self.order == "post" else "pre-residual", str(self.out_channels), f"k{self.kernel_size}"]
        words += [f"s{self.stride}"] if self.stride > 1 else []
        words += [NORMALIZATION_WORDS[self.normalization]] if self.normalization != "none" else []
        words.append(self.activation)
        words += ["projection"] if self.shortcut == "projection" else []
        words += pooling_in_words(self.pooling, pool_size=self.pool_size, pool_stride=self.pool_stride)
        return " ".join(words + dropout_in_words(self.dropout))

    def resolve(self, shape: Shape) -> ResidualBlock:
        """Resolve the block for a feature map of `shape` (C, H, W).

        The rule: an identity shortcut becomes a projection if channels or sides change. The convolutions always fit,
        because they are padded. A stride becomes 1 if the output is one pixel with any stride. Pooling is reduced as in
        a plain block.
        """
        stride = fit_stride(self.stride, shape[1:], kernel_size=self.kernel_size, padding=self.kernel_size // 2)
        block = replace(self, stride=stride)
        summed = block._convolution(shape, stride=stride).output_shape
        pooling, pool_size, pool_stride = fit_pooling(
            summed[1:], pooling=self.pooling, pool_size=self.pool_size, pool_stride=self.pool_stride
        )
        return replace(
            block,
            shortcut=self.shortcut if summed == shape else "projection",
            pooling=pooling,
            pool_size=pool_size,
            pool_stride=pool_stride,
        )

    def path(self, shape: Shape) -> Iterator[Layer | Part]:
        """The parts of a resolved block over a feature map of `shape` (C, H, W)."""
        main = self._post_activation(shape) if self.order == "post" else self._pre_activation(shape)
        yield (residual := Part("residual", tuple(main), tuple(self._projection(shape)), join="add"))
        shape = residual.output_shape
        if self.order == "post":
            yield activated(shape, self.activation)
        yield from pooled(shape, self.pooling, pool_size=self.pool_size, pool_stride=self.pool_stride)

    def _post_activation(self, shape: Shape) -> Iterator[Layer]:
        yield (first := self._convolution(shape, stride=self.stride))
        shape = first.output_shape
        yield from self._activated(shape)
        yield from dropped_out(shape, self.dropout)
        yield self._convolution(shape, stride=1)
        yield from normalized(shape, self.normalization)

    def _pre_activation(self, shape: Shape) -> Iterator[Layer]:
        yield from self._activated(shape)
        yield (first := self._convolution(shape, stride=self.stride))
        shape = first.output_shape
        yield from self._activated(shape)
        yield from dropped_out(shape, self.dropout)
        yield self._convolution(shape, stride=1)

    def _activated(self, shape: Shape) -> Iterator[Layer]:
        yield from normalized(shape, self.normalization)
        yield activated(shape, self.activation)

    def _projection(self, shape: Shape) -> Iterator[Layer]:
        """The projection, if there is one. It has no bias: the last convolution or a normalization after it has one."""
        if self.shortcut == "projection":
            yield layer_kinds.convolution(
                shape, out_channels=self.out_channels, kernel_size=1, stride=self.stride, bias=False
            )

    def _convolution(self, shape: Shape, *, stride: int) -> Layer:
        """One of the two convolutions. It has no bias if the block has normalization, which has its own."""
        return layer_kinds.convolution(
            shape,
            out_channels=self.out_channels,
            kernel_size=self.kernel_size,
            stride=stride,
            padding=self.kernel_size // 2,
            bias=self.normalization == "none",
        )
