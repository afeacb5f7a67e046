"""A convolution and what follows it (normalization, activation, pooling, dropout) as one autograd node.

The convolution may be missing, as in front of a pre-activation block or after a sum.

A small network spends half of its step between kernels. Fusing saves time because there is one node per block instead
of one per layer, because autograd records no casts of weights, and because everything after max pooling runs on a
quarter of the values.

Legend: N images, C channels, H and W sides, h and w sides after pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tuner.architecture.activations import ACTIVATIONS, DIPPING
from tuner.architecture.depthwise_gradients import has_slow_gradients, input_gradient, weight_gradient
from tuner.architecture.layers import dropout_mask, keep_of_256_from, nhwc, sum_pool, sum_pool_backward

aten = torch.ops.aten
FOLLOWING: tuple[tuple[type[nn.Module], ...], ...] = (
    (nn.BatchNorm2d, nn.GroupNorm),
    tuple(ACTIVATIONS),
    (nn.MaxPool2d, nn.AvgPool2d),
    (nn.Dropout,),
)
"""What a node may contain after its convolution, or without a convolution: at most one of each, in this order."""
WITHOUT_CONVOLUTION = (*FOLLOWING[0], *FOLLOWING[1])
"""What a node without a convolution may begin with."""


@dataclass(frozen=True)
class _Plan:
    """The settings of a block. `dropout` is a rate, 0 for none.

    `shares_gradient`: whether the other path of a sum gets the same gradient, which must then not change in place.
    """

    stride: int
    padding: int
    groups: int
    activation: type[nn.Module] | None
    pool: type[nn.Module] | None
    dropout: float
    pool_size: int
    pool_stride: int
    pools_early: bool
    byte_dropout: bool
    shares_gradient: bool

    @property
    def averages_pairs(self) -> bool:
        """Whether pooling averages adjacent 2x2 windows, for which there is a faster way."""
        return self.pool is nn.AvgPool2d and (self.pool_size, self.pool_stride) == (2, 2)


class FusedBlock:
    """A block's modules, which hold the weights, as one autograd node for training in channels_last."""

    def __init__(
        self, modules: Sequence[nn.Module], *, early_pooling: bool, byte_dropout: bool, shares_gradient: bool = False
    ) -> None:
        assert can_fuse(modules)
        convolution = modules[0] if isinstance(modules[0], nn.Conv2d) else None
        self._convolution = convolution
        self._norm = next((module for module in modules if isinstance(module, nn.BatchNorm2d | nn.GroupNorm)), None)
        activation = next((type(module) for module in modules if type(module) in ACTIVATIONS), None)
        pool = next((module for module in modules if isinstance(module, nn.MaxPool2d | nn.AvgPool2d)), None)
        self._plan = _Plan(
            stride=convolution.stride[0] if convolution else 1,
            padding=cast(int, convolution.padding[0]) if convolution else 0,
            groups=convolution.groups if convolution else 1,
            activation=activation,
            pool=type(pool) if pool else None,
            dropout=next((module.p for module in modules if isinstance(module, nn.Dropout)), 0.0),
            pool_size=cast(int, pool.kernel_size) if pool else 1,
            pool_stride=cast(int, pool.stride) if pool else 1,
            pools_early=early_pooling and isinstance(pool, nn.MaxPool2d) and activation not in DIPPING,
            byte_dropout=byte_dropout,
            shares_gradient=shares_gradient,
        )

    def __call__(self, x_NCHW: Tensor) -> Tensor:
        """Compute (N, out_channels, h, w) from (N, C, H, W), in the dtype of the input."""
        convolution, norm = self._convolution, self._norm
        weight, bias = (convolution.weight, convolution.bias) if convolution else (None, None)
        gamma_C, beta_C = (norm.weight, norm.bias) if norm is not None else (None, None)
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
        out: Tensor = _Block.apply(x_NCHW, weight, bias, gamma_C, beta_C, norm, self._plan)
        return out


def fused_length(modules: Sequence[nn.Module]) -> int:
    """How many leading modules one node can have: a convolution and what FOLLOWING allows, or only the latter.

    0 if the first module cannot begin a node.
    """
    if not modules or not isinstance(modules[0], (nn.Conv2d, *WITHOUT_CONVOLUTION)):
        return 0
    length = int(isinstance(modules[0], nn.Conv2d))
    for kinds in FOLLOWING:
        length += length < len(modules) and isinstance(modules[length], kinds)
    return length


def can_fuse(modules: Sequence[nn.Module]) -> bool:
    """Whether FusedBlock can compute these modules: a convolution and what FOLLOWING allows, or only the latter."""
    if fused_length(modules) != len(modules) or not modules:
        return False
    convolution = modules[0]
    is_padded_by_name = isinstance(convolution, nn.Conv2d) and isinstance(convolution.padding, str)
    dropouts = [module.p for module in modules if isinstance(module, nn.Dropout)]
    return not is_padded_by_name and all(1 / 256 <= rate <= 255 / 256 for rate in dropouts)


