import re
import sqlite3
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial
from optuna_dashboard import get_note, save_note
from rehearsal import SETTINGS

from tests.strategies import ALL_SPACES, random_candidates
from tuner.errors import StudyError
from tuner.search.dashboard_entries import Artifact, Shown
from tuner.search.record import StudyRecord
from tuner.search.storage import Storage, open_storage
from tuner.search.study_lookup import open_study
from tuner.space.sampling import distributions, random_params
from tuner.training.engine import Engine

ENGINE = Engine("cpu")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{(tmp_path / 'tuner.db').as_posix()}"


@pytest.mark.parametrize("url", ["nonsense", "nodatabase://x", "sqlite:////no/such/folder/a.db"])
def test_a_storage_that_cannot_be_opened_is_refused_in_one_line(url: str) -> None:
    with pytest.raises(StudyError, match=re.escape(url)) as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)


def test_sqlite_is_in_write_ahead_mode_so_that_readers_never_wait(url: str, tmp_path: Path) -> None:
    open_study(open_storage(url), "a", SETTINGS, engine=ENGINE)
    with sqlite3.connect(tmp_path / "tuner.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


class OptunasOwn(RDBStorage):
    """What ours must leave in the tables: the same trial, written call by call through Optuna's public methods."""

    def begin_trial(self, study_id: int, template: FrozenTrial) -> tuple[int, int]:
        trial_id = self.create_new_trial(study_id, template)
        return trial_id, self.get_trial_number_from_id(trial_id)

    def report(self, trial_id: int, step: int, value: float) -> None:
        self.set_trial_intermediate_value(trial_id, step, value)

    def end_trial(
        self,
        trial_id: int,
        state: TrialState,
        values: list[float],
        attributes: dict[str, Any],
        *,
        system_attributes: dict[str, Any],
        study_attributes: dict[str, Any],
    ) -> None:
        for key, value in attributes.items():
            self.set_trial_user_attr(trial_id, key, value)
        for key, value in system_attributes.items():
            self.set_trial_system_attr(trial_id, key, value)
        for key, value in study_attributes.items():
            self.set_study_system_attr(1, key, value)
        self.set_trial_state_values(trial_id, state, values or None)


def read(storage: BaseStorage, study_id: int) -> list[dict[str, Any]]:
    """All that Optuna reads of the trials, but for the times."""
    times = ("datetime_start", "datetime_complete")
    trials = storage.get_all_trials(study_id)
    assert all((trial.datetime_complete is not None) == trial.state.is_finished() for trial in trials)
    assert all(trial.datetime_start is not None for trial in trials)
    return [{key: value for key, value in vars(trial).items() if key.lstrip("_") not in times} for trial in trials]


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table, but for the times."""
    connection = sqlite3.connect(path)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    rows = {}
    for name in names:
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
        kept = [column for column in columns if not column.startswith("datetime")]
        rows[name] = sorted(connection.execute(f"SELECT {', '.join(kept)} FROM {name}"), key=str)
    connection.close()
    return rows


@pytest.mark.parametrize("name", sorted(ALL_SPACES))
def test_a_trial_is_left_in_the_tables_as_optuna_itself_leaves_it(tmp_path: Path, name: str) -> None:
    import random

    space = ALL_SPACES[name]
    ours = open_storage(f"sqlite:///{(tmp_path / 'ours.db').as_posix()}")
    theirs = OptunasOwn(f"sqlite:///{(tmp_path / 'theirs.db').as_posix()}")
    seen = []
    for storage in (ours, theirs):
        record = StudyRecord(storage, storage.create_new_study([StudyDirection.MAXIMIZE], "a"), "a")  # type: ignore[arg-type]
        endings = [(TrialState.COMPLETE, 0.75), (TrialState.PRUNED, 0.5), (TrialState.FAIL, None), (None, None)]
        candidates = random_candidates(space, len(endings), seed=0)
        generator = random.Random(0)
        for candidate, (state, accuracy) in zip(candidates, endings, strict=True):
            attributes = {"num_parameters": 5, "flops": 7, "architecture": "8 k3"}
            params = random_params(space, generator)
            number = record.begin(candidate, params, distributions(space), attributes, constraint=-0.5)
            record.report(number, 1, 0.25)
            record.report(number, 2, 0.125)
            if state is None:
                record.leave(number)
            else:
                shown = Shown("a note", (Artifact("a1", "a.svg", "image/svg+xml"),), Artifact("b2", "b.pt", "x/y"))
                attributes = {"outcome": "x", "reason": "y", "seconds": 1.5}
                record.end(number, state, attributes, validation_accuracy=accuracy, shown=shown)
        seen.append(read(storage, record.study_id))
    assert seen[0] == seen[1]
    assert len(seen[0]) == 4
    assert tables(tmp_path / "ours.db") == tables(tmp_path / "theirs.db")


def test_a_report_that_an_earlier_run_has_left_is_written_over(url: str) -> None:
    storage = open_storage(url)
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "a")
    trial_id = storage.create_new_trial(study_id)
    storage.report(trial_id, 1, 0.25)
    storage.report(trial_id, 2, 0.5)
    storage.report(trial_id, 1, 0.75)
    assert storage.get_trial(trial_id).intermediate_values == {1: 0.75, 2: 0.5}


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="no time zones to choose from")
def test_the_times_of_a_trial_are_local_ones_for_whoever_reads_them(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        storage = open_storage(url)
        study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "a")
        before = datetime.now()
        template = create_trial(state=TrialState.RUNNING)
        template.datetime_start = before
        trial_id, _ = storage.begin_trial(study_id, template)
        storage.end_trial(trial_id, TrialState.PRUNED, [], {})
        stored = storage.get_trial(trial_id)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert stored.datetime_start == before
    assert stored.datetime_complete is not None
    assert before <= stored.datetime_complete <= before + timedelta(minutes=10)


def test_a_trial_that_has_ended_is_not_changed_any_more(url: str) -> None:
    storage = open_storage(url)
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "a")
    trial_id = storage.create_new_trial(study_id)
    storage.end_trial(trial_id, TrialState.PRUNED, [], {"outcome": "pruned"})
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.end_trial(trial_id, TrialState.COMPLETE, [1.0], {"outcome": "complete", "reason": "no"})
    stored = storage.get_trial(trial_id)
    assert (stored.state, stored.values, stored.user_attrs) == (TrialState.PRUNED, None, {"outcome": "pruned"})


def test_a_study_that_is_deleted_while_it_runs_is_said_to_be_gone(url: str) -> None:
    storage = open_storage(url)
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "a")
    template = create_trial(state=TrialState.RUNNING)
    trial_id, _ = storage.begin_trial(study_id, template)
    storage.delete_study(study_id)
    with pytest.raises(StudyError, match="no longer in its database"):
        storage.end_trial(trial_id, TrialState.PRUNED, [], {})
    with pytest.raises(StudyError, match="no longer in its database"):
        storage.begin_trial(study_id, template)


def test_a_note_that_somebody_wrote_while_a_trial_ran_is_left_as_it_is(url: str) -> None:
    storage = open_storage(url)
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "a")
    trial_id = storage.create_new_trial(study_id)
    study, trial = optuna.load_study(study_name="a", storage=url), optuna.trial.Trial
    assert study._study_id == study_id
    save_note(trial(study, trial_id), "mine")
    attributes = Shown("theirs").study_attributes(trial_id) | {"other": 1}
    storage.end_trial(trial_id, TrialState.PRUNED, [], {}, study_attributes=attributes)
    assert get_note(trial(study, trial_id)) == "mine"
    assert storage.get_study_system_attrs(study_id)["other"] == 1
    storage.remove_study_system_attributes(study_id, ["other", "absent"])
    assert "other" not in storage.get_study_system_attrs(study_id)


def test_a_trial_whose_end_cannot_be_written_is_left_as_it_was(url: str) -> None:
    storage = open_storage(url)
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE], "a")
    trial_id = storage.create_new_trial(study_id)
    with pytest.raises(TypeError):
        storage.end_trial(trial_id, TrialState.COMPLETE, [1.0], {"outcome": "complete", "reason": object()})
    stored = storage.get_trial(trial_id)
    assert (stored.state, stored.values, stored.user_attrs) == (TrialState.RUNNING, None, {})


def test_optuna_goes_on_with_a_study_of_ours_as_with_its_own(url: str) -> None:
    record = open_study(open_storage(url), "a", SETTINGS, engine=ENGINE)
    assert isinstance(record.storage, Storage)
    study = optuna.load_study(study_name="a", storage=url)
    study.enqueue_trial({"x": 0.25})
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    trials: list[FrozenTrial] = record.storage.get_all_trials(record.study_id)
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    assert trials[0].params == {"x": 0.25}
