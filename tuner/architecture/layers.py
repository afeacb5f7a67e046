"""Our own layers, each a drop-in replacement for a layer of torch.nn and tested against it.

All but BatchNorm2d make training faster on a CPU core, and only with channels_last. They follow the dtype of their
input: fp32 in, fp32 out; bf16 in, bf16 out.

Legend: N images, C channels, H and W sides, h and w sides after pooling.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_BITS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


def nhwc(x_NCHW: Tensor) -> Tensor:
    """Return a channels_last tensor as a contiguous (N, H, W, C) view; tensors of other layouts are copied."""
    return x_NCHW.permute(0, 2, 3, 1).contiguous()


def sum_pool(x_NHWC: Tensor) -> Tensor:
    """2x2 sums, rows first."""
    h, w = x_NHWC.shape[1] // 2, x_NHWC.shape[2] // 2
    rows_NhWC = x_NHWC[:, 0 : 2 * h : 2] + x_NHWC[:, 1 : 2 * h : 2]
    return rows_NhWC[:, :, 0 : 2 * w : 2] + rows_NhWC[:, :, 1 : 2 * w : 2]


def sum_pool_backward(grad_NhwC: Tensor, shape: torch.Size) -> Tensor:
    """Repeat each gradient four times in one broadcast copy that keeps the layout."""
    N, H, W, C = shape
    h, w = H // 2, W // 2
    grad_NHWC = grad_NhwC.new_empty(shape)
    if 2 * h < H:
        grad_NHWC[:, 2 * h].zero_()
    if 2 * w < W:
        grad_NHWC[:, :, 2 * w].zero_()
    windows = grad_NHWC.as_strided((N, h, 2, w, 2, C), (H * W * C, 2 * W * C, W * C, 2 * C, C, 1))
    windows.copy_(grad_NhwC[:, :, None, :, None, :])
    return grad_NHWC


def keep_of_256_from(p: float) -> int:
    """How many of 256 byte values keep an element, rounded at random so that the mean dropout rate is `p`."""
    keep = (1 - p) * 256
    return math.floor(keep) + int(torch.rand(()) < keep % 1)


def dropout_mask(like: Tensor, keep_of_256: int, *, scale: float) -> Tensor:
    """Return a mask: `scale` with probability keep_of_256 / 256, else 0, from one random byte per element.

    It has the dtype and layout of `like`.
    """
    bits = _BITS[like.dtype]
    words = torch.empty(-(-like.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    threshold = keep_of_256 - 128
    kept = words.view(torch.int8)[: like.numel()].clamp_(threshold - 1, threshold).sub_(threshold)  # -1 or 0
    mask = kept.to(bits).bitwise_and_(_bits_of(scale, like.dtype)).view(like.dtype)
    return mask.as_strided(like.shape, like.stride())


@functools.cache
def _bits_of(value: float, dtype: torch.dtype) -> int:
    return int(torch.tensor(value, dtype=dtype).view(_BITS[dtype]))


class _Dropout(torch.autograd.Function):
    """The autograd function of dropout. The mask holds 0 or the scale, for the forward and the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep_of_256: int) -> Tensor:
        ctx.mask = dropout_mask(x, keep_of_256, scale=256 / keep_of_256)
        mask: Tensor = ctx.mask
        return x * mask

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.mask, None


class Dropout(nn.Dropout):
    """torch.nn.Dropout with a rate in multiples of 1/256, drawn in each call so that the mean rate is exactly `p`.

    The scale matches the drawn rate, so the expected output is the input, except for the rounding of the scale in bf16
    (at most 0.2 %).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout to a tensor of any shape and dense layout."""
        if not self.training or not 1 / 256 <= self.p <= 255 / 256:
            return super().forward(x)
        out: Tensor = _Dropout.apply(x, keep_of_256_from(self.p))
        return out


PIECE = 2**17
"""Number of values that an elementwise function processes at once, so that its temporaries stay in a core's cache."""


def tanh_(x: Tensor) -> Tensor:
    """Compute tanh in place in fp32, as 2 sigmoid(2x) - 1: torch vectorises sigmoid, but not tanh."""
    return _piecewise_(_tanh, x)


def elu_(x: Tensor) -> Tensor:
    """Compute ELU in place in fp32, as max(x, 2^(min(x, 0) / ln 2) - 1): torch vectorises exp2, but not exp."""
    return _piecewise_(_elu, x)


def _tanh(x: Tensor) -> Tensor:
    return x.float().mul(2).sigmoid_().mul_(2).sub_(1)


def _elu(x: Tensor) -> Tensor:
    x32 = x.float()
    return torch.maximum(x32, x32.clamp_max(0).mul_(1 / math.log(2)).exp2_().sub_(1))


def _piecewise_(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply an elementwise function to a dense tensor one piece at a time, in its dtype and layout."""
    for piece in torch.split(x.as_strided((x.numel(),), (1,)), PIECE):
        piece.copy_(function(piece))
    return x


class BatchNorm2d(nn.BatchNorm2d):
    """torch.nn.BatchNorm2d that also trains on one value per channel.

    torch raises an error there, since one value has no variance, as for a last batch of one image with a 1x1 feature
    map. This class then normalises with the running statistics, as in evaluation, and does not update them.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if self.training and input.numel() == input.shape[1]:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)


TWINS: dict[str, type[nn.Module]] = {"BatchNorm2d": BatchNorm2d}
"""Replacements used in models, by the name of the torch.nn class; the other layers are for the fast form only."""
