"""Trials trained again on a search's runners: a race over fresh splits, and the finalists on all images.

Where the engine measured that to be faster, seeds of one trial train together, in one task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, isfinite, sqrt
from pathlib import Path
from statistics import mean

from tuner.architecture.cost import network_cost
from tuner.architecture.trace import trace
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
    contenders: Sequence[Contender],
    executor: Executor,
    *,
    num_seeds: int,
    seed: int,
    num_validation: int,
    together_bytes: float = 0.0,
) -> Iterator[ConfirmProgress]:
    """Part (a): a seed after another for all contenders; who is clearly behind is dropped.

    One that is left alone is still trained with every seed: its mean is told. Where seeds may train together, those
    after the first do; `together_bytes` is what their step may take.
    """
    done = 0
    numbers = {training_seed(seed, number): number for number in range(num_seeds)}
    rounds = [[0], [*range(1, num_seeds)]] if together_bytes else [[number] for number in range(num_seeds)]
    for seeds in filter(None, rounds):
        racing = {one.trial.number: one for one in contenders if not one.dropped}
        total = done + len(racing) * (num_seeds - seeds[0])
        tasks = [
            TrialTask(
                one.trial.number,
                one.candidate,
                training_seed(seed, number),
                split="fresh",
                split_seed=derive_seed(seed, "confirm split", number),
            )
            for number in seeds
            for one in racing.values()
        ]
        for task, end in _train_all(group_seeds(tasks, executor.num_runners, together_bytes), executor):
            if task.others or _is_lost(end):
                yield ConfirmProgress(_why_again(task, end), done, total)
                continue
            one, number, done = racing[task.number], numbers[task.seed], done + 1
            if one.dropped:
                yield ConfirmProgress(f"trial {task.number}, seed {number + 1}: no longer needed", done, total)
            elif isinstance(end, EpochResult) and isfinite(end.validation_accuracy):
                one.accuracies[number] = end.validation_accuracy
                yield ConfirmProgress(
                    f"trial {task.number}, seed {number + 1}: {end.validation_accuracy:.2%}", done, total
                )
            else:
                one.dropped = f"seed {number + 1}: {end.reason if isinstance(end, TrainingEnded) else 'no score'}"
                one.accuracies.clear()
                yield ConfirmProgress(f"trial {task.number}, {one.dropped}", done, total)
        if num_seeds - 1 not in seeds:
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
    finalists: Sequence[Contender],
    executor: Executor,
    folder: Path,
    *,
    num_seeds: int,
    seed: int,
    together_bytes: float = 0.0,
) -> Iterator[ConfirmProgress]:
    """Part (b): on train and validation together; the weights are left in the folder.

    The first of the finalists is the winner: StudyError is raised when it cannot be trained. Another that cannot loses
    its accuracies.
    """
    winner, by_number = finalists[0], {one.trial.number: one for one in finalists}
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
    done = 0
    for task, end in _train_all(group_seeds(tasks, executor.num_runners, together_bytes), executor):
        if task.others or _is_lost(end):
            yield ConfirmProgress(_why_again(task, end), done, len(tasks))
            continue
        done += 1
        if isinstance(end, TrainingEnded):
            failed = f"trial {task.number} could not be trained on all images: {end.kind} {end.reason}"
            if task.number == winner.trial.number:
                raise StudyError(failed)
            by_number[task.number].dropped = f"on all images: {end.kind} {end.reason}"
            by_number[task.number].accuracies.clear()
            yield ConfirmProgress(failed, done, len(tasks))
            continue
        yield ConfirmProgress(f"trial {task.number} on train and validation together", done, len(tasks))


def group_seeds(tasks: Sequence[TrialTask], num_runners: int, together_bytes: float) -> list[TrialTask]:
    """Tasks that differ in their seeds alone as one, as many as a step of `together_bytes` bears; 0 leaves all apart.

    No runner is left without work for it: seeds side by side on two runners are done sooner than together on one.
    """
    by_number: dict[int, list[TrialTask]] = {}
    for task in tasks:
        by_number.setdefault(task.number, []).append(task)
    num_groups = ceil(num_runners / max(1, len(by_number)))  # of each trial
    sizes = {}
    for number, (first, *others) in by_number.items():
        cost = network_cost(trace(first.candidate.architecture))
        by_memory = int(together_bytes / cost.training_bytes(first.candidate.recipe.batch_size))
        sizes[number] = min(ceil((1 + len(others)) / num_groups), by_memory)
    if max(sizes.values(), default=0) < 2:
        return list(tasks)
    groups = []
    for number, alike in by_number.items():
        size = max(1, sizes[number])
        for start in range(0, len(alike), size):
            first, *others = alike[start : start + size]
            groups.append(replace(first, others=tuple(others)))
    return groups


def _is_lost(end: EpochResult | TrainingEnded) -> bool:
    return isinstance(end, TrainingEnded) and end.kind == "lost"


def _why_again(task: TrialTask, end: EpochResult | TrainingEnded) -> str:
    reason = f"{end.kind}: {end.reason}" if isinstance(end, TrainingEnded) else "no score"
    if not task.others:
        return f"trial {task.number} is trained again: {reason}"
    return f"trial {task.number}: seeds train one after another, as together they ended with {reason}"


def _train_all(
    tasks: Sequence[TrialTask], executor: Executor
) -> Iterator[tuple[TrialTask, EpochResult | TrainingEnded]]:
    """Every task on some runner; each with its last epoch, or with what went wrong.

    Seeds that train together each come as a task of its own. If something goes wrong with all of them, the task of all
    comes with that, and then each of them, trained alone. One whose process died comes with that as lost, and then
    again.
    """
    waiting = list(tasks)
    lost: set[tuple[int, int]] = set()
    running: dict[int, tuple[TrialTask, dict[int, EpochResult]]] = {}
    try:
        while waiting or running:
            for runner in range(executor.num_runners):
                if waiting and runner not in running:
                    running[runner] = (waiting.pop(0), {})
                    executor.start(runner, running[runner][0])
            for runner, answer in executor.answers(WAIT_SECONDS):
                if runner not in running:
                    continue
                task, last = running[runner]
                if isinstance(answer, EpochResult):
                    last[answer.seed_index] = answer
                    executor.next_epoch(runner)
                    continue
                del running[runner]
                if answer.kind == "lost" and not task.others and (task.number, task.seed) not in lost:
                    lost.add((task.number, task.seed))
                    waiting.append(task)
                    yield task, answer
                elif not task.others:
                    end = replace(answer, kind="failed") if answer.kind == "lost" else answer
                    yield task, last.get(0, end) if answer.kind == "finished" else end
                elif answer.kind == "finished":
                    yield from _ends_of_seeds(task, last)
                else:
                    waiting += [replace(task, others=()), *task.others]
                    yield task, answer
    finally:
        for runner in running:
            executor.stop(runner)


def _ends_of_seeds(
    task: TrialTask, last: Mapping[int, EpochResult]
) -> Iterator[tuple[TrialTask, EpochResult | TrainingEnded]]:
    """Each seed with its last epoch; one that has none went no further since its loss was not finite."""
    for index, one in enumerate([replace(task, others=()), *task.others]):
        num_epochs = last[index].epoch if index in last else 0
        if num_epochs == task.candidate.recipe.epochs:
            yield one, last[index]
        else:
            yield one, TrainingEnded("diverged", f"the loss of epoch {num_epochs + 1} is not finite")


def training_seed(seed: int, number: int) -> int:
    """Of the trainings with seed `number`, the same for every contender."""
    return derive_seed(seed, "confirm training", number)


def weights_path(folder: Path, one: Contender, number: int) -> Path:
    """Where the weights of a finalist with seed `number` lie until one is delivered."""
    return folder / f"trial-{one.trial.number:05}-seed-{number}.pt"
