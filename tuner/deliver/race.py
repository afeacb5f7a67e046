"""Trials trained again on a search's runners: a race over fresh splits, and the finalists on all images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, sqrt
from pathlib import Path
from statistics import mean

from tuner.errors import StudyError
from tuner.search.executors import Executor
from tuner.search.record import TrialRecord
from tuner.search.runner import TrainingEnded, TrialTask
from tuner.training.candidate import Candidate
from tuner.training.loop import EpochResult
from tuner.training.seeds import derive_seed

CLEARLY = 2.0
"""A candidate is clearly behind when its mean lacks so many standard errors of the difference from the best mean's."""
WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class ConfirmProgress:
    """`done` of `total` trainings are over; `what` is the one that has just ended."""

    what: str
    done: int
    total: int


@dataclass
class Contender:
    """A trial that is trained again. `accuracies`: by seed, of the fresh splits."""

    trial: TrialRecord
    candidate: Candidate
    accuracies: dict[int, float] = field(default_factory=dict)
    dropped: str = ""

    @property
    def seconds(self) -> float:
        """That one training of it took in the search, for its epochs here."""
        return self.trial.seconds / max(1, len(self.trial.curve)) * self.candidate.recipe.epochs

    @property
    def mean(self) -> float:
        """Of its accuracies on fresh splits, 0..1; -1 when there is none."""
        return mean(self.accuracies.values()) if self.accuracies else -1.0


def contender_from(trial: TrialRecord) -> Contender:
    """The trial with as many epochs as were best in the search, which its schedule then spans."""
    recipe = replace(trial.candidate.recipe, epochs=trial.best_epoch or 1)
    return Contender(trial, replace(trial.candidate, recipe=recipe))


def race(
    contenders: Sequence[Contender], executor: Executor, *, num_seeds: int, seed: int, num_validation: int
) -> Iterator[ConfirmProgress]:
    """Part (a): a seed after another for all contenders; who is clearly behind is dropped."""
    total, done = num_seeds * len(contenders), 0
    for number in range(num_seeds):
        racing = {one.trial.number: one for one in contenders if not one.dropped}
        if number and len(racing) == 1:
            break
        tasks = [
            TrialTask(
                one.trial.number,
                one.candidate,
                training_seed(seed, number),
                split="fresh",
                split_seed=derive_seed(seed, "confirm split", number),
            )
            for one in racing.values()
        ]
        for task, end in _train_all(tasks, executor):
            one, done = racing[task.number], done + 1
            if isinstance(end, EpochResult) and isfinite(end.validation_accuracy):
                one.accuracies[number] = end.validation_accuracy
                yield ConfirmProgress(
                    f"trial {task.number}, seed {number + 1}: {end.validation_accuracy:.2%}", done, total
                )
            else:
                one.dropped = f"seed {number + 1}: {end.reason if isinstance(end, TrainingEnded) else 'no score'}"
                one.accuracies.clear()
                yield ConfirmProgress(f"trial {task.number}, {one.dropped}", done, total)
        if number + 1 < num_seeds:
            _drop_the_clearly_behind(racing.values(), num_validation=num_validation)


def _drop_the_clearly_behind(racing: Iterable[Contender], *, num_validation: int) -> None:
    trained = [one for one in racing if not one.dropped]
    if not trained:
        return
    best = max(one.mean for one in trained)
    for one in trained:
        num_images = num_validation * len(one.accuracies)
        error = sqrt((best * (1 - best) + one.mean * (1 - one.mean)) / num_images)
        if best - one.mean > CLEARLY * error:
            one.dropped = f"clearly behind after {len(one.accuracies)} of the seeds"


def train_finalists(
    finalists: Sequence[Contender], executor: Executor, folder: Path, *, num_seeds: int, seed: int
) -> Iterator[ConfirmProgress]:
    """Part (b): on train and validation together; the weights are left in the folder. Raises StudyError."""
    tasks = [
        TrialTask(
            one.trial.number,
            one.candidate,
            training_seed(seed, number),
            split="none",
            save_to=weights_path(folder, one, number),
        )
        for number in range(num_seeds)
        for one in finalists
    ]
    for done, (task, end) in enumerate(_train_all(tasks, executor), start=1):
        if isinstance(end, TrainingEnded):
            raise StudyError(f"trial {task.number} could not be trained on all images: {end.kind} {end.reason}")
        yield ConfirmProgress(f"trial {task.number} on train and validation together", done, len(tasks))


def _train_all(
    tasks: Sequence[TrialTask], executor: Executor
) -> Iterator[tuple[TrialTask, EpochResult | TrainingEnded]]:
    """Every task on some runner; each with its last epoch, or with what went wrong."""
    waiting = list(tasks)
    running: dict[int, tuple[TrialTask, EpochResult | None]] = {}
    try:
        while waiting or running:
            for runner in range(executor.num_runners):
                if waiting and runner not in running:
                    running[runner] = (waiting.pop(0), None)
                    executor.start(runner, running[runner][0])
            for runner, answer in executor.answers(WAIT_SECONDS):
                if runner not in running:
                    continue
                task, last = running[runner]
                if isinstance(answer, EpochResult):
                    running[runner] = (task, answer)
                    executor.next_epoch(runner)
                    continue
                del running[runner]
                yield task, last if answer.kind == "finished" and last is not None else answer
    finally:
        for runner in running:
            executor.stop(runner)


def training_seed(seed: int, number: int) -> int:
    """Of the trainings with seed `number`, the same for every contender."""
    return derive_seed(seed, "confirm training", number)


def weights_path(folder: Path, one: Contender, number: int) -> Path:
    """Where the weights of a finalist with seed `number` lie until one is delivered."""
    return folder / f"trial-{one.trial.number:05}-seed-{number}.pt"
