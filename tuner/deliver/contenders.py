"""Contenders of a confirmation: the trials that are retrained, and their results in the race so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from statistics import mean

import numpy as np

from tuner.deliver.intervals import Correct, RaceRow, Spread, spread_in_race
from tuner.search.training_cost import training_cost
from tuner.search.trial_record import TrialRecord
from tuner.training.candidate import Candidate


@dataclass(frozen=True)
class Splits:
    """How the development images are split for each seed of the race.

    num_validation: number of validation images. num_images: number of images of both parts together. is_fixed: whether
    every seed has the data set's own validation part, so that the splits do not differ.
    """

    num_validation: int
    num_images: int
    is_fixed: bool = False

    @property
    def validation_share(self) -> float:
        """The validation part's share of the images that are split again for every seed; 0 if none are."""
        return 0.0 if self.is_fixed else self.num_validation / self.num_images


@dataclass(eq=False)
class Contender:
    """A trial that is retrained.

    accuracies, correct: by number of the seed, on the validation part of its split. `correct` has no entry if the
    trainer does not say which images were classified correctly. dropped: why it cannot win; empty while it can.
    is_behind: whether it was dropped because it was clearly behind, and not because training failed.
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
        """Whether its training failed. If it did, no other trial is compared with it."""
        return bool(self.dropped) and not self.is_behind

    @property
    def mean(self) -> float:
        """Mean of its accuracies on fresh splits, in 0..1; -1 if there are none."""
        return mean(self.accuracies.values()) if self.accuracies else -1.0

    @property
    def row(self) -> RaceRow:
        """Its results in the race, seed by seed."""
        numbers = sorted(self.accuracies)
        is_known = bool(numbers) and all(number in self.correct for number in numbers)
        # Splits that keep groups whole may have unequal sizes, and have then no common table of images.
        is_table = is_known and len({len(self.correct[number]) for number in numbers}) == 1
        correct_SN = np.stack([self.correct[number] for number in numbers]) if is_table else None
        return RaceRow([self.accuracies[number] for number in numbers], correct_SN)

    def fail(self, why: str) -> None:
        """Drop it permanently because it failed in training; it then has no mean."""
        self.dropped, self.is_behind = why, False
        self.accuracies.clear()
        self.correct.clear()


def contender_from(trial: TrialRecord, *, epochs: int, seconds_per_work: float = 0.0, num_images: int = 0) -> Contender:
    """Make a contender that trains for the number of epochs that was best in the search; its schedule spans these.

    A trial that the search stopped before its last epoch, or never trained, gets the `epochs` of a full trial, which
    makes the comparison fair. seconds_per_work: average over the study's trials, for a trial without a time of its own.
    num_images: as in training_cost.
    """
    is_whole = len(trial.curve) >= epochs
    recipe = replace(trial.candidate.recipe, epochs=(trial.best_epoch or epochs) if is_whole else epochs)
    by_epoch = trial.seconds / len(trial.curve) if trial.curve else seconds_per_work * work_of(trial, num_images)
    return Contender(trial, replace(trial.candidate, recipe=recipe), by_epoch * recipe.epochs)


def work_of(trial: TrialRecord, num_images: int) -> float:
    """Cost of one epoch of a trial, in the units of `Cost.work`. num_images: as in training_cost."""
    return training_cost(trial.candidate.architecture, num_images).work


def spread_of(contenders: Iterable[Contender], splits: Splits) -> Spread:
    """Estimate how much accuracies differ between seeds in the race."""
    return spread_in_race([one.row for one in contenders], validation_share=splits.validation_share)
