"""How often the verdicts of confirmations are right: the real race and conclusion, on networks whose worth is known.

Nothing is trained. Whether a network is right on an image is drawn: from what the network is worth, the luck of its
seed, how difficult the image is for all networks and for this one, and chance. So accuracies differ by seed, split and
image as they do in truth, and the expected accuracy over seeds and images, which an interval should cover, is known.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from statistics import NormalDist, mean
from typing import Any

import numpy as np
import torch
from optuna.trial import TrialState

from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.deliver.conclusion import conclude
from tuner.deliver.contenders import Splits, contender_from
from tuner.deliver.finalists import FinalTraining, decide, final_seed
from tuner.deliver.intervals import Correct
from tuner.deliver.scoring import Score
from tuner.search.confirmation import Confirmation
from tuner.search.executors import InProcess
from tuner.search.tasks import AllImagesTask, FreshSplitTask, TrialTask
from tuner.search.trial_record import TrialRecord
from tuner.training.candidate import Candidate, Recipe
from tuner.training.results import NOT_SCORED, EpochResult

NORMAL = NormalDist()
FOR_ALL, FOR_ONE, CHANCE = 1.0, 0.5, 1.0
"""Standard deviations, on one scale: how difficult images are for all networks, for one network more than for others,
and what differs from one training to the next."""
OVERALL = sqrt(FOR_ALL**2 + FOR_ONE**2 + CHANCE**2)
NUM_CLASSES = 10


@dataclass(frozen=True)
class Scenario:
    """Networks and how they are confirmed. accuracies: expected, in 0..1; the last one is the baseline.

    spreads: standard deviation of each network's accuracy by its seed, in 0..1. num_images, num_validation, num_test:
    of the development part, of its validation part, of the test part. is_fixed: the validation part is the same for all
    seeds. collapses: the baseline answers the same class always.
    """

    accuracies: tuple[float, ...] = (0.9, 0.9, 0.9, 0.9)
    spreads: tuple[float, ...] = (0.01, 0.01, 0.01, 0.01)
    num_race_seeds: int = 3
    num_final_seeds: int = 3
    num_images: int = 2_000
    num_validation: int = 400
    num_test: int = 500
    is_fixed: bool = False
    collapses: bool = False


LARGE: Mapping[str, Any] = {"num_images": 10_000, "num_validation": 2_000, "num_test": 2_000}
SMALL_SPREAD = (0.005,) * 4
SCENARIOS: Mapping[str, Scenario] = {
    "equal": Scenario(),
    "1 point better": Scenario(accuracies=(0.9, 0.9, 0.91, 0.9)),
    "3 points better": Scenario(accuracies=(0.9, 0.9, 0.93, 0.9)),
    "equal, more images": Scenario(spreads=SMALL_SPREAD, **LARGE),
    "1 point better, more images": Scenario(accuracies=(0.9, 0.9, 0.91, 0.9), spreads=SMALL_SPREAD, **LARGE),
    "3 points better, more images": Scenario(accuracies=(0.9, 0.9, 0.93, 0.9), spreads=SMALL_SPREAD, **LARGE),
    "1 point worse": Scenario(accuracies=(0.9, 0.9, 0.9, 0.91)),
    "heavy spread": Scenario(spreads=(0.03,) * 4),
    "one final seed": Scenario(num_final_seeds=1),
    "one final seed, heavy spread": Scenario(spreads=(0.03,) * 4, num_final_seeds=1),
    "two seeds": Scenario(num_race_seeds=2, num_final_seeds=2),
    "two in the race, one final": Scenario(num_race_seeds=2, num_final_seeds=1),
    "one seed": Scenario(num_race_seeds=1, num_final_seeds=1),
    "collapsed baseline": Scenario(collapses=True),
    "collapsed, one final seed": Scenario(collapses=True, num_final_seeds=1),
    "own validation part": Scenario(is_fixed=True, num_final_seeds=1),
    "few photographs": Scenario(
        accuracies=(0.75,) * 4, spreads=(0.03,) * 4, num_images=240, num_validation=48, num_test=150
    ),
    "unequal spread": Scenario(spreads=(0.02, 0.02, 0.02, 0.005)),
}
"""`1 point worse`: all that the search found is truly worse than the baseline."""


def measure(num_rounds: int, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Confirm every scenario so many times. Shares are in percent, widths in points of accuracy.

    covers, covers_difference: how often the 95 % intervals cover the truth, of the rounds that have one.
    yes, wrong_yes: how often the verdict is that the winner beats the baseline, and how often that is wrong, of all
    rounds.
    """
    return {name: _shares(scenario, num_rounds, name=name, say=say) for name, scenario in SCENARIOS.items()}


