"""A whole block (convolution, batch norm, activation, pooling, dropout) as one autograd node.

A small network spends half its step between the kernels: a node a block instead of one a layer, no casts of weights on
the tape, and everything after a max pooling on a quarter of the values.

Legend: N images, C channels, H and W sides, h and w sides after pooling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tuner.architecture.layers import (
    dropout_mask,
    elu,
    keep_of_256_from,
    max_pool,
    max_pool_backward,
    nhwc,
    sum_pool,
    sum_pool_backward,
    tanh,
)
from tuner.architecture.norm import Norm

aten = torch.ops.aten
Values = Callable[[Tensor], Tensor]
Gradient = Callable[[Tensor, Tensor, Tensor], Tensor]

ACTIVATIONS: dict[type[nn.Module], tuple[Values, Gradient]] = {
    nn.ReLU: (torch.relu, lambda grad, x, y: aten.threshold_backward(grad, y, 0)),
    nn.LeakyReLU: (functional.leaky_relu, lambda grad, x, y: aten.leaky_relu_backward(grad, y, 0.01, True)),
    nn.ELU: (elu, lambda grad, x, y: aten.elu_backward(grad, 1.0, 1.0, 1.0, True, y)),
    nn.GELU: (functional.gelu, lambda grad, x, y: aten.gelu_backward(grad, x)),
    nn.SiLU: (functional.silu, lambda grad, x, y: aten.silu_backward(grad, x)),
    nn.Tanh: (tanh, lambda grad, x, y: aten.tanh_backward(grad, y)),
    nn.Sigmoid: (torch.sigmoid, lambda grad, x, y: aten.sigmoid_backward(grad, y)),
}
"""For each activation: its values from x, and its gradient from (gradient of y, x, y)."""
DIPPING = (nn.GELU, nn.SiLU)
"""Activations that fall before they rise: they do not commute with the maximum."""


@dataclass(frozen=True)
class _Plan:
    """What a block does besides its tensors. `dropout` is a rate, 0 for none."""

    stride: int
    padding: int
    activation: type[nn.Module]
    pool: type[nn.Module] | None
    dropout: float
    pools_early: bool
    byte_dropout: bool


class FusedBlock:
    """A block's modules, which keep the weights, as one autograd node for training in channels_last."""

    def __init__(self, modules: Sequence[nn.Module], *, early_pooling: bool, byte_dropout: bool) -> None:
        assert can_fuse(modules)
        convolution = modules[0]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(convolution.padding[0], int)
        self._convolution = convolution
        self._norm = next((module for module in modules if isinstance(module, nn.BatchNorm2d)), None)
        activation = next(type(module) for module in modules if type(module) in ACTIVATIONS)
        pool = next((type(module) for module in modules if isinstance(module, nn.MaxPool2d | nn.AvgPool2d)), None)
        self._plan = _Plan(
            stride=convolution.stride[0],
            padding=convolution.padding[0],
            activation=activation,
            pool=pool,
            dropout=next((module.p for module in modules if isinstance(module, nn.Dropout)), 0.0),
            pools_early=early_pooling and pool is nn.MaxPool2d and activation not in DIPPING,
            byte_dropout=byte_dropout,
        )

    def __call__(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_channels, h, w), in the dtype of the input."""
        convolution, norm = self._convolution, self._norm
        gamma_C = beta_C = None
        if norm is not None:
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            gamma_C, beta_C = norm.weight, norm.bias
        out: Tensor = _Block.apply(x_NCHW, convolution.weight, convolution.bias, gamma_C, beta_C, norm, self._plan)
        return out


def can_fuse(modules: Sequence[nn.Module]) -> bool:
    """Whether a block's modules are of the kind that FusedBlock computes: any plain block, pooled 2x2 or not at all."""
    if not isinstance(modules[0], nn.Conv2d) or isinstance(modules[0].padding, str):
        return False
    known = (nn.BatchNorm2d, nn.Dropout, *ACTIVATIONS)
    for module in modules[1:]:
        if isinstance(module, nn.MaxPool2d | nn.AvgPool2d):
            if (module.kernel_size, module.stride) != (2, 2):
                return False
        elif not isinstance(module, known):
            return False
    dropouts = [module.p for module in modules if isinstance(module, nn.Dropout)]
    return all(1 / 256 <= rate <= 255 / 256 for rate in dropouts)


