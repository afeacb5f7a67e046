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
    """A named part of a network: a main path, and where it has a join, a shortcut beside it.

    A path is a sequence of layers and of parts; a shortcut without any is the identity. What leaves the part is what
    leaves the main path, or with a join the sum or the product of that and of what leaves the shortcut.
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
        """Shape of the output. One factor per channel of the shortcut may be multiplied with it: (C, 1, 1)."""
        return self.shortcut_shape if self.join == "multiply" else self.main[-1].output_shape

    @property
    def shortcut_shape(self) -> Shape:
        """Shape of the output of the shortcut."""
        return self.shortcut[-1].output_shape if self.shortcut else self.input_shape


Items = Sequence[Layer | Part]
"""What a path consists of."""


def steps_of(path: Items) -> Iterator[Layer | Part]:
    """What follows one another on a path: its layers and the parts with a join. Other parts are replaced by their own.

    Step i of a network is module i of its `nn.Sequential`.
    """
    for item in path:
        if isinstance(item, Part) and item.join == "none":
            yield from steps_of(item.main)
        else:
            yield item


def layers_of(path: Items) -> tuple[Layer, ...]:
    """All layers in the order of their modules: of a part those on the main path, then those on the shortcut."""
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
