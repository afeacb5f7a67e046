"""What happens in a search, as small frozen values: the live view, the log and the tests read one stream of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tuner.training.candidate import Candidate
from tuner.training.results import EpochResult

Outcome = Literal["complete", "pruned", "diverged", "rejected", "repeated", "failed"]
"""How a trial ended. Only complete and pruned ones, that trained at least one epoch, count as trials of the search."""


def counts(outcome: Outcome | None, *, num_epochs: int) -> bool:
    """Whether a trial is one of those that were asked for: it trained at least one epoch, and was not turned away."""
    return outcome in ("complete", "pruned", "diverged") and num_epochs > 0


@dataclass(frozen=True)
class BestTrial:
    """The complete trial of the highest validation accuracy (0..1), which `epoch` had."""

    number: int
    validation_accuracy: float
    epoch: int
    num_parameters: int


@dataclass(frozen=True)
class SearchStarted:
    """The search begins or resumes. It already has `num_counted` of `num_trials`.

    outcomes: how many earlier trials ended how. best: the best of them.
    """

    study: str
    num_trials: int
    num_counted: int
    outcomes: Mapping[str, int]
    best: BestTrial | None
    num_runners: int
    epochs: int


@dataclass(frozen=True)
class TrialStarted:
    """A candidate begins to train on a runner."""

    number: int
    candidate: Candidate
    num_parameters: int
    runner: int


@dataclass(frozen=True)
class BaselineChosen:
    """A trial is the baseline, and not simply the first configuration of the space as it is given.

    description: what it is, such as `the first configuration, with batch_size 32 instead of 64 to fit into memory`.
    """

    number: int
    description: str


@dataclass(frozen=True)
class EpochFinished:
    """One epoch of one trial is over."""

    number: int
    result: EpochResult


@dataclass(frozen=True)
class TrialLost:
    """The process that trained a trial is gone; the trial is restarted, once."""

    number: int
    reason: str


@dataclass(frozen=True)
class TrialEnded:
    """A trial has its final state in the record. `best_epoch` and its accuracy are None when no epoch was finished.

    best: the best trial of the search by now. not_shown: why its note or its pictures could not be made, if so.
    """

    number: int
    outcome: Outcome
    reason: str
    best_epoch: int | None
    validation_accuracy: float | None
    num_epochs: int
    seconds: float
    best: BestTrial | None
    not_shown: str = ""

    @property
    def counts(self) -> bool:
        """Whether it is one of the trials that were asked for."""
        return counts(self.outcome, num_epochs=self.num_epochs)


@dataclass(frozen=True)
class SearchEnded:
    """No more trials start. `reason` is empty when the search has all that it was asked for."""

    num_counted: int
    reason: str


SearchEvent = SearchStarted | BaselineChosen | TrialStarted | EpochFinished | TrialLost | TrialEnded | SearchEnded
