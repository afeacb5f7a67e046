"""Part (a) of a confirmation: train the contenders with several seeds on fresh splits and compare their means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from math import isfinite, sqrt

from tuner.deliver.contenders import Contender, Splits, spread_of
from tuner.deliver.retraining import (
    ConfirmProgress,
    ConfirmStep,
    RetrainingTask,
    group_seeds,
    is_lost,
    train_all,
    why_again,
)
from tuner.search.events import TrialPreparing
from tuner.search.executors import Executor
from tuner.search.objective import BELOW_ALL, best_value
from tuner.search.tasks import FreshSplitTask, SeedGroup, TrainingEnded
from tuner.training.results import EpochResult
from tuner.training.seeds import derive_seed

CLEARLY = 2.0
"""A candidate is clearly behind if its mean is this many standard errors of the difference below the best mean."""
SEEDS_BEFORE_DROPPING = 2
"""With a single seed, the effect of the seed cannot be separated from the quality of the candidate."""


def race(
    contenders: Sequence[Contender],
    executor: Executor,
    *,
    num_seeds: int,
    seed: int,
    splits: Splits,
    together_bytes: float = 0.0,
) -> Iterator[ConfirmStep]:
    """Part (a): train all contenders with one seed after another, and drop those that are clearly behind.

    The first SEEDS_BEFORE_DROPPING seeds are one round, because nobody can fall behind between them, so no runner waits
    for the others. A contender that is the only one left is still trained with every seed, because its mean is
    reported. If all contenders in front have failed, those that were dropped for being behind them rejoin the race.
    Seeds that a contender already has are not trained again. The seeds of a contender in one round train together if
    that is allowed; `together_bytes` is the memory limit of their step.
    """
    while True:
        yield from _rounds(
            contenders, executor, num_seeds=num_seeds, seed=seed, splits=splits, together_bytes=together_bytes
        )
        behind = [one for one in contenders if one.is_behind]
        if not behind or any(not one.dropped for one in contenders):
            return
        for one in behind:
            one.dropped, one.is_behind = "", False


def _rounds(
    contenders: Sequence[Contender],
    executor: Executor,
    *,
    num_seeds: int,
    seed: int,
    splits: Splits,
    together_bytes: float,
) -> Iterator[ConfirmStep]:
    done = 0
    numbers = {race_seed(seed, number): number for number in range(num_seeds)}
    starts = [0, *range(SEEDS_BEFORE_DROPPING, num_seeds)]
    for start, end in zip(starts, [*starts[1:], num_seeds], strict=True):
        racing = {one.trial.number: one for one in contenders if not one.dropped}
        total = done + sum(
            number not in one.accuracies for one in racing.values() for number in range(start, num_seeds)
        )
        tasks = [
            FreshSplitTask(
                one.trial.number,
                one.candidate,
                race_seed(seed, number),
                split_seed=derive_seed(seed, "confirm split", number),
            )
            for number in range(start, end)
            for one in racing.values()
            if number not in one.accuracies
        ]
        grouped = group_seeds(tasks, executor.num_runners, together_bytes)
        for step in train_all(grouped, executor, is_needed=partial(_is_racing, racing)):
            if isinstance(step, TrialPreparing):
                yield step
                continue
            task, answer = step
            if isinstance(task, SeedGroup) or is_lost(answer):
                yield ConfirmProgress(why_again(task, answer), done, total)
                continue
            one, number, done = racing[task.number], numbers[task.seed], done + 1
            if one.dropped:
                yield ConfirmProgress(f"trial {task.number}, seed {number + 1}: no longer needed", done, total)
            elif isinstance(answer, EpochResult) and isfinite(answer.validation_accuracy):
                one.accuracies[number] = answer.validation_accuracy
                if answer.correct_N is not None:
                    one.correct[number] = answer.correct_N
                yield ConfirmProgress(
                    f"trial {task.number}, seed {number + 1}: {answer.validation_accuracy:.2%}", done, total
                )
            else:
                reason = answer.reason if isinstance(answer, TrainingEnded) else "no score"
                one.fail(f"seed {number + 1}: {reason}")
                yield ConfirmProgress(f"trial {task.number}, {one.dropped}", done, total)
        if SEEDS_BEFORE_DROPPING <= end < num_seeds:
            _drop_the_clearly_behind(racing.values(), splits=splits)


def _is_racing(racing: Mapping[int, Contender], task: RetrainingTask) -> bool:
    return not racing[task.number].dropped


def _drop_the_clearly_behind(racing: Iterable[Contender], *, splits: Splits) -> None:
    """Drop contenders whose mean is further below the best than images and seeds can explain."""
    trained = [one for one in racing if not one.dropped]
    if not trained:
        return
    best = best_value((one.mean for one in trained), default=BELOW_ALL)
    spread = spread_of(trained, splits)
    for one in trained:
        num_seeds = len(one.accuracies)
        images = (best * (1 - best) + one.mean * (1 - one.mean)) / splits.num_validation
        seeds = 2 * spread.squares / max(1, spread.freedom)
        if best - one.mean > CLEARLY * sqrt((images + seeds) / num_seeds):
            one.dropped, one.is_behind = f"clearly behind after {num_seeds} of the seeds", True


def race_seed(seed: int, number: int) -> int:
    """Random seed for training with the seed of this number in the race, the same for every contender."""
    return derive_seed(seed, "confirm training", number)
