"""Events of a search, as small frozen values: the live view, the log and the tests all read the same stream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tuner.data.data_checks import DataChecks
from tuner.training.candidate import Candidate
from tuner.training.results import EpochResult, Preparing

Outcome = Literal["complete", "pruned", "diverged", "rejected", "repeated", "failed"]
"""How a trial ended. Complete, pruned and diverged trials that trained at least one epoch count."""


def counts(outcome: Outcome | None, *, num_epochs: int) -> bool:
    """Whether a trial counts: it trained at least one epoch, and was neither rejected nor repeated nor failed."""
    return outcome in ("complete", "pruned", "diverged") and num_epochs > 0


@dataclass(frozen=True)
class DataReady:
    """The images are loaded.

    `shape` is (C, H, W); `held` says whether they are in memory or streamed, and their size. checks: what was found in
    the data set; None if no search begins. other_sizes: further (height, width) that networks of the study take.
    """

    study: str
    dataset: str
    shape: tuple[int, ...]
    num_classes: int
    num_train: int
    num_validation: int
    device: str
    held: str
    notes: tuple[str, ...]
    checks: DataChecks | None = None
    other_sizes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class BestTrial:
    """The complete trial with the highest validation accuracy (0..1), which it had in epoch `epoch`."""

    number: int
    validation_accuracy: float
    epoch: int
    num_parameters: int


@dataclass(frozen=True)
class SearchStarted:
    """The search begins or resumes. `num_counted` of `num_trials` trials already count.

    num_trials: None if only the time budget limits them. outcomes: number of earlier trials by outcome. best: the best
    of them. budget_seconds: time until the search ends, whatever the number of trials.
    """

    study: str
    num_trials: int | None
    num_counted: int
    outcomes: Mapping[str, int]
    best: BestTrial | None
    num_runners: int
    epochs: int
    budget_seconds: float = float("inf")


@dataclass(frozen=True)
class TrialStarted:
    """A candidate starts training on a runner."""

    number: int
    candidate: Candidate
    num_parameters: int
    runner: int


@dataclass(frozen=True)
class TrialPreparing:
    """A trial computes what it needs before its first epoch, such as features."""

    number: int
    progress: Preparing


@dataclass(frozen=True)
class GivenChanged:
    """This trial tries a configuration of [[first]] with a smaller batch.

    changes: text such as `batch_size 32 instead of 64 and learning_rate 0.1 instead of 0.2 to fit into memory`.
    """

    number: int
    changes: str


@dataclass(frozen=True)
class BaselineChosen:
    """The baseline is this trial, because it is not simply the first configuration of the space.

    description: text such as `the first configuration, with batch_size 32 instead of 64 to fit into memory`.
    """

    number: int
    description: str


@dataclass(frozen=True)
class EpochFinished:
    """A trial has finished an epoch."""

    number: int
    result: EpochResult


@dataclass(frozen=True)
class TrialLost:
    """The process that trained a trial has died; the trial is restarted once."""

    number: int
    reason: str


@dataclass(frozen=True)
class TrialEnded:
    """A trial has its final state in the record. `best_epoch` and its accuracy are None if no epoch was finished.

    best: the best trial of the search so far. not_shown: why its note or its pictures could not be made, if so.
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
        """Whether it counts towards the number of trials that were requested."""
        return counts(self.outcome, num_epochs=self.num_epochs)


@dataclass(frozen=True)
class SearchEnded:
    """No more trials start. `reason` is empty if the search has all requested trials."""

    num_counted: int
    reason: str


SearchEvent = (
    SearchStarted
    | BaselineChosen
    | GivenChanged
    | TrialStarted
    | TrialPreparing
    | EpochFinished
    | TrialLost
    | TrialEnded
    | SearchEnded
)
