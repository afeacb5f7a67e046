"""The activation family: normalization and activation alone, as they follow the last pre-activation block in a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import ConfigDict, with_config

from tuner.architecture.blocks.fields import (
    NORMALIZATION_WORDS,
    Activation,
    Normalization,
    activated,
    fit_normalization,
    normalized,
)
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.shapes import Shape


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class ActivationBlock:
    """An optional normalization, then an activation."""

    normalization: Normalization = "batch"
    activation: Activation = "relu"
    family: Literal["activation"] = "activation"

    def __str__(self) -> str:
        """Like `bn relu`."""
        words = [NORMALIZATION_WORDS[self.normalization]] if self.normalization != "none" else []
        return " ".join([*words, self.activation])

    def resolve(self, shape: Shape) -> ActivationBlock:
        """Resolve the block for a feature map of `shape` (C, H, W): a single value gets no group normalization."""
        return replace(self, normalization=fit_normalization(self.normalization, shape))

    def path(self, shape: Shape) -> Iterator[Layer]:
        """The layers of a block over a feature map of `shape` (C, H, W)."""
        yield from normalized(shape, self.normalization)
        yield activated(shape, self.activation)
