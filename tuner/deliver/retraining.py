"""Retrain trials on a search's runners; seeds of one trial train together if that was measured to be faster."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from tuner.architecture.any_architecture import cost_of
from tuner.search.dispatch import Work, dispatch
from tuner.search.events import TrialPreparing
from tuner.search.executors import Executor
from tuner.search.tasks import AllImagesTask, FreshSplitTask, SeedGroup, TrainingEnded
from tuner.training.results import EpochResult, Preparing

SingleRetraining = FreshSplitTask | AllImagesTask
RetrainingTask = SingleRetraining | SeedGroup
LONGER_TOGETHER = 1.1
"""Seeds are grouped if the last runner then ends at most this many times later, at the pace of seeds trained alone."""
Ended = tuple[RetrainingTask, EpochResult | TrainingEnded]
"""A task with its last epoch, or with the reason for its failure."""


@dataclass(frozen=True)
class ConfirmProgress:
    """`done` of `total` training runs have ended; `what` describes the one that has just ended."""

    what: str
    done: int
    total: int


ConfirmStep = ConfirmProgress | TrialPreparing
"""The end of a training run, or what one computes before its first epoch."""


def group_seeds(tasks: Sequence[SingleRetraining], num_runners: int, together_bytes: float) -> list[RetrainingTask]:
    """Group tasks that differ only in their seeds, as many as fit into `together_bytes` per step; 0 groups none.

    Groups are small enough that every runner has work: seeds that train in parallel on two runners finish sooner than
    together on one. None are made if one runner would then have so much of the work that the others wait for it.
    """
    if not together_bytes:
        return list(tasks)
    by_number: dict[int, list[SingleRetraining]] = {}
    for task in tasks:
        by_number.setdefault(task.number, []).append(task)
    num_groups = ceil(num_runners / max(1, len(by_number)))  # of each trial
    sizes = {}
    for number, (first, *others) in by_number.items():
        cost = cost_of(first.candidate.architecture)
        recipe = first.candidate.recipe
        by_memory = int(together_bytes / cost.training_bytes(recipe.batch_size, has_average=recipe.ema > 0))
        sizes[number] = min(ceil((1 + len(others)) / num_groups), by_memory)
    if max(sizes.values(), default=0) < 2:
        return list(tasks)
    groups: list[RetrainingTask] = []
    for number, alike in by_number.items():
        size = max(1, sizes[number])
        for start in range(0, len(alike), size):
            together = tuple(alike[start : start + size])
            groups.append(SeedGroup(together) if len(together) > 1 else together[0])
    apart, grouped = (makespan(map(_work_of, all_tasks), num_runners) for all_tasks in (tasks, groups))
    return groups if grouped <= LONGER_TOGETHER * apart else list(tasks)


def _work_of(task: RetrainingTask) -> float:
    """Cost of a task, in the units of `Cost.work`."""
    if isinstance(task, SeedGroup):
        return sum(map(_work_of, task.tasks))
    return cost_of(task.candidate.architecture).work * task.candidate.recipe.epochs


def makespan(seconds: Iterable[float], num_runners: int) -> float:
    """Seconds until all of the tasks have ended, if each free runner takes the longest task that is left.

    Source: Graham, Bounds on Multiprocessing Timing Anomalies (1969).
    """
    ends = [0.0] * max(1, num_runners)
    for task in sorted(seconds, reverse=True):
        heapq.heappush(ends, heapq.heappop(ends) + task)
    return max(ends)


def is_lost(end: EpochResult | TrainingEnded) -> bool:
    """Whether the process that trained has died."""
    return isinstance(end, TrainingEnded) and end.kind == "lost"


def why_again(task: RetrainingTask, end: EpochResult | TrainingEnded) -> str:
    """Describe why a task is trained once more."""
    reason = f"{end.kind}: {end.reason}" if isinstance(end, TrainingEnded) else "no score"
    if not isinstance(task, SeedGroup):
        return f"trial {task.number} is trained again: {reason}"
    return f"trial {task.number}: seeds train one after another, as together they ended with {reason}"


def train_all(
    tasks: Sequence[RetrainingTask],
    executor: Executor,
    *,
    is_needed: Callable[[RetrainingTask], bool] = lambda task: True,
) -> Iterator[Ended | TrialPreparing]:
    """Run every task on some runner, and yield each one with its last epoch or the reason for its failure.

    What a task computes before its first epoch is yielded too. is_needed: asked when a runner is free for a task; one
    that is not needed is yielded as failed at once.

    Seeds that train together are yielded as one task each. If their group fails, the group is yielded with the failure,
    and each seed is then trained and yielded alone. A task whose process died is yielded as lost, tried again next,
    and then yielded once more.
    """
    work: Work[RetrainingTask, Ended | TrialPreparing] = _Retrainings(tasks, is_needed)
    yield from dispatch(work, executor)


class _Retrainings:
    """The tasks that wait for a runner, and the last epochs of those that run."""

    def __init__(self, tasks: Sequence[RetrainingTask], is_needed: Callable[[RetrainingTask], bool]) -> None:
        self._waiting = list(tasks)
        self._is_needed = is_needed
        self._last: dict[RetrainingTask, dict[int, EpochResult]] = {}

    def next_task(self, runner: int) -> Generator[Ended | TrialPreparing, None, RetrainingTask | None]:
        while self._waiting:
            task = self._waiting.pop(0)
            if self._is_needed(task):
                self._last[task] = {}
                return task
            yield task, TrainingEnded("failed", "no longer needed")
        return None

    def is_over(self) -> bool:
        return False

    def wants_next_epoch(self, task: RetrainingTask, result: EpochResult) -> bool:
        self._last[task][result.seed_index] = result
        return True

    def take_epoch(self, task: RetrainingTask, result: EpochResult) -> Iterable[Ended | TrialPreparing]:
        return ()

    def take_preparing(self, task: RetrainingTask, progress: Preparing) -> Iterable[Ended | TrialPreparing]:
        return [TrialPreparing(task.number, progress)]

    def take_lost(self, task: RetrainingTask, ended: TrainingEnded) -> Iterable[Ended | TrialPreparing]:
        self._waiting[:0] = task.tasks if isinstance(task, SeedGroup) else [task]
        return [(task, ended)]

    def take_end(self, task: RetrainingTask, ended: TrainingEnded) -> Iterable[Ended | TrialPreparing]:
        last = self._last[task]
        if isinstance(task, SeedGroup):
            if ended.kind == "finished":
                return _ends_of_seeds(task, last)
            self._waiting += task.tasks
            return [(task, ended)]
        if ended.kind == "finished":
            return [(task, last.get(0, ended))]
        return [(task, replace(ended, kind="failed") if ended.kind == "lost" else ended)]


def _ends_of_seeds(group: SeedGroup, last: Mapping[int, EpochResult]) -> Iterator[Ended]:
    """Yield each seed with its last epoch, or if it has none, with the reason: its loss was not finite."""
    for index, task in enumerate(group.tasks):
        num_epochs = last[index].epoch if index in last else 0
        if num_epochs == task.candidate.recipe.epochs:
            yield task, last[index]
        else:
            yield task, TrainingEnded("diverged", f"the loss of epoch {num_epochs + 1} is not finite")
