"""The loop that keeps runners busy: starts, next epochs, answers, lost tasks and retries."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Protocol, TypeVar

from tuner.search.executors import Executor
from tuner.search.tasks import TrainingEnded, TrialTask
from tuner.training.results import EpochResult, Preparing

WAIT_SECONDS = 0.5

Task = TypeVar("Task", bound=TrialTask)
Event = TypeVar("Event")
Event_co = TypeVar("Event_co", covariant=True)


class Work(Protocol[Task, Event_co]):
    """The tasks to train, and what to do after each answer. `dispatch` yields what the methods yield."""

    def next_task(self, runner: int) -> Generator[Event_co, None, Task | None]:
        """Return the next task for a free runner; None while there is none."""

    def is_over(self) -> bool:
        """Whether to end now, even if tasks are running; called after every free runner was offered a task."""

    def wants_next_epoch(self, task: Task, result: EpochResult) -> bool:
        """Whether a task continues after an epoch; decided at once, so that its runner does not wait."""

    def take_epoch(self, task: Task, result: EpochResult) -> Iterable[Event_co]:
        """Process an epoch; its runner already works on the next one, or is free."""

    def take_preparing(self, task: Task, progress: Preparing) -> Iterable[Event_co]:
        """Process the progress of a task before its first epoch; its runner already continues."""

    def take_lost(self, task: Task, ended: TrainingEnded) -> Iterable[Event_co]:
        """Process the first death of a task's process: `next_task` should return the task once more."""

    def take_end(self, task: Task, ended: TrainingEnded) -> Iterable[Event_co]:
        """Process the end of training; a task that is lost for the second time ends in this way, too."""


def dispatch(work: Work[Task, Event], executor: Executor) -> Generator[Event]:
    """Give tasks to the runners until none are left or the work is over; yield the events of the work.

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
                if isinstance(answer, Preparing):
                    executor.next_epoch(runner)
                    yield from work.take_preparing(task, answer)
                    continue
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
