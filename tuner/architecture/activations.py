"""Activations in the fast form: their values and gradients, in place where possible, and which are not monotone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.architecture.layers import elu_, tanh_

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
    nn.ReLU6: (
        partial(functional.hardtanh_, min_val=0.0, max_val=6.0),
        lambda grad, x, y: aten.hardtanh_backward.grad_input(grad, y, 0.0, 6.0, grad_input=grad),
    ),
}
"""Two functions for each activation.

The first computes y from x, in place unless the activation is in DIPPING. The second takes the gradient of y, x and y,
and turns that gradient in place into the gradient of x.
"""
DIPPING = (nn.GELU, nn.SiLU)
"""Activations that fall before they rise: they do not commute with the maximum."""
