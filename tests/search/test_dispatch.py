"""The loop that serves the search and the confirmation, with work of a few tasks in this process."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from rehearsal import DIGITS, EPOCHS, SPACE, Losing, ends_with, rehearse

from tuner.search.dispatch import dispatch
from tuner.search.executors import Executor, InProcess
from tuner.search.tasks import SearchTask, TrainingEnded
from tuner.space.sampling import candidate_from, first_params
from tuner.training.results import Diverged, EpochResult, Preparing

CANDIDATE = candidate_from(first_params(SPACE)[0], SPACE, DIGITS, epochs=EPOCHS)
TASKS = [SearchTask(number, CANDIDATE, seed=number) for number in range(3)]
Event = tuple[int, str]


class Tasks:
    """Three tasks that are trained to their ends, but for those that are stopped after an epoch."""

    def __init__(self, *, stopped: tuple[int, ...] = (), over_after: int = 99) -> None:
        self.waiting, self.stopped, self.over_after = list(TASKS), stopped, over_after
        self.num_epochs = 0

    def next_task(self, runner: int) -> Generator[Event, None, SearchTask | None]:
        if not self.waiting:
            return None
        yield self.waiting[0].number, "start"
        return self.waiting.pop(0)

    def is_over(self) -> bool:
        return self.num_epochs >= self.over_after

    def wants_next_epoch(self, task: SearchTask, result: EpochResult) -> bool:
        self.num_epochs += 1
        return task.number not in self.stopped

    def take_epoch(self, task: SearchTask, result: EpochResult) -> Iterable[Event]:
        return [(task.number, f"epoch {result.epoch}")]

    def take_preparing(self, task: SearchTask, progress: Preparing) -> Iterable[Event]:
        return [(task.number, f"{progress.what} {progress.done}/{progress.total}")]

    def take_lost(self, task: SearchTask, ended: TrainingEnded) -> Iterable[Event]:
        self.waiting.append(task)
        return [(task.number, "lost")]

    def take_end(self, task: SearchTask, ended: TrainingEnded) -> Iterable[Event]:
        return [(task.number, ended.kind)]


def whole(number: int, end: str = "finished") -> list[Event]:
    return [(number, "start"), *((number, f"epoch {epoch}") for epoch in range(1, EPOCHS + 1)), (number, end)]


def prepares(task: SearchTask) -> Iterator[EpochResult | Preparing]:
    """A trainer that computes features of two images before it trains."""
    yield from (Preparing("features", done, 2) for done in (1, 2))
    yield from rehearse(task)


def prepared(number: int) -> list[Event]:
    start, *others = whole(number)
    return [start, (number, "features 1/2"), (number, "features 2/2"), *others]


LOST, STOPPED = [(1, "start"), (1, "lost")], [(1, "start"), (1, "epoch 1")]


@pytest.mark.parametrize(
    ("work", "executor", "expected"),
    [
        (Tasks(), InProcess(rehearse), [*whole(0), *whole(1), *whole(2)]),
        (Tasks(), InProcess(prepares), [event for number in range(3) for event in prepared(number)]),
        (Tasks(stopped=(1,)), InProcess(rehearse), [*whole(0), *STOPPED, *whole(2)]),
        (Tasks(), Losing(rehearse, 1, times=1), [*whole(0), *LOST, *whole(2), *whole(1)]),
        (Tasks(), Losing(rehearse, 1, times=2), [*whole(0), *LOST, *whole(2), *LOST]),
        (Tasks(over_after=EPOCHS + 1), InProcess(rehearse), [*whole(0), *STOPPED]),
        (
            Tasks(),
            InProcess(ends_with(Diverged("nan"), after=0)),
            [event for number in range(3) for event in [(number, "start"), (number, "diverged")]],
        ),
    ],
    ids=["to the end", "prepared", "stopped", "lost once", "lost twice", "over", "diverged"],
)
def test_each_task_is_started_once_and_once_more_if_it_is_lost(
    work: Tasks, executor: Executor, expected: list[Event]
) -> None:
    assert list(dispatch(work, executor)) == expected
    assert executor.answers(0.0) == []


def test_closing_the_loop_leaves_no_task_on_a_runner() -> None:
    executor = InProcess(rehearse)
    with closing(dispatch(Tasks(), executor)) as events:
        assert [next(events), next(events)] == [(0, "start"), (0, "epoch 1")]
    assert executor.answers(0.0) == []


def test_a_closed_executor_in_this_process_has_dropped_its_trial() -> None:
    is_closed = []

    def train(task: SearchTask) -> Iterable[EpochResult]:
        try:
            yield from rehearse(task)
        finally:
            is_closed.append(task.number)

    executor = InProcess(train)
    executor.start(0, replace(TASKS[0], number=7))
    executor.answers(0.0)
    executor.next_epoch(0)
    executor.close()
    assert is_closed == [7]
    assert executor.answers(0.0) == []
