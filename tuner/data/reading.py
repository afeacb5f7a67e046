"""How stored values become 8-bit pixels: the range of 16-bit grey images, and the ground under transparent pixels.

Both are chosen from the development part as a whole. They are stored with a network, so that the test part and new
images are read in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Ground = Literal["white", "black", "grey"]
GROUNDS: Mapping[Ground, int] = {"white": 255, "black": 0, "grey": 128}
"""Values of the grounds. The first one on which the fewest images vanish is used."""
Levels = tuple[int, int]
"""Smallest and largest value of grey images with more than 8 bits, which become 0 and 255."""
WIDEST: Levels = (0, 65535)
VISIBLE = 16
"""Difference between the values of an image, of 255, below which it has vanished."""


@dataclass(frozen=True)
class Reading:
    """How stored values become pixels. The default is the rule for sets without 16-bit or transparent images."""

    levels: Levels = WIDEST
    ground: Ground = "white"

    def to_json(self) -> dict[str, Any]:
        """Return plain values for json.dumps, without those that have their default."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if value != getattr(Reading, key)
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Reading:
        """Read what to_json returned; other keys are ignored. Raises ValueError or TypeError for other values."""
        low, high = (int(value) for value in values.get("levels", WIDEST))
        ground = values.get("ground", "white")
        if not WIDEST[0] <= low <= high <= WIDEST[1] or ground not in get_args(Ground):
            raise ValueError(f"levels must be in 0..65535 and a ground be one of {', '.join(GROUNDS)}")
        return cls((low, high), ground)


DEFAULT = Reading()


def scale_levels(levels_HW: NDArray[np.int64], levels: Levels) -> NDArray[np.uint8]:
    """Scale values linearly from `levels` to 0..255, rounded; values outside are clipped."""
    low, high = levels
    span = max(high - low, 1)
    scaled_HW = ((levels_HW.clip(low, high) - low) * 510 + span) // (2 * span)
    return scaled_HW.astype(np.uint8)


def vanishes_over(pixels_HW4: NDArray[np.uint8]) -> tuple[bool, ...] | None:
    """Whether an image (RGBA) has nearly one colour once it is laid over each of GROUNDS; None if it is opaque."""
    opacity_HW1 = pixels_HW4[..., 3:].astype(np.float32) / 255
    if opacity_HW1.min() == 1:
        return None
    colours_HW3 = pixels_HW4[..., :3] * opacity_HW1
    laid = (colours_HW3 + (1 - opacity_HW1) * value for value in GROUNDS.values())
    return tuple(bool(np.ptp(laid_HW3.reshape(-1, 3), axis=0).max() < VISIBLE) for laid_HW3 in laid)


def choose_reading(
    levels: Sequence[Levels | None], vanishing: Sequence[tuple[bool, ...] | None]
) -> tuple[Reading, tuple[str, ...]]:
    """Choose how a set is read, from what is known of each image; also return notes on what is not the default.

    levels: extreme values of each grey image with more than 8 bits. vanishing: as vanishes_over returns it.
    """
    known = [one for one in levels if one is not None]
    range_of_set = (min(low for low, _ in known), max(high for _, high in known)) if known else WIDEST
    transparent = [one for one in vanishing if one is not None]
    counts = dict(zip(GROUNDS, np.sum(transparent, axis=0).tolist(), strict=True)) if transparent else {}
    ground: Ground = min(counts, key=lambda name: counts[name]) if counts else "white"
    reading = Reading(range_of_set, ground)
    notes = []
    if known:
        notes.append(
            f"grey values of more than 8 bits are scaled from {range_of_set[0]:,}..{range_of_set[1]:,}, the range of "
            f"{len(known):,} training and validation images, to 0..255; other values are clipped"
        )
    if ground != "white":
        notes.append(
            f"transparent pixels are laid over {ground}: over white, {counts['white']:,} of {len(transparent):,} "
            f"training and validation images with such pixels would vanish, and over {ground} {counts[ground]:,}"
        )
    return reading, tuple(notes)


def reading_in_words(reading: Reading) -> str:
    """Describe how images must be read before a network gets them, in sentences; empty for the default."""
    sentences = []
    if reading.levels != WIDEST:
        low, high = reading.levels
        sentences.append(f"Grey values of more than 8 bits are scaled from {low}..{high} to 0..255 and clipped.")
    if reading.ground != "white":
        sentences.append(f"Transparent pixels are laid over {reading.ground} ({GROUNDS[reading.ground]}).")
    return " ".join(sentences)
