"""A whole block (convolution, batch norm, activation, pooling, dropout) as one autograd node.

A small network spends half of its step between kernels. Fusing saves time because there is one node per block instead
of one per layer, because autograd records no casts of weights, and because everything after max pooling runs on a
quarter of the values.

Legend: N images, C channels, H and W sides, h and w sides after pooling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tuner.architecture.layers import (
    dropout_mask,
    elu_,
    keep_of_256_from,
    nhwc,
    sum_pool,
    sum_pool_backward,
    tanh_,
)

aten = torch.ops.aten
Values = Callable[[Tensor], Tensor]
Gradient = Callable[[Tensor, Tensor, Tensor], Tensor]

ACTIVATIONS: dict[type[nn.Module], tuple[Values, Gradient]] = {
    nn.ReLU: (torch.relu_, lambda grad, x, y: aten.threshold_backward.grad_input(grad, y, 0, grad_input=grad)),
    nn.LeakyReLU: (
        partial(functional.leaky_relu_, negative_slope=0.01),
        lambda grad, x, y: aten.leaky_relu_backward.grad_input(grad, y, 0.01, True, grad_input=grad),
    ),
    nn.ELU: (elu_, lambda grad, x, y: aten.elu_backward.grad_input(grad, 1.0, 1.0, 1.0, True, y, grad_input=grad)),
    nn.GELU: (functional.gelu, lambda grad, x, y: aten.gelu_backward.grad_input(grad, x, grad_input=grad)),
    nn.SiLU: (functional.silu, lambda grad, x, y: aten.silu_backward.grad_input(grad, x, grad_input=grad)),
    nn.Tanh: (tanh_, lambda grad, x, y: aten.tanh_backward.grad_input(grad, y, grad_input=grad)),
    nn.Sigmoid: (torch.sigmoid_, lambda grad, x, y: aten.sigmoid_backward.grad_input(grad, y, grad_input=grad)),
}
"""Functions of each activation: its values from x, in place unless it is in DIPPING, and its gradient, in place."""
DIPPING = (nn.GELU, nn.SiLU)
"""Activations that fall before they rise, so that they cannot be exchanged with the maximum."""


@dataclass(frozen=True)
class _Plan:
    """Options of a block besides its tensors. `dropout` is a rate, 0 for none."""

    stride: int
    padding: int
    groups: int
    activation: type[nn.Module]
    pool: type[nn.Module] | None
    dropout: float
    pool_size: int
    pool_stride: int
    pools_early: bool
    byte_dropout: bool

    @property
    def averages_pairs(self) -> bool:
        """Whether pooling averages adjacent 2x2 windows, for which there is a faster way."""
        return self.pool is nn.AvgPool2d and (self.pool_size, self.pool_stride) == (2, 2)


class FusedBlock:
    """A block's modules, which hold the weights, as one autograd node for training in channels_last."""

    def __init__(self, modules: Sequence[nn.Module], *, early_pooling: bool, byte_dropout: bool) -> None:
        assert can_fuse(modules)
        convolution = modules[0]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(convolution.padding[0], int)
        self._convolution = convolution
        self._norm = next((module for module in modules if isinstance(module, nn.BatchNorm2d)), None)
        activation = next(type(module) for module in modules if type(module) in ACTIVATIONS)
        pool = next((module for module in modules if isinstance(module, nn.MaxPool2d | nn.AvgPool2d)), None)
        self._plan = _Plan(
            stride=convolution.stride[0],
            padding=convolution.padding[0],
            groups=convolution.groups,
            activation=activation,
            pool=type(pool) if pool else None,
            dropout=next((module.p for module in modules if isinstance(module, nn.Dropout)), 0.0),
            pool_size=cast(int, pool.kernel_size) if pool else 1,
            pool_stride=cast(int, pool.stride) if pool else 1,
            pools_early=early_pooling and isinstance(pool, nn.MaxPool2d) and activation not in DIPPING,
            byte_dropout=byte_dropout,
        )

    def __call__(self, x_NCHW: Tensor) -> Tensor:
        """Compute (N, out_channels, h, w) from (N, C, H, W), in the dtype of the input."""
        convolution, norm = self._convolution, self._norm
        gamma_C = beta_C = None
        if norm is not None:
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            gamma_C, beta_C = norm.weight, norm.bias
        out: Tensor = _Block.apply(x_NCHW, convolution.weight, convolution.bias, gamma_C, beta_C, norm, self._plan)
        return out


def can_fuse(modules: Sequence[nn.Module]) -> bool:
    """Whether FusedBlock can compute a block's modules, as it can for any plain block."""
    if not isinstance(modules[0], nn.Conv2d) or isinstance(modules[0].padding, str):
        return False
    known = (nn.BatchNorm2d, nn.Dropout, nn.MaxPool2d, nn.AvgPool2d, *ACTIVATIONS)
    if not all(isinstance(module, known) for module in modules[1:]):
        return False
    dropouts = [module.p for module in modules if isinstance(module, nn.Dropout)]
    return all(1 / 256 <= rate <= 255 / 256 for rate in dropouts)


