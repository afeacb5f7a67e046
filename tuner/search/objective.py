"""What a search maximizes: its name and direction, the value of an epoch, the best epoch, and the order of trials.

A value is a validation accuracy in 0..1. Of equal values the earlier wins: the first epoch, and the trial with the
lower number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from optuna.study import StudyDirection

from tuner.training.results import EpochResult

OBJECTIVE = "validation accuracy"
DIRECTION = StudyDirection.MAXIMIZE
BELOW_ALL = -1.0
"""A value that every real one beats."""
Default = TypeVar("Default")


class Scored(Protocol):
    """A trial with its best value so far; None before its first epoch."""

    @property
    def number(self) -> int:
        """The number of the trial in its study."""

    @property
    def validation_accuracy(self) -> float | None:
        """The value of the best epoch."""


AnyScored = TypeVar("AnyScored", bound=Scored)


def value_of(result: EpochResult) -> float:
    """The value that an epoch has reached."""
    return result.validation_accuracy


def is_better(value: float | None, than: float | None) -> bool:
    """Whether a value beats another one; any value beats None, and equal values do not beat each other."""
    return value is not None and (than is None or value > than)


def best_value(values: Iterable[float], *, default: Default) -> float | Default:
    """The best of some values; the default if there are none."""
    return max(values, default=default)


def best_epoch(curve: Mapping[int, float]) -> int | None:
    """The first epoch of the best value, in a curve of values by epoch; None if it has no epoch."""
    return max(curve, key=lambda epoch: (curve[epoch], -epoch), default=None)


def rank_key(value: float | None, number: int) -> tuple[float, int]:
    """Sort key of a trial with this value and number: the best comes first. No value ranks as 0."""
    return -(value or 0.0), number


def ranked(trials: Iterable[AnyScored]) -> list[AnyScored]:
    """Trials in the order of their values, the best first."""
    return sorted(trials, key=lambda trial: rank_key(trial.validation_accuracy, trial.number))
