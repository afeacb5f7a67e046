"""Contenders of a confirmation: trials that are trained again, and what they have done in the race so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from statistics import mean

import numpy as np

from tuner.architecture.cost import network_cost
from tuner.architecture.trace import trace
from tuner.deliver.intervals import Correct, RaceRow, Spread, spread_in_race
from tuner.search.trial_record import TrialRecord
from tuner.training.candidate import Candidate


@dataclass(frozen=True)
class Splits:
    """How the development images are split for each seed of the race.

    num_validation: images that validate. num_images: of both parts together. is_fixed: whether every seed has the data
    set's own validation part, so that the splits do not differ.
    """

    num_validation: int
    num_images: int
    is_fixed: bool = False

    @property
    def validation_share(self) -> float:
        """The validation part's share of the images that are split afresh for every seed; 0 where none are."""
        return 0.0 if self.is_fixed else self.num_validation / self.num_images


@dataclass(eq=False)
class Contender:
    """A trial that is trained again.

    accuracies, correct: by number of the seed, on the validation part of its split; `correct` has no entry where the
    trainer does not say which images were classified correctly. dropped: why it cannot win; empty as long as it can.
    is_behind: whether it was dropped for being clearly behind, and not because a training failed.
    """

    trial: TrialRecord
    candidate: Candidate
    seconds: float
    """Estimated seconds for one retraining."""
    accuracies: dict[int, float] = field(default_factory=dict)
    correct: dict[int, Correct] = field(default_factory=dict)
    dropped: str = ""
    is_behind: bool = False

    @property
    def has_failed(self) -> bool:
        """Whether a training of it failed; then nothing is compared with it."""
        return bool(self.dropped) and not self.is_behind

    @property
    def mean(self) -> float:
        """Mean of its accuracies on fresh splits, 0..1; -1 when there is none."""
        return mean(self.accuracies.values()) if self.accuracies else -1.0

    @property
    def row(self) -> RaceRow:
        """What it did in the race, seed by seed."""
        numbers = sorted(self.accuracies)
        is_known = bool(numbers) and all(number in self.correct for number in numbers)
        correct_SN = np.stack([self.correct[number] for number in numbers]) if is_known else None
        return RaceRow([self.accuracies[number] for number in numbers], correct_SN)

    def fail(self, why: str) -> None:
        """Drop it for good: a training of it failed, so that it has no mean."""
        self.dropped, self.is_behind = why, False
        self.accuracies.clear()
        self.correct.clear()


def contender_from(trial: TrialRecord, *, epochs: int, seconds_per_work: float = 0.0) -> Contender:
    """The trial with as many epochs as were best in the search, which its schedule then spans.

    A trial that the search stopped before its last epoch, or never trained, gets the `epochs` of a full trial: nothing
    else would be a fair comparison. seconds_per_work: of the study's trials, for one that has no seconds of its own.
    """
    is_whole = len(trial.curve) >= epochs
    recipe = replace(trial.candidate.recipe, epochs=(trial.best_epoch or epochs) if is_whole else epochs)
    by_epoch = trial.seconds / len(trial.curve) if trial.curve else seconds_per_work * work_of(trial)
    return Contender(trial, replace(trial.candidate, recipe=recipe), by_epoch * recipe.epochs)


def work_of(trial: TrialRecord) -> float:
    """What an epoch of a trial takes, in the units of `Cost.work`."""
    return network_cost(trace(trial.candidate.architecture)).work


def spread_of(contenders: Iterable[Contender], splits: Splits) -> Spread:
    """How much seeds spread in the race."""
    return spread_in_race([one.row for one in contenders], validation_share=splits.validation_share)
