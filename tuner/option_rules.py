"""What the options of a run may be; the library's users meet the same rules as the command line's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import OptionError

if TYPE_CHECKING:
    from tuner.pipeline import RunOptions

Rule = tuple[str, Callable[[Any], bool]]
"""In words, and whether a value keeps to it."""


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(low: int, high: int) -> Rule:
    return f"a whole number from {low:,} to {high:,}", lambda value: _is_whole(value) and low <= value <= high


def _or_none(rule: Rule) -> Rule:
    words, keeps = rule
    return words, lambda value: value is None or keeps(value)


TEXT: Rule = ("a text that is not empty", lambda value: isinstance(value, str) and value != "")
FOLDER: Rule = ("a pathlib.Path", lambda value: isinstance(value, Path))
SECONDS: Rule = ("a number above 0", lambda value: isinstance(value, int | float) and value > 0)
SIZE: Rule = (
    "(height, width) in whole pixels",
    lambda value: isinstance(value, tuple) and len(value) == 2 and all(map(_is_whole, value)),
)
CONFIRM = ("in time", "in full", "no")
RULES: dict[str, Rule] = {
    "dataset": TEXT,
    "data_dir": FOLDER,
    "image_size": _or_none(SIZE),
    "space": TEXT,
    "study": _or_none(TEXT),
    "studies": FOLDER,
    "storage": _or_none(TEXT),
    "trials": _whole(1, 10**9),
    "epochs": _or_none(_whole(1, 100_000)),
    "seed": _whole(0, 2**63 - 1),
    "device": TEXT,
    "engine": TEXT,
    "workers": _or_none(_whole(1, 1024)),
    "budget_seconds": SECONDS,
    "confirm": (f"one of {', '.join(map(repr, CONFIRM))}", lambda value: value in CONFIRM),
}


def check_options(options: RunOptions) -> None:
    """Raise OptionError for a value that an option cannot have."""
    for name, (words, keeps) in RULES.items():
        value = getattr(options, name)
        if not keeps(value):
            raise OptionError(f"{name} must be {words}, got {value!r}")
