"""Architecture, InputSpec, Head: a network as a frozen value, to and from JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, with_config

from tuner.architecture.blocks import Block
from tuner.architecture.blocks.fields import Activation, Count, DropoutRate
from tuner.architecture.shapes import Shape

HeadPooling = Literal["flatten", "average"]
FeatureCount = Annotated[int, Field(ge=0, le=65_536, strict=True)]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class InputSpec:
    """Input shape and number of classes of a network: (channels, height, width) images of `num_classes` classes."""

    channels: Count
    height: Count
    width: Count
    num_classes: Annotated[int, Field(ge=2, le=1_000_000, strict=True)]

    @property
    def shape(self) -> Shape:
        """(C, H, W)."""
        return (self.channels, self.height, self.width)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Head:
    """From feature map to logits: flatten or global average, an optional hidden layer, dropout, a linear layer."""

    pooling: HeadPooling = "flatten"
    hidden_features: FeatureCount = 0
    activation: Activation = "relu"
    dropout: DropoutRate = 0.0

    def __str__(self) -> str:
        """Like `flatten 128 relu d0.2`."""
        words = [self.pooling] + ([f"{self.hidden_features} {self.activation}"] if self.hidden_features else [])
        return " ".join(words + ([f"d{self.dropout:.2g}"] if self.dropout else []))


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Architecture:
    """A whole network. `resolve` in `trace.py` makes it fit its input; only resolved ones are built and stored."""

    input: InputSpec
    blocks: tuple[Block, ...]
    head: Head

    @property
    def input_shape(self) -> Shape:
        """(C, H, W) of one image."""
        return self.input.shape

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.input.num_classes

    def __str__(self) -> str:
        """In one line: `32 k3 bn relu max2 d0.05 | 64 k3 relu | flatten 128 relu d0.2 10`."""
        return " | ".join(map(str, [*self.blocks, self.head])) + f" {self.num_classes}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back to an equal value."""
        data: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return data

    @staticmethod
    def from_json(data: object) -> Architecture:
        """The architecture in a JSON object. Raises pydantic.ValidationError for anything else."""
        return _ADAPTER.validate_python(data)


_ADAPTER = TypeAdapter(Architecture)
