"""Learning curves of networks that are trained to their last epoch by the runners of a search, without stopping any."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.space_results import Run
from benchmarks.subset import Rows, SubsetTrainer
from tuner.data.dataset import ImageDataset
from tuner.deliver.intervals import Correct
from tuner.hardware import devices_for, memory_bytes
from tuner.search.dispatch import dispatch
from tuner.search.executors import Executor, local_executor
from tuner.search.study_runners import MEMORY_SHARE, place_runners
from tuner.search.tasks import SearchTask, TrainingEnded, training_seed
from tuner.training.candidate import Candidate
from tuner.training.device import choose_device
from tuner.training.engine import Engine
from tuner.training.results import EpochResult, Preparing


@dataclass(frozen=True)
class Trained:
    """How the training of a network went. correct_N: which validation images were right after the last epoch."""

    number: int
    run: Run
    correct_N: Correct | None


class CurveTrainer(SubsetTrainer):
    """Trains on given rows of the data set, and saves no weights."""

    def _save(self, *_: Any, **__: Any) -> None:
        return


BEGIN_SHARE = 5 / 6
"""Share of the time limit in which tasks may begin, so that most of those that began can also end."""


class Curves:
    """The work of `dispatch`: tasks in their order, each trained to its last epoch if the time suffices."""

    def __init__(self, tasks: Sequence[SearchTask], *, seconds: float, clock: Callable[[], float]) -> None:
        self._waiting, self._clock, self._started, self._seconds = list(tasks), clock, clock(), seconds
        self._results: dict[int, list[EpochResult]] = {}

    def next_task(self, runner: int) -> Generator[Trained, None, SearchTask | None]:
        """Return the next task, unless it is too late to begin."""
        yield from ()
        if not self._waiting or self._is_after(BEGIN_SHARE * self._seconds):
            return None
        task = self._waiting.pop(0)
        self._results[task.number] = []
        return task

    def is_over(self) -> bool:
        """Whether the time limit is reached; tasks that still train are stopped then."""
        return self._is_after(self._seconds)

    def _is_after(self, seconds: float) -> bool:
        return self._clock() - self._started >= seconds

    def wants_next_epoch(self, task: SearchTask, result: EpochResult) -> bool:
        """Train to the last epoch."""
        self._results[task.number].append(result)
        return True

    def take_epoch(self, task: SearchTask, result: EpochResult) -> Iterator[Trained]:
        """Report nothing before the end."""
        yield from ()

    def take_preparing(self, task: SearchTask, progress: Preparing) -> Iterator[Trained]:
        """Report nothing before the end."""
        yield from ()

    def take_lost(self, task: SearchTask, ended: TrainingEnded) -> Iterator[Trained]:
        """Train the task once more, next."""
        yield from ()
        self._waiting.insert(0, task)

    def take_end(self, task: SearchTask, ended: TrainingEnded) -> Iterator[Trained]:
        """Report the curve."""
        results = self._results[task.number]
        curve = tuple(result.validation_accuracy for result in results)
        run = Run(ended.kind, ended.reason, curve, sum(result.seconds for result in results))
        yield Trained(task.number, run, results[-1].correct_N if results else None)


@dataclass(frozen=True)
class Runners:
    """The runners of a search on this machine. step_bytes: memory of each for training."""

    executor: Executor
    engine: Engine
    step_bytes: float


@contextmanager
def open_runners(images: ImageDataset, rows: Rows, *, work: Path, workers: int | None) -> Iterator[Runners]:
    """Measure the engine, if this was not done before, and yield as many runners and threads as a search has.

    work: a folder for what runners might write. workers: number of runners; None for as many as the devices can have.
    Raises DeviceError.
    """
    device = choose_device("auto")
    places = place_runners(devices_for(device, is_auto=True), images, workers=workers)
    trainers = [
        CurveTrainer(
            images.folder,
            "spaces",
            work,
            0,
            replace(_engine_on(place, places.measured.by_device[place].engine), num_threads=places.engine.num_threads),
            image_bytes=places.image_bytes,
            rows=rows,
        )
        for place in places.devices
    ]
    step_bytes = min(memory_bytes(place) * MEMORY_SHARE / places.devices.count(place) for place in places.devices)
    with local_executor(trainers, apart=device.type == "cuda") as executor:
        yield Runners(executor, trainers[0].engine, step_bytes)


def train_curves(
    candidates: Sequence[tuple[Candidate, int]],
    executor: Executor,
    *,
    seconds: float = float("inf"),
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Trained]:
    """Train candidates, each with the seed of a study, and yield each one as it ends; its number is its position.

    seconds: time limit. Candidates that have not begun in BEGIN_SHARE of it, or not ended at its end, are missing.
    """
    tasks = [
        SearchTask(number, candidate, training_seed(seed, candidate))
        for number, (candidate, seed) in enumerate(candidates)
    ]
    yield from dispatch(Curves(tasks, seconds=seconds, clock=clock), executor)


def _engine_on(device: torch.device, engine: Engine) -> Engine:
    return replace(engine, device=str(device))