class _Block(torch.autograd.Function):
    """Autograd is told of the block as a whole; what it needs for the way back is kept on `ctx`."""

    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        _, _, norm_module, plan = rest
        dtype = x_NCHW.dtype
        ctx.plan, ctx.x, ctx.weight, ctx.has_bias = plan, x_NCHW, weight.to(dtype), bias is not None
        bias_C = None if bias is None else bias.to(dtype)
        z_NHWC = nhwc(torch.conv2d(x_NCHW, ctx.weight, bias_C, stride=plan.stride, padding=plan.padding))
        ctx.shape = z_NHWC.shape
        ctx.norm = None if norm_module is None else Norm.of(z_NHWC, norm_module)
        out_NhwC = (_pooled_early if plan.pools_early else _pooled_late)(ctx, z_NHWC)
        scale = 0.25 if plan.pool is nn.AvgPool2d else 1.0
        ctx.mask, ctx.scale = None, scale
        if plan.dropout:
            ctx.mask = _dropout_mask(plan, out_NhwC, scale=scale)
            out_NhwC = out_NhwC * ctx.mask
        elif scale != 1:
            out_NhwC = out_NhwC * scale
        return out_NhwC.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NChw: Tensor) -> tuple[Any, ...]:
        plan: _Plan = ctx.plan
        grad = nhwc(grad_NChw)
        if ctx.mask is not None:
            grad = grad * ctx.mask
        elif ctx.scale != 1:
            grad = grad * ctx.scale
        back = _pooled_early_backward if plan.pools_early else _pooled_late_backward
        grad_NHWC, grad_gamma_C, grad_beta_C = back(ctx, grad)
        grad_x, grad_weight, grad_bias = aten.convolution_backward(
            grad_NHWC.permute(0, 3, 1, 2),
            ctx.x,
            ctx.weight,
            bias_sizes=[len(ctx.weight)],
            stride=[plan.stride] * 2,
            padding=[plan.padding] * 2,
            dilation=[1, 1],
            transposed=False,
            output_padding=[0, 0],
            groups=1,
            output_mask=[ctx.needs_input_grad[0], True, ctx.has_bias],
        )
        grad_bias = grad_bias.float() if ctx.has_bias else None
        return grad_x, grad_weight.float(), grad_bias, grad_gamma_C, grad_beta_C, None, None


def _dropout_mask(plan: _Plan, like: Tensor, *, scale: float) -> Tensor:
    """`scale` over the share kept, or 0, in the dtype and layout of `like`."""
    if plan.byte_dropout:
        keep = keep_of_256_from(plan.dropout)
        return dropout_mask(like, keep, scale=scale * 256 / keep)
    return torch.empty_like(like).bernoulli_(1 - plan.dropout).mul_(scale / (1 - plan.dropout))


def _pooled_late(ctx: Any, z_NHWC: Tensor) -> Tensor:
    """In the order of the modules. An average pool gives sums: the caller scales, together with the dropout."""
    ctx.before = z_NHWC if ctx.norm is None else ctx.norm.full()
    ctx.after = out = ACTIVATIONS[ctx.plan.activation][0](ctx.before)
    if ctx.plan.pool is nn.MaxPool2d:
        ctx.rows, out = max_pool(out)
    return sum_pool(out) if ctx.plan.pool is nn.AvgPool2d else out


def _pooled_late_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    if ctx.plan.pool is nn.AvgPool2d:
        grad = sum_pool_backward(grad, ctx.shape)
    elif ctx.plan.pool is nn.MaxPool2d:
        grad = max_pool_backward(grad, ctx.after, ctx.rows)
    grad = ACTIVATIONS[ctx.plan.activation][1](grad, ctx.before, ctx.after)
    return (grad, None, None) if ctx.norm is None else ctx.norm.full_backward(grad)


def _pooled_early(ctx: Any, z_NHWC: Tensor) -> Tensor:
    """A monotone activation commutes with the maximum, a rising line too: both then run on a quarter of the values."""
    norm: Norm | None = ctx.norm
    ctx.rises = norm is not None and bool((norm.gamma_C >= 0).all())
    if norm is not None and not ctx.rises:
        z_NHWC = norm.full()
    ctx.z = z_NHWC
    ctx.rows, ctx.picked = max_pool(z_NHWC)
    ctx.before = ctx.picked
    if norm is not None and ctx.rises:
        slope_C, offset_C = (line.to(z_NHWC.dtype) for line in norm.line())
        ctx.before = torch.addcmul(offset_C, ctx.picked, slope_C)
    ctx.after = out = ACTIVATIONS[ctx.plan.activation][0](ctx.before)
    return out


def _pooled_early_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
    grad = ACTIVATIONS[ctx.plan.activation][1](grad, ctx.before, ctx.after)
    norm: Norm | None = ctx.norm
    if norm is not None and ctx.rises:
        grad, everywhere, grad_gamma_C, grad_beta_C = norm.sparse_backward(grad, ctx.picked)
        return max_pool_backward(grad, ctx.z, ctx.rows).add_(everywhere), grad_gamma_C, grad_beta_C
    grad = max_pool_backward(grad, ctx.z, ctx.rows)
    return (grad, None, None) if norm is None else norm.full_backward(grad)
