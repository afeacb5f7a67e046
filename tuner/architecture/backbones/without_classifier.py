"""A network up to its classifier as one stage, for networks that have no sequence of stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn


class WithoutClassifier(nn.Module):
    """Compute a network's features with the network's own methods.

    The stage has all parameters and submodules of the network but those of the classifier, so that freezing it or
    training it does not affect the head. features: a function of the network and its input.
    """

    def __init__(self, network: nn.Module, classifier: str, features: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.shared = _without(network, classifier.split("."))
        self._network = (network,)  # in a tuple, so that its classifier is not a submodule of this stage
        self._features = features

    def forward(self, input: Tensor) -> Tensor:
        """The features, (N, F)."""
        return self._features(self._network[0], input)


def _without(module: nn.Module, path: Sequence[str]) -> nn.Module:
    """A module with the parameters, buffers and submodules of another, except the submodule at a path."""
    shared = nn.Module()
    for name, parameter in module.named_parameters(recurse=False):
        shared.register_parameter(name, parameter)
    for name, buffer in module.named_buffers(recurse=False):
        shared.register_buffer(name, buffer)
    for name, child in module.named_children():
        if name != path[0]:
            shared.add_module(name, child)
        elif len(path) > 1:
            shared.add_module(name, _without(child, path[1:]))
    return shared
