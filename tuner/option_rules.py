"""What the options of a run may be; the library's users meet the same rules as the command line's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import OptionError

if TYPE_CHECKING:
    from tuner.pipeline import RunOptions

RANGES = {"trials": (1, 10**9), "epochs": (1, 100_000), "seed": (0, 2**63 - 1), "workers": (1, 1024)}
TEXTS = ("dataset", "space", "study", "storage", "device")
FOLDERS = ("data_dir", "studies")
LEFT_TO_THE_TUNER = ("epochs", "workers", "study", "storage", "image_size")
"""Options that may be None."""


def check_options(options: RunOptions) -> None:
    """Raise OptionError for a value that an option cannot have."""
    values = {name: value for name, value in vars(options).items() if (name, value) not in _LEFT_OUT}
    for name in RANGES.keys() & values.keys():
        low, high = RANGES[name]
        if not _is_whole(values[name]) or not low <= values[name] <= high:
            raise OptionError(f"{name} must be a whole number from {low:,} to {high:,}, got {values[name]!r}")
    for name in TEXTS:
        if name in values and (not isinstance(values[name], str) or not values[name]):
            raise OptionError(f"{name} must be a text that is not empty, got {values[name]!r}")
    for name in FOLDERS:
        if not isinstance(values[name], Path):
            raise OptionError(f"{name} must be a pathlib.Path, got {values[name]!r}")
    budget = values["budget_seconds"]
    if not isinstance(budget, int | float) or not budget > 0:  # NaN is not, either
        raise OptionError(f"budget_seconds must be a number above 0, got {budget!r}")
    size = values.get("image_size", (1, 1))
    if not isinstance(size, tuple) or len(size) != 2 or not all(map(_is_whole, size)):
        raise OptionError(f"image_size must be (height, width) in whole pixels, got {size!r}")


_LEFT_OUT = [(name, None) for name in LEFT_TO_THE_TUNER]


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
