"""The options of a run, and the rule that each must follow, for users of the library and of the command line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tuner.data.dataset import DataSpec
from tuner.errors import OptionError

SMALL_SET = 10_000
EPOCHS_SMALL, EPOCHS_LARGE = 20, 5
"""Default number of epochs of a trial, for training parts of less than SMALL_SET images and for others."""


@dataclass(frozen=True)
class RunOptions:
    """Options of `tuner run`. With `None`, tuner decides; `storage` is an Optuna URL.

    engine: choices to force, as `CHOICE=VALUE,...`; `tuner doctor` lists them. `auto` forces none.
    budget_seconds: time limit for the whole run; with a confirmation, the search gets two thirds of it. confirm:
    whether to retrain the best trials and score the winner on the test set: in time (what is left of the budget, or a
    third of the run's time without one), in full, or not at all. `run` and `run_events` raise OptionError for invalid
    values.
    """

    dataset: str = "digits"
    data_dir: Path = Path("data")
    image_size: tuple[int, int] | None = None
    download: bool = True
    space: str = "cnn"
    study: str | None = None
    studies: Path = Path("studies")
    storage: str | None = field(default=None, repr=False)
    trials: int = 50
    epochs: int | None = None
    seed: int = 0
    device: str = "auto"
    engine: str = "auto"
    workers: int | None = None
    budget_seconds: float = float("inf")
    confirm: Literal["in time", "in full", "no"] = "in time"

    @property
    def data_spec(self) -> DataSpec:
        """Return the source of the images."""
        cache_dir = self.studies / ".cache"
        return DataSpec(self.dataset, self.data_dir, cache_dir, image_size=self.image_size, download=self.download)


Rule = tuple[str, Callable[[Any], bool]]
"""Text of a rule, and the check of a value."""


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


def default_epochs(num_train: int) -> int:
    """Epochs of a trial when none are asked for, by the number of training images."""
    return EPOCHS_SMALL if num_train < SMALL_SET else EPOCHS_LARGE