def table(result: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each scenario; shares in percent."""
    heads = ("covers", "covers_difference", "yes", "wrong_yes", "no_interval", "width", "width_of_difference")
    lines = ["scenario                        " + "  ".join(f"{head.replace('_', ' '):>19}" for head in heads)]
    for name, one in result.items():
        cells = ("" if one[head] is None else f"{one[head]:.1f}" for head in heads)
        lines.append(f"{name:<32}" + "  ".join(f"{cell:>19}" for cell in cells))
    return "\n".join(lines)


def _shares(scenario: Scenario, num_rounds: int, *, name: str, say: Callable[[str], None]) -> dict[str, float | None]:
    covered, covered_difference, yes, wrong, widths, widths_of_difference = [], [], 0, 0, [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(num_rounds):
            nature = Nature(scenario, seed=number)
            found = nature.confirm(Path(folder))
            worth, of_baseline = nature.truths[found.number], nature.truths[-1]
            if found.interval is not None:
                low, high = found.interval
                covered.append(low <= worth <= high)
                widths.append(100 * (high - low))
            is_yes = found.beats_baseline == "yes"
            yes += is_yes
            wrong += is_yes and worth <= of_baseline
            if found.difference_interval is not None and found.number != found.baseline_number:
                low, high = found.difference_interval
                covered_difference.append(low <= worth - of_baseline <= high)
                widths_of_difference.append(100 * (high - low))
    shares = {
        "covers": _percent(covered),
        "covers_difference": _percent(covered_difference),
        "yes": 100 * yes / num_rounds,
        "wrong_yes": 100 * wrong / num_rounds,
        "no_interval": 100 * (1 - len(covered) / num_rounds),
        "width": mean(widths) if widths else None,
        "width_of_difference": mean(widths_of_difference) if widths_of_difference else None,
    }
    say(f"{name}: {num_rounds:,} confirmations")
    return shares


def _percent(hits: list[bool]) -> float | None:
    return 100 * mean(hits) if hits else None


class Nature:
    """Images and networks of one confirmation, drawn from a seed; a trainer that "trains" them.

    truths: the expected accuracy of each network, over seeds and images.
    """

    def __init__(self, scenario: Scenario, *, seed: int) -> None:
        self._scenario, self._seed = scenario, seed
        self._random = np.random.default_rng(seed)
        num_networks = len(scenario.accuracies)
        self.truths = list(scenario.accuracies)
        if scenario.collapses:
            self.truths[-1] = 1 / NUM_CLASSES
        # An accuracy is the normal distribution's at worth / deviation; so spreads in points become luck on its scale.
        slopes = [NORMAL.pdf(NORMAL.inv_cdf(accuracy)) for accuracy in scenario.accuracies]
        self._luck = [OVERALL * spread / slope for spread, slope in zip(scenario.spreads, slopes, strict=True)]
        self._worth = [
            NORMAL.inv_cdf(accuracy) * sqrt(OVERALL**2 + luck**2)
            for accuracy, luck in zip(scenario.accuracies, self._luck, strict=True)
        ]
        self._ease = {
            part: self._random.normal(0, FOR_ALL, size) + self._random.normal(0, FOR_ONE, (num_networks, size))
            for part, size in (("development", scenario.num_images), ("test", scenario.num_test))
        }
        # The share of a class is exact in a stratified validation part, and left to chance in a test part.
        self._of_class: dict[str, Correct] = {
            "development": np.arange(scenario.num_validation) % NUM_CLASSES == 0,
            "test": self._random.random(scenario.num_test) < 1 / NUM_CLASSES,
        }
        self._scored: dict[tuple[int, int], Correct] = {}

    def confirm(self, folder: Path) -> Confirmation:
        """The race, the final trainings and the conclusion, as `tuner confirm` has them."""
        scenario = self._scenario
        contenders = [contender_from(_trial(number), epochs=1) for number in range(len(scenario.accuracies))]
        splits = Splits(scenario.num_validation, scenario.num_images, scenario.is_fixed)
        running = decide(
            contenders,
            contenders[-1],
            InProcess(self),
            folder,
            num_seeds=scenario.num_race_seeds,
            plan_final=lambda _: FinalTraining(scenario.num_final_seeds),
            seed=self._seed,
            splits=splits,
        )
        while True:
            try:
                next(running)
            except StopIteration as ended:
                finalists = ended.value
                break
        seeds = [final_seed(self._seed, number) for number in range(finalists.training.num_seeds)]
        scores = {
            one.trial.number: [
                Score(torch.from_numpy(self._scored[one.trial.number, seed]), loss=0.0) for seed in seeds
            ]
            for one in finalists.each
        }
        return conclude(
            finalists.winner,
            contenders[-1],
            contenders,
            scores,
            epochs=finalists.epochs,
            splits=splits,
            seeds=seeds,
            num_trials=len(contenders),
            num_openings=1,
            is_full=True,
            seconds=0.0,
            notes=finalists.notes,
        )

    def __call__(self, task: TrialTask) -> Iterator[EpochResult]:
        """Draw which images a network is right on, with a new seed."""
        scenario = self._scenario
        assert isinstance(task, FreshSplitTask | AllImagesTask)
        if isinstance(task, AllImagesTask):
            self._scored[task.number, task.seed] = self._correct(task.number, "test", np.arange(scenario.num_test))
            yield EpochResult(1, 0.0, NOT_SCORED, NOT_SCORED, 0.0)
            return
        validation_N = np.arange(scenario.num_validation)
        if not scenario.is_fixed:
            splitting = np.random.default_rng(task.split_seed)
            validation_N = splitting.permutation(scenario.num_images)[: scenario.num_validation]
        correct_N = self._correct(task.number, "development", validation_N)
        yield EpochResult(1, 0.0, 0.0, float(correct_N.mean()), 0.0, correct_N=correct_N)

    def _correct(self, network: int, part: str, rows_N: np.ndarray[Any, np.dtype[np.int64]]) -> Correct:
        if self._scenario.collapses and network == len(self._worth) - 1:
            return self._of_class[part]
        luck = self._random.normal(0, self._luck[network])
        chance_N = self._random.normal(0, CHANCE, len(rows_N))
        correct_N: Correct = self._worth[network] + luck + self._ease[part][network, rows_N] + chance_N > 0
        return correct_N


def _trial(number: int) -> TrialRecord:
    architecture = Architecture(InputSpec(1, 8, 8, NUM_CLASSES), (PlainBlock(out_channels=8),), Head())
    candidate = Candidate(architecture, Recipe(epochs=1))
    return TrialRecord(
        number=number,
        state=TrialState.COMPLETE,
        outcome="complete",
        reason="",
        candidate=replace(candidate, recipe=replace(candidate.recipe, learning_rate=1e-3 * (1 + number))),
        params={},
        curve={1: 0.9},
        num_parameters=1,
        flops=1,
        seconds=1.0,
        started=None,
        ended=None,
    )
