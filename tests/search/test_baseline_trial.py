"""The baseline of a search: its first trial, made to fit, never stopped, and known again when the search is resumed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.search.rehearsal import DIGITS, EPOCHS, Rehearsal, ended, rehearse
from tests.strategies import make_space
from tuner.architecture.cost import network_cost
from tuner.architecture.trace import trace
from tuner.search.coordinator import search
from tuner.search.events import BaselineChosen, GivenChanged, TrialEnded
from tuner.search.tasks import TrainingEnded, TrialTask
from tuner.search.trial_record import TrialRecord
from tuner.space.baseline import baselines
from tuner.space.sampling import first_params
from tuner.training.results import EpochResult

WITH_BATCHES = make_space(
    name="batches",
    block={"out_channels": [8, 16], "dropout": {"low": 0.0, "high": 0.4}},
    recipe={"batch_size": [64, 32], "learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
    first=[
        {"block": [{}, {}], "recipe": {"batch_size": 64, "learning_rate": 1e-2}},
        {"block": [{"dropout": 0.1}, {}], "recipe": {"learning_rate": 1e-2}},
    ],
)


def bytes_with(batch_size: int) -> float:
    """What the first configuration takes with such batches."""
    (found,) = [
        one.candidate
        for one in baselines(WITH_BATCHES, DIGITS, epochs=EPOCHS)
        if one.candidate.recipe.batch_size == batch_size and one.candidate.architecture.blocks[0].out_channels == 8
    ]
    return network_cost(trace(found.architecture)).training_bytes(batch_size)


def trial(study: Rehearsal, number: int) -> TrialRecord:
    return study.record().trials()[number]


def poor(task: TrialTask) -> Iterator[EpochResult]:
    """The baseline is worse than everything else, in every epoch."""
    for result in rehearse(task):
        accuracy = 0.01 * result.epoch if task.number == 0 else result.validation_accuracy
        yield replace(result, validation_accuracy=accuracy)


class FirstIsSlow:
    """Two runners in this process; the one with trial 0 answers only when nothing else is left to do."""

    num_runners = 2

    def __init__(self) -> None:
        self._epochs: dict[int, Iterator[EpochResult]] = {}
        self._asked: list[int] = []
        self._slow: int | None = None

    def start(self, runner: int, task: TrialTask) -> None:
        self._epochs[runner] = poor(task)
        self._slow = runner if task.number == 0 else self._slow
        self._asked.append(runner)

    def next_epoch(self, runner: int) -> None:
        self._asked.append(runner)

    def stop(self, runner: int) -> None:
        self._asked = [one for one in self._asked if one != runner]

    def close(self) -> None:
        """Nothing to end."""

    def answers(self, timeout: float) -> list[tuple[int, Any]]:
        quick = [runner for runner in self._asked if runner != self._slow]
        runner = (quick or self._asked)[0]
        self._asked.remove(runner)
        return [(runner, next(self._epochs[runner], TrainingEnded("finished")))]


def test_the_baseline_is_never_stopped_by_trials_that_have_passed_it_on_another_runner(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path)
    events = list(search(study.record(), study.plan(8), FirstIsSlow()))
    last = ended(events)[-1]
    assert (last.number, last.outcome, last.num_epochs) == (0, "complete", EPOCHS)
    assert trial(study, 0).baseline == {"origin": "space", "changes": []}


@pytest.mark.slow
def test_a_baseline_that_does_not_fit_gets_a_smaller_batch_and_that_is_reported(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path, space=WITH_BATCHES)
    events = study.run(3, memory_bytes=bytes_with(32))
    (chosen,) = [event for event in events if isinstance(event, BaselineChosen)]
    assert chosen.number == 0
    assert "batch_size 32 instead of 64" in chosen.description
    baseline = trial(study, 0)
    assert baseline.candidate.recipe.batch_size == 32
    assert baseline.params["batch_size"] == 32
    assert baseline.outcome == "complete"
    assert [tuple(one.params.items()) for one in study.record().trials()].count(tuple(baseline.params.items())) == 1


def test_a_given_configuration_that_does_not_fit_gets_a_smaller_batch_once_and_that_is_reported(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path, space=WITH_BATCHES)
    enough = bytes_with(32) * 1.5
    events = [*study.run(2, memory_bytes=enough), *study.run(5, memory_bytes=enough)]
    (changed,) = [event for event in events if isinstance(event, GivenChanged)]
    assert changed.number == 1
    assert "batch_size 32 instead of 64 and learning_rate" in changed.changes
    given, params = first_params(WITH_BATCHES)[1], dict(trial(study, 1).params)
    assert given | {name: params[name] for name in ("batch_size", "learning_rate")} == params
    assert params["batch_size"] == 32
    assert params["learning_rate"] == pytest.approx(given["learning_rate"] * 0.5**0.5)
    assert trial(study, 1).outcome != "rejected"


@pytest.mark.slow
def test_a_baseline_outside_the_space_has_no_parameters_and_the_sampler_does_not_see_it(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path, space=WITH_BATCHES)
    study.run(14, memory_bytes=bytes_with(16))
    baseline = trial(study, 0)
    assert baseline.candidate.recipe.batch_size == 16
    assert dict(baseline.params) == {}
    assert baseline.outcome == "complete"
    others = [one for one in study.record().trials() if one.number]
    assert all(len(one.params) == len(others[0].params) > 0 for one in others)
    assert dict(others[0].params) == first_params(WITH_BATCHES)[1]
    loaded = optuna.load_study(study_name=study.name, storage=study.url)
    assert loaded.trials[0].distributions == {}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """A search that was never interrupted."""
    whole = Rehearsal(tmp_path_factory.mktemp("whole"), space=WITH_BATCHES)
    whole.run(9, memory_bytes=bytes_with(16))
    return whole


@pytest.mark.slow
@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_resumed_search_knows_its_baseline_again(whole: Rehearsal, tmp_path: Path, cut: int) -> None:
    resumed = Rehearsal(tmp_path, space=WITH_BATCHES)
    resumed.run(cut, memory_bytes=bytes_with(16))
    resumed.run(9, memory_bytes=bytes_with(16))
    assert resumed.outcome() == whole.outcome()
    assert [one.number for one in resumed.record().trials() if one.baseline] == [0]


def test_a_baseline_that_runs_out_of_memory_after_all_is_followed_by_a_smaller_one(tmp_path: Path) -> None:
    def short(task: TrialTask) -> Iterator[EpochResult]:
        if task.candidate.recipe.batch_size > 16:
            raise MemoryError("no room")
        yield from rehearse(task)

    in_one_go, resumed = (
        Rehearsal(tmp_path / "whole", space=WITH_BATCHES),
        Rehearsal(tmp_path / "cut", space=WITH_BATCHES),
    )
    for one in (in_one_go, resumed):
        one.folder.mkdir()
    in_one_go.run(1, trainer=short)
    resumed.run(1, trainer=short, until=lambda event: isinstance(event, TrialEnded))
    resumed.run(1, trainer=short)
    for one in (in_one_go, resumed):
        found = [(each.candidate.recipe.batch_size, each.outcome) for each in one.record().trials()]
        assert found == [(64, "rejected"), (32, "rejected"), (16, "complete")]
        assert all(each.baseline for each in one.record().trials())


def test_a_space_without_a_first_configuration_begins_with_the_default_of_its_family(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path, space=make_space(name="none", block={"out_channels": [4, 8]}))
    events = study.run(2)
    (chosen,) = [event for event in events if isinstance(event, BaselineChosen)]
    assert chosen.description == "the default configuration of its family"
    baseline = trial(study, 0)
    assert baseline.baseline == {"origin": "family", "changes": []}
    assert [block.out_channels for block in baseline.candidate.architecture.blocks] == [32, 64]
