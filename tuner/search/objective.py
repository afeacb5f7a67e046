"""The objective of a search: its name and direction, the value of an epoch, the best epoch, and the order of trials.

A value is a validation accuracy in 0..1. Of equal values, the earlier is better: the first epoch, and the trial with
the lower number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from optuna.study import StudyDirection

from tuner.training.results import EpochResult

OBJECTIVE = "validation accuracy"
DIRECTION = StudyDirection.MAXIMIZE
BELOW_ALL = -1.0
"""A value that is lower than every real one."""
Default = TypeVar("Default")


class Scored(Protocol):
    """A trial with its best value so far, which is None before its first epoch."""

    @property
    def number(self) -> int:
        """The number of the trial in its study."""

    @property
    def validation_accuracy(self) -> float | None:
        """Value of the best epoch."""


AnyScored = TypeVar("AnyScored", bound=Scored)


def value_of(result: EpochResult) -> float:
    """Return the value of an epoch."""
    return result.validation_accuracy


def is_better(value: float | None, than: float | None) -> bool:
    """Whether a value is better than another one. Any value is better than None; equal values are not better."""
    return value is not None and (than is None or value > than)


def best_value(values: Iterable[float], *, default: Default) -> float | Default:
    """Return the best of some values, or the default if there are none."""
    return max(values, default=default)


def best_epoch(curve: Mapping[int, float]) -> int | None:
    """Return the first epoch with the best value, in a curve of values by epoch; None if the curve is empty."""
    return max(curve, key=lambda epoch: (curve[epoch], -epoch), default=None)


def rank_key(value: float | None, number: int) -> tuple[float, int]:
    """Sort key of a trial with this value and number: the best trial is first. None ranks as 0."""
    return -(value or 0.0), number


def ranked(trials: Iterable[AnyScored]) -> list[AnyScored]:
    """Return the trials in the order of their values, the best first."""
    return sorted(trials, key=lambda trial: rank_key(trial.validation_accuracy, trial.number))
