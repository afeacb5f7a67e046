"""Layers of our own, each a drop-in for its twin in torch.nn and tested against it.

All but BatchNorm2d are for learning faster on a CPU core, and pay in channels_last only. They follow the dtype of their
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
    """The channels_last tensor as a contiguous (N, H, W, C) view, copied only where it is not one."""
    return x_NCHW.permute(0, 2, 3, 1).contiguous()


def sum_pool(x_NHWC: Tensor) -> Tensor:
    """2x2 sums, rows first."""
    h, w = x_NHWC.shape[1] // 2, x_NHWC.shape[2] // 2
    rows_NhWC = x_NHWC[:, 0 : 2 * h : 2] + x_NHWC[:, 1 : 2 * h : 2]
    return rows_NhWC[:, :, 0 : 2 * w : 2] + rows_NhWC[:, :, 1 : 2 * w : 2]


def sum_pool_backward(grad_NhwC: Tensor, shape: torch.Size) -> Tensor:
    """Each gradient four times, as one broadcast copy that keeps the layout."""
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
    """How many of 256 byte values keep an element: rounded up or down at random, so that the mean rate is `p`."""
    keep = (1 - p) * 256
    return math.floor(keep) + int(torch.rand(()) < keep % 1)


def dropout_mask(like: Tensor, keep_of_256: int, *, scale: float) -> Tensor:
    """`scale` with probability keep_of_256 / 256, else 0, in the dtype and layout of `like`: one random byte each."""
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
    """The mask holds 0 or the scale, and serves forward and backward."""

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
    """torch.nn.Dropout at a rate of whole 1/256, drawn in each call so that the mean rate is `p` exactly.

    The scale is that of the drawn rate, so that the expected output is the input, but for the rounding of the scale in
    bf16 (at most 0.2 %).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any shape, in any dense layout, to the same."""
        if not self.training or not 1 / 256 <= self.p <= 255 / 256:
            return super().forward(x)
        out: Tensor = _Dropout.apply(x, keep_of_256_from(self.p))
        return out


PIECE = 2**17
"""Values that an elementwise function of several steps takes at once: its temporaries then stay in a core's cache."""


def tanh_(x: Tensor) -> Tensor:
    """2 sigmoid(2x) - 1 in fp32, in place: torch's sigmoid is vectorised where its tanh calls a slower library."""
    return _piecewise_(_tanh, x)


def elu_(x: Tensor) -> Tensor:
    """max(x, 2^(min(x, 0) / ln 2) - 1) in fp32, in place: exp2 is vectorised where exp calls a slower library."""
    return _piecewise_(_elu, x)


def _tanh(x: Tensor) -> Tensor:
    return x.float().mul(2).sigmoid_().mul_(2).sub_(1)


def _elu(x: Tensor) -> Tensor:
    x32 = x.float()
    return torch.maximum(x32, x32.clamp_max(0).mul_(1 / math.log(2)).exp2_().sub_(1))


def _piecewise_(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """An elementwise function over a dense tensor, a piece after another, in its dtype and layout."""
    for piece in torch.split(x.as_strided((x.numel(),), (1,)), PIECE):
        piece.copy_(function(piece))
    return x


class BatchNorm2d(nn.BatchNorm2d):
    """torch.nn.BatchNorm2d that also trains on one value per channel.

    torch raises there, since one value has no variance: a last batch of one image over a 1x1 feature map. Then the
    running statistics normalise, as in evaluation, and stay as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if self.training and input.numel() == input.shape[1]:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)


TWINS: dict[str, type[nn.Module]] = {"BatchNorm2d": BatchNorm2d}
"""By the name of the torch.nn class that each stands in for in a model; the others serve the fast form alone."""
