"""The inverted residual family: expansion, depthwise convolution, squeeze-and-excitation, linear projection.

Sources: Sandler et al., MobileNetV2, arXiv 1801.04381; Hu et al., Squeeze-and-Excitation Networks, arXiv 1709.01507,
placed as in Tan et al., MnasNet, arXiv 1807.11626.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, with_config

from tuner.architecture import layer_kinds
from tuner.architecture.blocks.fields import (
    NORMALIZATION_WORDS,
    Activation,
    Count,
    Normalization,
    OddWindow,
    Window,
    activated,
    fit_stride,
    normalized,
)
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.parts import Part
from tuner.architecture.shapes import Shape

Expansion = Annotated[int, Field(ge=1, le=64, strict=True)]
Reduction = Annotated[int, Field(ge=0, le=1_024, strict=True)]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class InvertedResidualBlock:
    """One block as sampled or as resolved.

    expansion: channels of the depthwise convolution per input channel; 1 means no expansion. stride: of the depthwise
    convolution. squeeze: squeeze-and-excitation divides the number of these channels by it; 0 means that there is none.
    There is a shortcut, the identity, if the shape does not change.
    """

    out_channels: Count
    expansion: Expansion = 6
    kernel_size: OddWindow = 3
    stride: Window = 1
    normalization: Normalization = "batch"
    activation: Activation = "relu6"
    squeeze: Reduction = 0
    family: Literal["inverted_residual"] = "inverted_residual"

    def __str__(self) -> str:
        """Like `inverted 24 x6 k3 s2 bn relu6 se4`."""
        words = ["inverted", str(self.out_channels), f"x{self.expansion}", f"k{self.kernel_size}"]
        words += [f"s{self.stride}"] if self.stride > 1 else []
        words += [NORMALIZATION_WORDS[self.normalization]] if self.normalization != "none" else []
        return " ".join([*words, self.activation, *([f"se{self.squeeze}"] if self.squeeze else [])])

    def resolve(self, shape: Shape) -> InvertedResidualBlock:
        """Resolve the block for a feature map of `shape` (C, H, W).

        The rule: the convolutions always fit, because they are padded. A stride becomes 1 if the output is one pixel
        with any stride. squeeze becomes at most the number of channels that it divides, so that at least one remains.
        """
        stride = fit_stride(self.stride, shape[1:], kernel_size=self.kernel_size, padding=self.kernel_size // 2)
        return replace(self, stride=stride, squeeze=min(self.squeeze, self.expansion * shape[0]))

    def path(self, shape: Shape) -> Iterator[Layer | Part]:
        """The parts of a resolved block over a feature map of `shape` (C, H, W)."""
        main = tuple(self._main(shape))
        if main[-1].output_shape == shape:
            yield Part("residual", main, join="add")
        else:
            yield from main

    def _main(self, shape: Shape) -> Iterator[Layer | Part]:
        hidden_channels = self.expansion * shape[0]
        if self.expansion > 1:
            yield (expanded := self._convolution(shape, out_channels=hidden_channels))
            shape = expanded.output_shape
            yield from self._activated(shape)
        yield (
            depthwise := self._convolution(
                shape,
                out_channels=hidden_channels,
                kernel_size=self.kernel_size,
                stride=self.stride,
                padding=self.kernel_size // 2,
                groups=hidden_channels,
            )
        )
        shape = depthwise.output_shape
        yield from self._activated(shape)
        if self.squeeze:
            yield Part("excitation", tuple(self._excitation(shape)), join="multiply")
        yield (projected := self._convolution(shape, out_channels=self.out_channels))
        yield from normalized(projected.output_shape, self.normalization)

    def _excitation(self, shape: Shape) -> Iterator[Layer]:
        """The layers that compute one factor between 0 and 1 for each channel from the means of all channels."""
        channels = shape[0]
        yield (mean := layer_kinds.global_average(shape))
        yield (
            squeezed := layer_kinds.convolution(mean.output_shape, out_channels=channels // self.squeeze, kernel_size=1)
        )
        yield activated(squeezed.output_shape, self.activation)
        yield layer_kinds.convolution(squeezed.output_shape, out_channels=channels, kernel_size=1)
        yield activated(mean.output_shape, "sigmoid")

    def _activated(self, shape: Shape) -> Iterator[Layer]:
        yield from normalized(shape, self.normalization)
        yield activated(shape, self.activation)

    def _convolution(
        self,
        shape: Shape,
        *,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
    ) -> Layer:
        """One of the three convolutions. It has no bias if normalization follows, which has its own."""
        return layer_kinds.convolution(
            shape,
            out_channels=out_channels,
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            groups=groups,
            bias=self.normalization == "none",
        )
