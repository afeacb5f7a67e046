"""Stack networks of one architecture with different weights into one wider network, to train several seeds at once.

`layer_modules.py` defines the layers of the wider network.

Legend: M models, N images of each, C channels of one model, H and W sides, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from tuner.architecture.factory import build_path
from tuner.architecture.layer_modules import build_layer_of_each
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace


def build_stacked(architecture: Architecture, num_models: int) -> nn.Sequential:
    """Build the stacked network of a resolved architecture: images (N, M * C, H, W) to logits (M, N, K).

    Module i is step i, as in `build_model`. `stack_states` makes its state dict from those of the models.
    """
    return build_path(trace(architecture), partial(build_layer_of_each, num_models=num_models))


def stack_images(images: Sequence[Tensor], *, channels_last: bool) -> Tensor:
    """Combine one batch (N, C, H, W) per model into the input (N, M * C, H, W) of the stacked network."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return torch.cat(list(images), dim=1).contiguous(memory_format=layout)


def stack_states(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Combine the state dicts of models into that of the stacked network by concatenating every tensor."""
    first = states[0]
    # A tensor without dimensions counts batches, and all models have seen the same number.
    return {name: torch.cat([state[name] for state in states]) if first[name].dim() else first[name] for name in first}


def unstack_states(state: Mapping[str, Tensor], num_models: int) -> list[dict[str, Tensor]]:
    """Split the state dict of a stacked network into those of its models, as views."""
    parts = {name: value.chunk(num_models) if value.dim() else [value] * num_models for name, value in state.items()}
    return [{name: part[number] for name, part in parts.items()} for number in range(num_models)]
