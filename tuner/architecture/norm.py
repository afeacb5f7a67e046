"""Batch normalization for small channel counts: neighbouring pixels folded into channels, statistics combined in fp32.

Legend: N images, C channels, H and W sides, k fold, M = NHW / k, D = kC, K picked elements (any shape).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


def _fold(z_NHWC: Tensor) -> int:
    """How many neighbouring pixels to see as channels: batch norm's kernels are slow below about 64 channels."""
    num_channels = z_NHWC.shape[-1]
    num_pixels = z_NHWC.numel() // num_channels
    fold = 1
    while num_channels * fold < 128 and num_pixels % (2 * fold) == 0:
        fold *= 2
    return fold


def _folded(z_NHWC: Tensor, fold: int) -> Tensor:
    """(N, H, W, C) -> (1, fold * C, NHW / fold, 1) in channels_last."""
    return z_NHWC.view(1, -1, 1, fold * z_NHWC.shape[-1]).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class Norm:
    """Batch statistics of a convolution's output; `a_C` and `b_C` make it a_C * z + b_C."""

    z_NHWC: Tensor
    gamma_C: Tensor
    beta_C: Tensor
    mean_C: Tensor
    var_C: Tensor
    invstd_C: Tensor
    eps: float
    fold: int

    @classmethod
    def of(cls, z_NHWC: Tensor, norm: nn.BatchNorm2d) -> Norm:
        """The statistics of a feature map; the running ones of `norm` move as in a training step of its own."""
        num_channels = z_NHWC.shape[-1]
        fold = _fold(z_NHWC)
        unused = torch.zeros(fold * num_channels)  # fp32 running statistics make bf16's statistics fp32
        stats = torch.batch_norm_update_stats(_folded(z_NHWC, fold), unused, unused, 0.0)
        mean_kC, var_kC = (t.view(fold, num_channels) for t in stats)
        mean_C = mean_kC.mean(0)
        var_C = var_kC.mean(0) + (mean_kC - mean_C).square_().mean(0)
        count = z_NHWC.numel() // num_channels
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.momentum is not None
        norm.running_mean.lerp_(mean_C, norm.momentum)
        norm.running_var.lerp_(var_C * (count / (count - 1)), norm.momentum)
        invstd_C = (var_C + norm.eps).rsqrt_()
        return cls(z_NHWC, norm.weight, norm.bias, mean_C, var_C, invstd_C, norm.eps, fold)

    def full(self) -> Tensor:
        """The normalised feature map."""
        gamma_D, beta_D, mean_D, var_D = (
            t.detach().repeat(self.fold) for t in (self.gamma_C, self.beta_C, self.mean_C, self.var_C)
        )
        folded = _folded(self.z_NHWC, self.fold)
        y = functional.batch_norm(folded, mean_D, var_D, gamma_D, beta_D, training=False, eps=self.eps)
        return y.permute(0, 2, 3, 1).view(self.z_NHWC.shape)

    def full_backward(self, grad_NHWC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of z, gamma and beta. Below 32 channels torch's kernel is slow: sums folded, then one line more."""
        num_channels = self.z_NHWC.shape[-1]
        if num_channels >= 32:
            grad, grad_gamma, grad_beta = torch.ops.aten.native_batch_norm_backward(
                grad_NHWC.permute(0, 3, 1, 2), self.z_NHWC.permute(0, 3, 1, 2), self.gamma_C, None, None,
                self.mean_C, self.invstd_C, True, self.eps, [True] * 3,
            )  # fmt: skip
            return grad.permute(0, 2, 3, 1), grad_gamma, grad_beta
        gamma, mean, var = (t.detach().repeat(self.fold) for t in (self.gamma_C, self.mean_C, self.var_C))
        grad, grad_gamma, grad_beta = torch.ops.aten.native_batch_norm_backward(
            _folded(grad_NHWC, self.fold), _folded(self.z_NHWC, self.fold), gamma, mean, var, None, None,
            False, self.eps, [True] * 3,
        )  # fmt: skip
        grad_gamma_C, grad_beta_C = (t.view(self.fold, num_channels).sum(0) for t in (grad_gamma, grad_beta))
        slope, offset = self._correction(grad_gamma_C, grad_beta_C, grad.dtype)
        grad_MD = grad.permute(0, 2, 3, 1).view(-1, slope.numel())
        grad_MD.addcmul_(self.z_NHWC.view(grad_MD.shape), slope).add_(offset)
        return grad_MD.view(self.z_NHWC.shape), grad_gamma_C, grad_beta_C

    def _correction(self, grad_gamma_C: Tensor, grad_beta_C: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Slope and offset (fold * C) of what the batch's mean and variance give back to each element of z."""
        count = self.z_NHWC.numel() // self.z_NHWC.shape[-1]
        a_C = self.gamma_C.detach() * self.invstd_C
        slope_C = a_C * self.invstd_C * grad_gamma_C / -count
        offset_C = a_C * grad_beta_C / -count - slope_C * self.mean_C
        return slope_C.to(dtype).repeat(self.fold), offset_C.to(dtype).repeat(self.fold)

    def line(self) -> tuple[Tensor, Tensor]:
        """a_C and b_C."""
        a_C = self.gamma_C.detach() * self.invstd_C
        return a_C, self.beta_C.detach() - a_C * self.mean_C

    def sparse_backward(self, grad_KC: Tensor, picked_KC: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For K picked elements of z with gradient, all others without.

        Returns the gradient of the picked, that of all (to be added to it), and those of gamma and beta.
        """
        dims = tuple(range(grad_KC.dim() - 1))
        grad32 = grad_KC.float()
        grad_beta_C = grad32.sum(dims)
        grad_gamma_C = ((grad32 * picked_KC).sum(dims) - self.mean_C * grad_beta_C) * self.invstd_C
        slope, offset = self._correction(grad_gamma_C, grad_beta_C, grad_KC.dtype)
        everywhere = torch.addcmul(offset, self.z_NHWC.view(-1, slope.numel()), slope).view(self.z_NHWC.shape)
        a_C = (self.gamma_C.detach() * self.invstd_C).to(grad_KC.dtype)
        return grad_KC * a_C, everywhere, grad_gamma_C, grad_beta_C
