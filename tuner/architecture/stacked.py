"""Stack networks of one architecture with different weights into one wider network, to train several seeds at once.

The channels of all models are adjacent, and each convolution has one group per model, so that models do not mix. Layers
that work on single channels or values are torch's own, and a linear layer becomes a batched matrix product.

Legend: M models, N images of each, C channels of one model, H and W sides, F features, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tuner.architecture.factory import build_layer
from tuner.architecture.layers import BatchNorm2d
from tuner.architecture.shapes import Layer
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace


def build_stacked(architecture: Architecture, num_models: int) -> nn.Sequential:
    """Build the stacked network of a resolved architecture: images (N, M * C, H, W) to logits (M, N, K).

    Position i is the traced layer i, as in `build_model`. `stack_images` makes its input, and `stack_states` its
    weights.
    """
    return nn.Sequential(*(_build_layer(layer, num_models) for layer in trace(architecture)))


def stack_images(images: Sequence[Tensor], *, channels_last: bool) -> Tensor:
    """Combine one batch (N, C, H, W) per model into the input (N, M * C, H, W) of the stacked network."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.cat(list(images), dim=1).contiguous(memory_format=layout)


def stack_states(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Combine the state dicts of models into that of the stacked network by concatenating every tensor."""
    first = states[0]
    # What has no dimension counts batches, of which all models have seen as many.
    return {name: torch.cat([state[name] for state in states]) if first[name].dim() else first[name] for name in first}


def unstack_states(state: Mapping[str, Tensor], num_models: int) -> list[dict[str, Tensor]]:
    """Split the state dict of a stacked network into those of its models, as views."""
    parts = {name: value.chunk(num_models) if value.dim() else [value] * num_models for name, value in state.items()}
    return [{name: part[number] for name, part in parts.items()} for number in range(num_models)]


def _build_layer(layer: Layer, num_models: int) -> nn.Module:
    arguments = dict(layer.arguments)
    match layer.kind:
        case "Conv2d":
            arguments["in_channels"] *= num_models
            arguments["out_channels"] *= num_models
            return nn.Conv2d(**arguments, groups=num_models)
        case "BatchNorm2d":
            return BatchNorm2d(num_models * arguments["num_features"])
        case "Flatten":
            return FlattenEach(num_models)
        case "Linear":
            return LinearEach(num_models, **arguments)
    return build_layer(layer)


class FlattenEach(nn.Module):
    """Flatten, for each model by itself."""

    def __init__(self, num_models: int) -> None:
        super().__init__()
        self._num_models = num_models

    def forward(self, x: Tensor) -> Tensor:
        """(N, M * C, H, W) to (M, N, F)."""
        return x.reshape(len(x), self._num_models, -1).transpose(0, 1)


class LinearEach(nn.Module):
    """A linear layer for each model; like our other layers, it follows the dtype of its input."""

    def __init__(self, num_models: int, *, in_features: int, out_features: int) -> None:
        super().__init__()
        self._shape = (num_models, out_features, in_features)
        self.weight = nn.Parameter(torch.zeros(num_models * out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(num_models * out_features))

    def forward(self, x: Tensor) -> Tensor:
        """(M, N, in_features) to (M, N, out_features)."""
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        return torch.baddbmm(bias.view(self._shape[0], 1, -1), x, weight.view(self._shape).transpose(1, 2))
