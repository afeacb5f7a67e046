"""The modules of each kind of layer: for one network, and for several of one architecture side by side.

The channels of all models are adjacent, and each convolution has the groups of every model, so that models do not mix.
Layers that work on single channels or values are the same as for one network. A linear layer becomes a batched matrix
product.

Legend: M models, N images of each, C channels of one model, H and W sides, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tuner.architecture.layer_kinds import Layer
from tuner.architecture.layers import TWINS, BatchNorm2d


def build_layer(layer: Layer) -> nn.Module:
    """One traced layer as a module: torch's class, or our own twin of it."""
    module_class = TWINS.get(layer.kind) or getattr(nn, layer.kind)
    module = module_class(**layer.arguments)
    assert isinstance(module, nn.Module)
    return module


def build_layer_of_each(layer: Layer, num_models: int) -> nn.Module:
    """One traced layer of several models as one module."""
    build = OF_EACH.get(layer.kind)
    return build(num_models, **layer.arguments) if build else build_layer(layer)


class FlattenEach(nn.Module):
    """Flatten, for each model by itself."""

    def __init__(self, num_models: int) -> None:
        super().__init__()
        self._num_models = num_models

    def forward(self, x: Tensor) -> Tensor:
        """(N, M * C, H, W) to (M, N, F)."""
        return x.reshape(len(x), self._num_models, -1).transpose(0, 1)


class LinearEach(nn.Module):
    """A linear layer for each model; like our own layers, it follows the dtype of its input."""

    def __init__(self, num_models: int, *, in_features: int, out_features: int) -> None:
        super().__init__()
        self.num_models = num_models
        self._shape = (num_models, out_features, in_features)
        self.weight = nn.Parameter(torch.zeros(num_models * out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(num_models * out_features))

    def forward(self, x: Tensor) -> Tensor:
        """(M, N, in_features) to (M, N, out_features)."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return torch.baddbmm(bias.view(self._shape[0], 1, -1), x, weight.view(self._shape).transpose(1, 2))


def _convolution_of_each(
    num_models: int, *, in_channels: int, out_channels: int, groups: int = 1, **arguments: Any
) -> nn.Conv2d:
    return nn.Conv2d(num_models * in_channels, num_models * out_channels, groups=num_models * groups, **arguments)


OF_EACH: dict[str, Callable[..., nn.Module]] = {
    "Conv2d": _convolution_of_each,
    "BatchNorm2d": lambda num_models, *, num_features: BatchNorm2d(num_models * num_features),
    "GroupNorm": lambda num_models, *, num_groups, num_channels: nn.GroupNorm(
        num_models * num_groups, num_models * num_channels
    ),
    "Flatten": lambda num_models, *, start_dim: FlattenEach(num_models),
    "Linear": LinearEach,
}
"""For each kind, a function from the number of models and the arguments of one layer to a module for all models.

For a kind that is not listed, the module of one model serves all of them.
"""
