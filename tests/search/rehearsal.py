"""A search without training: real coordinator, real storage, and curves that are a plain function of the candidate."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.strategies import make_space
from tuner.architecture.spec import InputSpec
from tuner.search.coordinator import search
from tuner.search.events import SearchEvent, TrialEnded
from tuner.search.executors import Answer, InProcess
from tuner.search.record import StudyRecord
from tuner.search.search_plan import SearchPlan
from tuner.search.settings import StudySettings
from tuner.search.storage import open_storage
from tuner.search.study_files import checkpoint_path
from tuner.search.study_lookup import open_study
from tuner.search.tasks import TrainingEnded, TrialTask
from tuner.search.trial_runner import Trainer
from tuner.training.engine import Engine
from tuner.training.results import EpochResult

DIGITS = InputSpec(1, 8, 8, 10)
EPOCHS = 6
SPACE = make_space(
    name="tiny",
    network={"num_blocks": [1, 2, 3]},
    block={"out_channels": {"low": 2, "high": 32}, "kernel_size": [3, 5], "dropout": {"low": 0.0, "high": 0.4}},
    recipe={"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
    first=[{"block": [{"out_channels": 8}], "recipe": {"learning_rate": 1e-3}}],
)
FINITE_SPACE = make_space(name="finite", block={"out_channels": [4, 8, 16]}, first=[{"block": [{}, {}]}])
SETTINGS = StudySettings("digits", "d", space_name="tiny", space={}, seed=0, epochs=EPOCHS)


def curve_of(task: TrialTask) -> list[float]:
    """Accuracy by epoch: rises to a height that the candidate decides, and falls a little at the end."""
    recipe, blocks = task.candidate.recipe, task.candidate.architecture.blocks
    height = 0.95 - 0.15 * abs(math.log10(recipe.learning_rate) + 2) - 0.4 * blocks[0].dropout - 0.1 / len(blocks)
    rising = [height * (1 - 0.5**epoch) for epoch in range(1, recipe.epochs)]
    return [*rising, rising[-1] - 0.01]


def rehearse(task: TrialTask) -> Iterator[EpochResult]:
    """Train nothing."""
    for epoch, accuracy in enumerate(curve_of(task), start=1):
        yield EpochResult(epoch, 1 - accuracy, 1 - accuracy, accuracy, 0.0)


def ends_with(error: BaseException, *, after: int = 0) -> Trainer:
    """A trainer in which something goes wrong after so many epochs."""

    def train(task: TrialTask) -> Iterator[EpochResult]:
        for result in rehearse(task):
            if result.epoch > after:
                raise error
            yield result

    return train


def writes_checkpoints(folder: Path) -> Trainer:
    """A trainer that leaves a file a trial, as the real one does."""

    def train(task: TrialTask) -> Iterator[EpochResult]:
        for result in rehearse(task):
            path = checkpoint_path(folder, task.number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(result.epoch))
            yield result

    return train


class Losing(InProcess):
    """An executor whose process "dies" the first few times that it has trained an epoch of a certain trial."""

    def __init__(self, trainer: Trainer, number: int, *, times: int) -> None:
        super().__init__(trainer)
        self._number, self._times = number, times

    def start(self, runner: int, task: TrialTask) -> None:
        self._task = task
        super().start(runner, task)

    def answers(self, timeout: float) -> list[tuple[int, Answer]]:
        answered = super().answers(timeout)
        if answered and self._times and self._task.number == self._number:
            self._times -= 1
            return [(0, TrainingEnded("lost", "the process of runner 0 died (exit code -9)"))]
        return answered


@dataclass
class Rehearsal:
    """A study in a folder, opened again for every run, as a new process would open it."""

    folder: Path
    space: Any = SPACE
    name: str = "rehearsal"

    @property
    def study_folder(self) -> Path:
        return self.folder / self.name

    @property
    def url(self) -> str:
        return f"sqlite:///{(self.folder / 'tuner.db').as_posix()}"

    def record(self) -> StudyRecord:
        return open_study(open_storage(self.url), self.name, SETTINGS, engine=Engine("cpu"))

    def plan(self, num_trials: int | None, **options: Any) -> SearchPlan:
        defaults = {"epochs": EPOCHS, "seed": 0, "study_folder": self.study_folder}
        return SearchPlan(self.space, DIGITS, num_trials=num_trials, **{**defaults, **options})

    def run(
        self,
        num_trials: int | None,
        *,
        trainer: Trainer = rehearse,
        until: Callable[[SearchEvent], bool] = lambda event: False,
        clock: Callable[[], float] = lambda: 0.0,
        **options: Any,
    ) -> list[SearchEvent]:
        """Run or top up; closed after the first event for which `until` is true."""
        events: list[SearchEvent] = []
        running = search(self.record(), self.plan(num_trials, **options), InProcess(trainer), clock=clock)
        for event in running:
            events.append(event)
            if until(event):
                running.close()
                break
        return events

    def outcome(self) -> list[tuple[Any, ...]]:
        """Everything of every trial that must not depend on when it was run."""
        return [
            (trial.number, trial.state, trial.outcome, trial.reason, trial.params, trial.curve, trial.candidate)
            for trial in self.record().trials()
        ]


def ended(events: list[SearchEvent]) -> list[TrialEnded]:
    return [event for event in events if isinstance(event, TrialEnded)]
