"""Confirmations whose seeds train together: the same trainings as apart, none lost and none twice; then real digits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.deliver.rehearsed import Opened, confirming
from tests.search.rehearsal import Rehearsal, rehearse
from tuner.architecture.cost import network_cost
from tuner.architecture.trace import trace
from tuner.deliver.confirm import Confirmed, ConfirmEvent
from tuner.deliver.retraining import ConfirmProgress, group_seeds
from tuner.errors import StudyError
from tuner.options import RunOptions
from tuner.pipeline import run_events
from tuner.search.tasks import AllImagesTask, FreshSplitTask, SeedGroup, SingleTask, TrialTask
from tuner.training.engine_measurement import load_or_measure
from tuner.training.results import EpochResult


class Recorder:
    """A trainer that trains seeds together; some diverge, and some trials can only be trained apart."""

    def __init__(self, *, diverging: int | None = None, only_apart: tuple[int, ...] = ()) -> None:
        self.diverging, self.only_apart = diverging, only_apart
        self.tasks: list[TrialTask] = []

    def __call__(self, task: TrialTask) -> Iterator[EpochResult]:
        self.tasks.append(task)
        if isinstance(task, SeedGroup) and task.number in self.only_apart:
            raise MemoryError("too much at once")
        for result in rehearse(task):
            for index, one in enumerate(singles(task)):
                if one.seed != self.diverging:
                    yield replace(result, seed_index=index)

    def of_kind(self, kind: type[SingleTask]) -> list[TrialTask]:
        return [task for task in self.tasks if isinstance(singles(task)[0], kind)]

    def trained(self, kind: type[SingleTask]) -> Counter[tuple[int, int]]:
        """How often each trial was trained with each seed, in whatever company."""
        wanted = self.of_kind(kind)
        wanted = [task for task in wanted if not (isinstance(task, SeedGroup) and task.number in self.only_apart)]
        return Counter((one.number, one.seed) for task in wanted for one in singles(task))


def singles(task: TrialTask) -> Sequence[SingleTask]:
    return task.tasks if isinstance(task, SeedGroup) else (task,)


def trained_together(rehearsal: Rehearsal, trainer: Recorder, *, together_bytes: float = 1e12) -> list[ConfirmEvent]:
    """A confirmation of three seeds that ends where the test set would be opened."""
    events: list[ConfirmEvent] = []
    with pytest.raises(Opened):
        events.extend(confirming(rehearsal, trainer, num_validation=1, together_bytes=together_bytes))
    return events


def whats(events: list[ConfirmEvent]) -> list[str]:
    return [event.what for event in events if isinstance(event, ConfirmProgress)]


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    rehearsal = Rehearsal(tmp_path_factory.mktemp("rehearsal"))
    rehearsal.run(12)
    return rehearsal


def test_the_same_trainings_are_done_together_as_apart_and_each_counts_once(rehearsal: Rehearsal) -> None:
    apart, together = Recorder(), Recorder()
    events_apart = trained_together(rehearsal, apart, together_bytes=0)
    events_together = trained_together(rehearsal, together)
    for kind in (FreshSplitTask, AllImagesTask):
        assert together.trained(kind) == apart.trained(kind)
        assert set(together.trained(kind).values()) == {1}
    assert sorted(whats(events_together)) == sorted(whats(events_apart))
    assert events_together[-1] == replace(events_apart[-1], what=events_together[-1].what)  # type: ignore[arg-type]
    assert not any(isinstance(task, SeedGroup) for task in apart.tasks)
    assert [len(singles(task)) for task in together.of_kind(FreshSplitTask)] == [2] * 4 + [1] * 4
    assert [len(singles(task)) for task in together.of_kind(AllImagesTask)] == [3, 3]


def test_seeds_that_cannot_train_together_are_trained_apart_and_it_is_said(rehearsal: Rehearsal) -> None:
    recorder = Recorder(only_apart=(0,))
    events = trained_together(rehearsal, recorder)
    assert recorder.trained(FreshSplitTask) == Counter(dict.fromkeys(recorder.trained(FreshSplitTask), 1))
    assert {seed for number, seed in recorder.trained(FreshSplitTask) if number == 0} == {
        seed for _, seed in recorder.trained(FreshSplitTask)
    }
    (said,) = {what for what in whats(events) if "one after another" in what}
    assert said.startswith("trial 0: ")
    assert "too much at once" in said


def test_one_diverging_seed_puts_its_trial_out_of_the_race_for_that_reason(rehearsal: Rehearsal) -> None:
    first = Recorder()
    trained_together(rehearsal, first)
    last_seed = next(task.tasks[-1].seed for task in first.tasks if isinstance(task, SeedGroup))
    with pytest.raises(StudyError, match="no candidate could be trained again"):
        list(confirming(rehearsal, Recorder(diverging=last_seed), num_validation=1, together_bytes=1e12))


def tasks_of(rehearsal: Rehearsal, *, num_trials: int, num_seeds: int) -> list[FreshSplitTask]:
    trials = rehearsal.record().trials()[:num_trials]
    return [
        FreshSplitTask(trial.number, trial.candidate, seed, split_seed=seed)
        for seed in range(num_seeds)
        for trial in trials
    ]


@pytest.mark.parametrize(
    ("num_trials", "num_runners", "sizes"),
    [(2, 1, [3, 3]), (2, 2, [3, 3]), (1, 2, [2, 1]), (2, 3, [2, 1, 2, 1]), (2, 8, [1] * 6), (1, 1, [3])],
)
def test_seeds_share_a_task_as_far_as_no_runner_is_left_without_one(
    rehearsal: Rehearsal, num_trials: int, num_runners: int, sizes: list[int]
) -> None:
    groups = group_seeds(tasks_of(rehearsal, num_trials=num_trials, num_seeds=3), num_runners, 1e12)
    assert [len(singles(group)) for group in groups] == sizes


@pytest.mark.parametrize(("num_runners", "sizes"), [(1, [2, 2]), (2, [1, 1, 1, 1])])
def test_seeds_share_no_task_where_one_runner_would_then_have_nearly_all_of_the_work(
    rehearsal: Rehearsal, num_runners: int, sizes: list[int]
) -> None:
    tasks = tasks_of(rehearsal, num_trials=2, num_seeds=2)
    longest = replace(tasks[0].candidate, recipe=replace(tasks[0].candidate.recipe, epochs=500))
    tasks = [replace(task, candidate=longest) if task.number == tasks[0].number else task for task in tasks]
    assert [len(singles(group)) for group in group_seeds(tasks, num_runners, 1e12)] == sizes


def test_seeds_share_a_task_as_far_as_memory_goes(rehearsal: Rehearsal) -> None:
    tasks = tasks_of(rehearsal, num_trials=1, num_seeds=3)
    candidate = tasks[0].candidate
    each = network_cost(trace(candidate.architecture)).training_bytes(candidate.recipe.batch_size)
    sizes = {
        share: [len(singles(group)) for group in group_seeds(tasks, 1, share * each)] for share in (0, 1.9, 2, 2.9, 3)
    }
    assert sizes == {0: [1, 1, 1], 1.9: [1, 1, 1], 2: [2, 1], 2.9: [2, 1], 3: [3]}
    assert group_seeds(tasks, 1, 0) == tasks


TINY = """
[network]
num_blocks = 1
[block]
out_channels = { low = 4, high = 16, step = 4 }
normalization = "batch"
[recipe]
learning_rate = { low = 1e-3, high = 1e-2, log = true }
"""


@pytest.mark.slow
def test_real_digits_are_confirmed_together_as_they_are_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without dropout the seeds learn the same either way, but for rounding."""
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    found = []
    for is_together in (False, True):

        def forced(*arguments: object, is_together: bool = is_together, **options: object) -> object:
            measured = load_or_measure(*arguments, **options)  # type: ignore[arg-type]
            engine = replace(measured.engine, precision="fp32", seeds_together=is_together)
            return replace(measured, engine=engine)

        monkeypatch.setattr("tuner.search.devices.load_or_measure", forced)
        options = RunOptions(
            space=str(tmp_path / "tiny.toml"),
            studies=tmp_path / str(is_together),
            trials=3,
            epochs=2,
            workers=1,
            device="cpu",
            confirm="in full",
        )
        *_, last = run_events(options)
        assert isinstance(last, Confirmed)
        found.append(last.confirmation)
    apart, together = found
    assert (together.number, together.seeds) == (apart.number, apart.seeds)
    assert together.test_accuracy == pytest.approx(apart.test_accuracy, abs=0.01)
    assert together.validation_mean == pytest.approx(apart.validation_mean, abs=0.01)
    for one, other in zip(together.candidates, apart.candidates, strict=True):
        known = other.validation_accuracies  # fewer, where one was dropped between two seeds
        assert one.number == other.number
        assert one.validation_accuracies[: len(known)] == pytest.approx(known, abs=0.02)