class _Block(torch.autograd.Function):
    """The autograd function of a whole block; what the backward pass needs is saved on `ctx`."""

    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any) -> Tensor:
        gamma_C, beta_C, norm, plan = rest
        dtype = x_NCHW.dtype
        ctx.plan, ctx.x, ctx.weight, ctx.has_bias = plan, x_NCHW, None, bias is not None
        ctx.norm, ctx.gamma_C = norm, gamma_C
        z_NCHW = x_NCHW
        if weight is not None:
            ctx.weight, bias_C = weight.to(dtype), None if bias is None else bias.to(dtype)
            z_NCHW = torch.conv2d(
                x_NCHW, ctx.weight, bias_C, stride=plan.stride, padding=plan.padding, groups=plan.groups
            )
        ctx.convolved = z_NCHW
        if norm is not None:
            z_NCHW = _normalize(ctx, z_NCHW, beta_C)
        if plan.pools_early:
            z_NCHW = _max_pool(ctx, z_NCHW)
        if z_NCHW is x_NCHW and plan.activation not in DIPPING:
            z_NCHW = z_NCHW.clone()  # the activation works in place, and another path may have the same input
        ctx.before = z_NCHW
        out_NChw: Tensor
        ctx.after = kept = out_NChw = z_NCHW if plan.activation is None else ACTIVATIONS[plan.activation][0](z_NCHW)
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
        is_activated_last = plan.activation is not None and (plan.pool is None or plan.pools_early)
        if plan.shares_gradient and (ctx.mask is not None or ctx.scale != 1 or is_activated_last):
            grad = grad.clone(memory_format=torch.channels_last)
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
        if plan.activation is not None:
            grad = ACTIVATIONS[plan.activation][1](grad, ctx.before, ctx.after)
        if plan.pools_early:
            grad = _max_pool_backward(ctx, grad)
        grad_gamma_C = grad_beta_C = None
        if ctx.norm is not None:
            grad, grad_gamma_C, grad_beta_C = _normalize_backward(ctx, grad)
        if ctx.weight is None:
            _forget(ctx)
            return grad, None, None, grad_gamma_C, grad_beta_C, None, None
        needed = [ctx.needs_input_grad[0], True, ctx.has_bias]
        grad_x, grad_weight, grad_bias = _convolve_backward(plan, grad, ctx.x, ctx.weight, needed)
        grad_bias = None if grad_bias is None else grad_bias.float()
        _forget(ctx)
        return grad_x, grad_weight.float(), grad_bias, grad_gamma_C, grad_beta_C, None, None


def _forget(ctx: Any) -> None:
    """Release the saved tensors. The output, which refers to its node, may be one: a cycle that Python frees late."""
    ctx.x = ctx.convolved = ctx.before = ctx.after = ctx.pooled = ctx.indices = ctx.mask = None


def _convolve_backward(
    plan: _Plan, grad_NChw: Tensor, x_NCHW: Tensor, weight: Tensor, needed: list[bool]
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Gradients of x, weight and bias, in their dtype. `needed`: whether each of the three is computed."""
    if has_slow_gradients(x_NCHW, weight, stride=plan.stride, groups=plan.groups):
        window = {"stride": plan.stride, "padding": plan.padding}
        return (
            input_gradient(grad_NChw, x_NCHW, weight, **window) if needed[0] else None,
            weight_gradient(grad_NChw, x_NCHW, weight, **window),
            grad_NChw.sum((0, 2, 3)) if needed[2] else None,
        )
    gradients: tuple[Tensor | None, Tensor, Tensor | None] = aten.convolution_backward(
        grad_NChw,
        x_NCHW,
        weight,
        bias_sizes=[len(weight)],
        stride=[plan.stride] * 2,
        padding=[plan.padding] * 2,
        dilation=[1, 1],
        transposed=False,
        output_padding=[0, 0],
        groups=plan.groups,
        output_mask=needed,
    )
    return gradients


def _normalize(ctx: Any, z_NCHW: Tensor, beta_C: Tensor) -> Tensor:
    """Batch or group normalization. It saves mean and inverse deviation of each channel, or of each image's groups.

    Group normalization is computed in fp32: torch 2.14 takes 3 to 10 times as long for channels_last in bf16.
    """
    norm = ctx.norm
    out_NCHW: Tensor
    if isinstance(norm, nn.BatchNorm2d):
        out_NCHW, ctx.mean, ctx.invstd = aten.native_batch_norm(
            z_NCHW, ctx.gamma_C, beta_C, norm.running_mean, norm.running_var, True, norm.momentum, norm.eps
        )
    else:
        out_NCHW, ctx.mean, ctx.invstd = aten.native_group_norm(
            z_NCHW.float(), ctx.gamma_C, beta_C, *_group_sizes(z_NCHW), norm.num_groups, norm.eps
        )
    return out_NCHW.to(z_NCHW.dtype)


def _normalize_backward(ctx: Any, grad_NCHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of values, weight and bias."""
    norm, z_NCHW, three = ctx.norm, ctx.convolved, [True] * 3
    gradients: tuple[Tensor, Tensor, Tensor]
    if isinstance(norm, nn.BatchNorm2d):
        gradients = aten.native_batch_norm_backward(
            grad_NCHW, z_NCHW, ctx.gamma_C, None, None, ctx.mean, ctx.invstd, True, norm.eps, three
        )
    else:
        sizes = _group_sizes(z_NCHW)
        gradients = aten.native_group_norm_backward(
            grad_NCHW.float(), z_NCHW.float(), ctx.mean, ctx.invstd, ctx.gamma_C, *sizes, norm.num_groups, three
        )
        return gradients[0].to(grad_NCHW.dtype), *gradients[1:]
    return gradients


def _group_sizes(z_NCHW: Tensor) -> tuple[int, int, int]:
    """Images, channels and pixels, as torch's group normalization takes them."""
    N, C, H, W = z_NCHW.shape
    return N, C, H * W


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