class _Block(torch.autograd.Function):
    """The autograd function of a whole block; what the backward pass needs is saved on `ctx`."""

    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        gamma_C, beta_C, norm, plan = rest
        dtype = x_NCHW.dtype
        ctx.plan, ctx.x, ctx.weight, ctx.has_bias = plan, x_NCHW, weight.to(dtype), bias is not None
        ctx.norm, ctx.gamma_C = norm, gamma_C
        bias_C = None if bias is None else bias.to(dtype)
        z_NCHW = torch.conv2d(x_NCHW, ctx.weight, bias_C, stride=plan.stride, padding=plan.padding, groups=plan.groups)
        ctx.convolved = z_NCHW
        if norm is not None:
            z_NCHW, ctx.mean_C, ctx.invstd_C = aten.native_batch_norm(
                z_NCHW, gamma_C, beta_C, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
            )
        if plan.pools_early:
            z_NCHW = _max_pool(ctx, z_NCHW)
        ctx.before = z_NCHW
        out_NChw: Tensor
        ctx.after = kept = out_NChw = ACTIVATIONS[plan.activation][0](z_NCHW)
        scale = 1.0
        if plan.pool is nn.MaxPool2d and not plan.pools_early:
            out_NChw = _max_pool(ctx, out_NChw)
        elif plan.averages_pairs:
            out_NChw, scale = sum_pool(nhwc(out_NChw)).permute(0, 3, 1, 2), 0.25
        elif plan.pool is nn.AvgPool2d:
            out_NChw = aten.avg_pool2d(out_NChw, [plan.pool_size] * 2, [plan.pool_stride] * 2)
        ctx.mask, ctx.scale = None, scale
        if plan.dropout:
            ctx.mask = _dropout_mask(plan, out_NChw, scale=scale)
            out_NChw = out_NChw * ctx.mask if kept is out_NChw else out_NChw.mul_(ctx.mask)
        elif scale != 1:
            out_NChw = out_NChw.mul_(scale)
        return out_NChw

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        plan: _Plan = ctx.plan
        grad = grad.contiguous(memory_format=torch.channels_last)
        if ctx.mask is not None:
            grad = grad.mul_(ctx.mask)
        elif ctx.scale != 1:
            grad = grad.mul_(ctx.scale)
        if plan.averages_pairs:
            grad = sum_pool_backward(nhwc(grad), nhwc(ctx.after).shape).permute(0, 3, 1, 2)
        elif plan.pool is nn.AvgPool2d:
            size, stride = [plan.pool_size] * 2, [plan.pool_stride] * 2
            grad = aten.avg_pool2d_backward(grad, ctx.after, size, stride, [0, 0], False, True, None)
            grad = grad.contiguous(memory_format=torch.channels_last)
        elif plan.pool is nn.MaxPool2d and not plan.pools_early:
            grad = _max_pool_backward(ctx, grad)
        grad = ACTIVATIONS[plan.activation][1](grad, ctx.before, ctx.after)
        if plan.pools_early:
            grad = _max_pool_backward(ctx, grad)
        grad_gamma_C = grad_beta_C = None
        if ctx.norm is not None:
            grad, grad_gamma_C, grad_beta_C = aten.native_batch_norm_backward(
                grad, ctx.convolved, ctx.gamma_C, None, None, ctx.mean_C, ctx.invstd_C, True, ctx.norm.eps, [True] * 3
            )
        grad_x, grad_weight, grad_bias = aten.convolution_backward(
            grad,
            ctx.x,
            ctx.weight,
            bias_sizes=[len(ctx.weight)],
            stride=[plan.stride] * 2,
            padding=[plan.padding] * 2,
            dilation=[1, 1],
            transposed=False,
            output_padding=[0, 0],
            groups=plan.groups,
            output_mask=[ctx.needs_input_grad[0], True, ctx.has_bias],
        )
        grad_bias = grad_bias.float() if ctx.has_bias else None
        # The output may be among what is kept, and knows this node: they would live until Python looks for cycles.
        ctx.x = ctx.convolved = ctx.before = ctx.after = ctx.pooled = ctx.indices = ctx.mask = None
        return grad_x, grad_weight.float(), grad_bias, grad_gamma_C, grad_beta_C, None, None


def _max_pool(ctx: Any, values_NCHW: Tensor) -> Tensor:
    plan: _Plan = ctx.plan
    ctx.pooled = values_NCHW
    out_NChw, ctx.indices = aten.max_pool2d_with_indices(values_NCHW, [plan.pool_size] * 2, [plan.pool_stride] * 2)
    out: Tensor = out_NChw
    return out


def _max_pool_backward(ctx: Any, grad_NChw: Tensor) -> Tensor:
    size, stride = [ctx.plan.pool_size] * 2, [ctx.plan.pool_stride] * 2
    grad: Tensor = aten.max_pool2d_with_indices_backward(
        grad_NChw, ctx.pooled, size, stride, [0, 0], [1, 1], False, ctx.indices
    )
    return grad


def _dropout_mask(plan: _Plan, like: Tensor, *, scale: float) -> Tensor:
    """Return a mask of `scale` divided by the kept share, or 0, in the dtype and layout of `like`."""
    if plan.byte_dropout:
        keep = keep_of_256_from(plan.dropout)
        return dropout_mask(like, keep, scale=scale * 256 / keep)
    return torch.empty_like(like).bernoulli_(1 - plan.dropout).mul_(scale / (1 - plan.dropout))
