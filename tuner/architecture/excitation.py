"""Squeeze-and-excitation in training: means of channels, and factors for them, with gradients in channels_last.

torch's own gradient of a mean is in another layout, and adding it to the gradient of the product is slow.

Legend: N images, C channels, H and W sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def excite(x_NCHW: Tensor, factors_from: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiply each channel of each image by a factor.

    factors_from: computes the factors (N, C, 1, 1) from the means of the channels (N, C, 1, 1).
    """
    kept_NCHW, mean_NC11 = _Squeeze.apply(x_NCHW)
    out: Tensor = _Scale.apply(kept_NCHW, factors_from(mean_NC11))
    return out


def is_mean(module: nn.Module) -> bool:
    """Whether a module computes the means that `excite` starts with."""
    return isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size == 1


class _Squeeze(torch.autograd.Function):
    """The input, and the mean of each channel over its pixels."""

    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        ctx.num_pixels = x_NCHW.shape[2] * x_NCHW.shape[3]
        mean_NC11 = x_NCHW.sum((2, 3), keepdim=True, dtype=torch.float32).div_(ctx.num_pixels)
        return x_NCHW.view_as(x_NCHW), mean_NC11.to(x_NCHW.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NCHW: Tensor, grad_mean_NC11: Tensor) -> Tensor:
        return grad_NCHW.add_(grad_mean_NC11 / ctx.num_pixels)  # in place: _Scale made it for this only


class _Scale(torch.autograd.Function):
    """The values, each channel of each image multiplied by its factor."""

    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, factors_NC11: Tensor) -> Tensor:
        ctx.save_for_backward(x_NCHW, factors_NC11)
        return x_NCHW * factors_NC11

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        x_NCHW, factors_NC11 = ctx.saved_tensors
        grad_factors_NC11 = (grad_NCHW * x_NCHW).sum((2, 3), keepdim=True, dtype=torch.float32)
        return grad_NCHW * factors_NC11, grad_factors_NC11.to(x_NCHW.dtype)
