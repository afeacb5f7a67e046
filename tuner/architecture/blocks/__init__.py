"""The families of blocks, one file each.

A family is a frozen dataclass with three methods: `resolve` applies the family's rule for what does not fit a feature
map, `path` yields the layers and parts, and `__str__` describes the block in one line.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Discriminator, Tag

from tuner.architecture.blocks.activation import ActivationBlock
from tuner.architecture.blocks.inverted_residual import InvertedResidualBlock
from tuner.architecture.blocks.plain import PlainBlock
from tuner.architecture.blocks.residual import ResidualBlock


def _family(value: object) -> str:
    """The tag of a block or of its JSON object. Plain blocks are stored without one, as before there were others."""
    family = value.get("family", "plain") if isinstance(value, dict) else getattr(value, "family", "plain")
    return str(family)


Block = Annotated[
    Annotated[PlainBlock, Tag("plain")]
    | Annotated[ResidualBlock, Tag("residual")]
    | Annotated[InvertedResidualBlock, Tag("inverted_residual")]
    | Annotated[ActivationBlock, Tag("activation")],
    Discriminator(_family),
]
"""Any block."""

__all__ = ["ActivationBlock", "Block", "InvertedResidualBlock", "PlainBlock", "ResidualBlock"]
