"""Gradients of a depthwise convolution, by the fast kernels of oneDNN: forward, and gradients of 3x3 windows.

oneDNN 3.12 has no fast kernels for the gradients if the window is larger than 3x3 or than the feature map, or in bf16
if the stride is above 1. They then take 5 to 250 times as long as the convolution itself (on a CPU with AVX512-BF16).

Legend: N images, C channels, H and W sides, h and w sides after the convolution, k side of the window.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

aten = torch.ops.aten
TILE = 3
"""Side of the largest window whose gradient is fast."""


def has_slow_gradients(x_NCHW: Tensor, weight: Tensor, *, stride: int, groups: int) -> bool:
    """Whether a convolution is a depthwise one whose gradients are slower in oneDNN than those of this module."""
    if not groups == len(weight) > 1 or weight.shape[1] != 1:
        return False
    if stride > 1:
        return x_NCHW.dtype == torch.bfloat16
    return bool(weight.shape[2] > min(TILE, *x_NCHW.shape[2:]))


def input_gradient(grad_NChw: Tensor, x_NCHW: Tensor, weight_C1kk: Tensor, *, stride: int, padding: int) -> Tensor:
    """The gradient of x: the output's gradient, spread by the stride with zeros, convolved with the flipped window."""
    N, C, H, W = x_NCHW.shape
    size = weight_C1kk.shape[2]
    sides = H + 2 * padding - size + 1, W + 2 * padding - size + 1
    spread_NCHW = grad_NChw
    if stride > 1:
        spread_NCHW = grad_NChw.new_zeros(N, *sides, C).permute(0, 3, 1, 2)
        spread_NCHW[:, :, ::stride, ::stride] = grad_NChw
    return torch.conv2d(spread_NCHW, weight_C1kk.flip(2, 3), padding=size - 1 - padding, groups=C)


def weight_gradient(grad_NChw: Tensor, x_NCHW: Tensor, weight_C1kk: Tensor, *, stride: int, padding: int) -> Tensor:
    """The gradient of the weights, computed separately for parts of the window of at most 3x3."""
    size = weight_C1kk.shape[2]
    if size <= min(TILE, *x_NCHW.shape[2:]):
        return _weight_gradient(grad_NChw, x_NCHW, weight_C1kk, stride=stride, padding=padding)
    tile = min(TILE, size)
    rows, columns = ((side - 1) * stride + tile for side in grad_NChw.shape[2:])
    padded_NCHW = functional.pad(x_NCHW, [padding] * 4)
    gradient_C1kk = torch.empty_like(weight_C1kk)
    for top in _starts(size, tile):
        for left in _starts(size, tile):
            seen_NCHW = padded_NCHW[:, :, top : top + rows, left : left + columns]
            seen_NCHW = seen_NCHW.contiguous(memory_format=torch.channels_last)
            part = (..., slice(top, top + tile), slice(left, left + tile))
            gradient_C1kk[part] = _weight_gradient(grad_NChw, seen_NCHW, weight_C1kk[part], stride=stride, padding=0)
    return gradient_C1kk


def _weight_gradient(grad_NChw: Tensor, x_NCHW: Tensor, weight_C1kk: Tensor, *, stride: int, padding: int) -> Tensor:
    gradients: tuple[None, Tensor, None] = aten.convolution_backward(
        grad_NChw,
        x_NCHW,
        weight_C1kk,
        bias_sizes=None,
        stride=[stride] * 2,
        padding=[padding] * 2,
        dilation=[1, 1],
        transposed=False,
        output_padding=[0, 0],
        groups=len(weight_C1kk),
        output_mask=[False, True, False],
    )
    return gradients[1]


def _starts(size: int, tile: int) -> Iterator[int]:
    """Where the parts begin that together cover a side of the window. The last two may overlap."""
    yield from range(0, size - tile, tile)
    yield size - tile
