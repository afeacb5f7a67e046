"""dispatch(work, executor): the loop that keeps runners busy: start, next epoch, answers, lost tasks, retries."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Protocol, TypeVar

from tuner.search.executors import Executor
from tuner.search.tasks import TrainingEnded, TrialTask
from tuner.training.results import EpochResult

WAIT_SECONDS = 0.5

Task = TypeVar("Task", bound=TrialTask)
Event = TypeVar("Event")
Event_co = TypeVar("Event_co", covariant=True)


class Work(Protocol[Task, Event_co]):
    """What is to be trained, and what follows from each answer. What its methods yield, `dispatch` yields."""

    def next_task(self, runner: int) -> Generator[Event_co, None, Task | None]:
        """The next task, for a runner that is free; None as long as there is none."""

    def is_over(self) -> bool:
        """Whether to end now, whatever still runs; asked after every free runner was offered a task."""

    def wants_next_epoch(self, task: Task, result: EpochResult) -> bool:
        """Whether a task continues after an epoch; decided at once, so that its runner does not wait."""

    def take_epoch(self, task: Task, result: EpochResult) -> Iterable[Event_co]:
        """What follows from an epoch; its runner is already busy with the next one, or free."""

    def take_lost(self, task: Task, ended: TrainingEnded) -> Iterable[Event_co]:
        """What follows when the process of a task dies for the first time: `next_task` should give it once more."""

    def take_end(self, task: Task, ended: TrainingEnded) -> Iterable[Event_co]:
        """What follows from the end of a training; one that is lost for the second time ends like this, too."""


def dispatch(work: Work[Task, Event], executor: Executor) -> Generator[Event]:
    """Give tasks to the runners until there are none left, or the work is over; yield the events of the work.

    However it ends, no task is left on a runner.
    """
    running: dict[int, Task] = {}
    lost: list[Task] = []
    try:
        while True:
            for runner in range(executor.num_runners):
                if runner in running:
                    continue
                task = yield from work.next_task(runner)
                if task is not None:
                    running[runner] = task
                    executor.start(runner, task)
            if work.is_over() or not running:
                return
            for runner, answer in executor.answers(WAIT_SECONDS):
                if runner not in running:
                    continue
                task = running[runner]
                if isinstance(answer, EpochResult):
                    if work.wants_next_epoch(task, answer):
                        executor.next_epoch(runner)
                    else:
                        executor.stop(runner)
                        del running[runner]
                    yield from work.take_epoch(task, answer)
                    continue
                del running[runner]
                if answer.kind == "lost" and task not in lost:
                    lost.append(task)
                    yield from work.take_lost(task, answer)
                else:
                    yield from work.take_end(task, answer)
    finally:
        for runner in running:
            executor.stop(runner)
