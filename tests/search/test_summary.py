import json
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from rehearsal import FINITE_SPACE, Rehearsal, ends_with, rehearse, writes_checkpoints

from tuner.search.events import EpochFinished, SearchEvent
from tuner.search.summary import summarise
from tuner.search.tasks import TrialTask
from tuner.training.results import Diverged, EpochResult


def test_an_empty_study_has_no_best(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path)
    summary = summarise(study.record(), studies=tmp_path)
    assert (summary.best, summary.checkpoint, summary.num_counted) == (None, None, 0)
    assert summary.to_json()["best"] is None
    assert set(summary.counts.values()) == {0}


def test_outcomes_are_counted_apart(tmp_path: Path) -> None:
    def mixed(task: TrialTask) -> Iterator[EpochResult]:
        if task.number == 1:
            return ends_with(ValueError("bad"))(task)
        if task.number == 2:
            return ends_with(Diverged("nan"), after=1)(task)
        return rehearse(task)

    def is_half_way(event: SearchEvent) -> bool:
        return isinstance(event, EpochFinished) and event.number == 4

    study = Rehearsal(tmp_path)
    study.run(9, trainer=mixed, until=is_half_way)
    summary = summarise(study.record(), studies=tmp_path)
    expected = {"complete": 2, "pruned": 1, "failed": 1, "rejected": 0, "repeated": 0, "running": 0, "waiting": 1}
    assert summary.counts == expected
    assert summary.num_counted == 3
    assert summary.to_json()["trials"] == {"counted": 3, **expected}


def test_repeated_trials_are_counted_apart(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path, space=FINITE_SPACE)
    study.run(6)
    summary = summarise(study.record(), studies=tmp_path)
    assert summary.num_counted == 6
    assert summary.counts["repeated"] == len(study.record().trials()) - 6 > 0


def test_the_summary_is_plain_json_with_what_the_issue_names(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path)
    study.run(6, trainer=writes_checkpoints(study.study_folder))
    summary = summarise(study.record(), studies=tmp_path)
    data = json.loads(json.dumps(summary.to_json()))
    assert data.keys() >= {"study", "dataset", "trials", "best"}
    assert (data["study"], data["dataset"], data["space"]) == ("rehearsal", "digits", "tiny")
    assert data["best"].keys() >= {"number", "validation_accuracy", "num_parameters", "params", "checkpoint"}
    best = optuna.load_study(study_name=study.name, storage=study.url).best_trial
    assert data["best"]["number"] == best.number
    assert data["best"]["validation_accuracy"] == best.value
    assert data["best"]["params"] == best.params
    assert Path(data["best"]["checkpoint"]).is_file()


def test_a_checkpoint_that_is_gone_is_not_named(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path)
    study.run(2)
    summary = summarise(study.record(), studies=tmp_path)
    assert summary.best is not None
    assert summary.checkpoint is None
    assert summary.to_json()["best"]["checkpoint"] is None


@pytest.mark.parametrize("num_trials", [4, 12])
def test_of_equal_trials_the_first_is_the_best_as_optuna_has_it(tmp_path: Path, num_trials: int) -> None:
    def all_alike(task: TrialTask) -> Iterator[EpochResult]:
        for epoch in (1, 2):
            yield EpochResult(epoch, 0.5, 0.5, 0.1 if task.number == 0 else 0.75, 0.0)

    study = Rehearsal(tmp_path)
    study.run(num_trials, trainer=all_alike)
    summary = summarise(study.record(), studies=tmp_path)
    assert summary.best is not None
    assert summary.best.number == 1
    assert optuna.load_study(study_name=study.name, storage=study.url).best_trial.number == 1
