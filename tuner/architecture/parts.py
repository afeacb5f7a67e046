"""The parts of a traced network: layers on a main path, a shortcut beside it, and how the two join."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tuner.architecture.layer_kinds import Layer
from tuner.architecture.shapes import Shape

Join = Literal["none", "add", "multiply"]


@dataclass(frozen=True)
class Part:
    """A named part of a network: a main path and, if it has a join, a shortcut beside it.

    A path is a sequence of layers and parts; an empty shortcut is the identity. The output of the part is the output of
    the main path or, with a join, the sum or product of the outputs of both paths.
    """

    name: str
    main: tuple[Layer | Part, ...]
    shortcut: tuple[Layer | Part, ...] = ()
    join: Join = "none"

    @property
    def input_shape(self) -> Shape:
        """Shape of the input of both paths."""
        return self.main[0].input_shape

    @property
    def output_shape(self) -> Shape:
        """Shape of the output. In a product, the main path may have one factor per channel: (C, 1, 1)."""
        return self.shortcut_shape if self.join == "multiply" else self.main[-1].output_shape

    @property
    def shortcut_shape(self) -> Shape:
        """Shape of the output of the shortcut."""
        return self.shortcut[-1].output_shape if self.shortcut else self.input_shape


Items = Sequence[Layer | Part]
"""What a path consists of."""


def steps_of(path: Items) -> Iterator[Layer | Part]:
    """The steps of a path: its layers, and its parts with a join. A part without a join is replaced by its own steps.

    Step i of a network is module i of its `nn.Sequential`.
    """
    for item in path:
        if isinstance(item, Part) and item.join == "none":
            yield from steps_of(item.main)
        else:
            yield item


def layers_of(path: Items) -> tuple[Layer, ...]:
    """All layers in the order of their modules; in each part, the main path comes before the shortcut."""
    return tuple(named_layers(path).values())


def named_layers(path: Items, prefix: str = "") -> dict[str, Layer]:
    """All layers by the names of their modules, as state dicts have them: `0`, `1.main.0`, `1.shortcut.0`."""
    return dict(_named(path, prefix))


def _named(path: Items, prefix: str) -> Iterable[tuple[str, Layer]]:
    for position, step in enumerate(steps_of(path)):
        if isinstance(step, Layer):
            yield f"{prefix}{position}", step
        else:
            yield from _named(step.main, f"{prefix}{position}.main.")
            yield from _named(step.shortcut, f"{prefix}{position}.shortcut.")
