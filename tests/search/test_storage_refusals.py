"""What a database refuses, before and in the middle of a search: one line, and the study goes on afterwards."""

import re
import shutil
import sqlite3
from pathlib import Path

import pytest
from rehearsal import SETTINGS, Rehearsal, ended, rehearse

from tuner.errors import StudyError
from tuner.search import storage as storage_module
from tuner.search.coordinator import search
from tuner.search.events import EpochFinished, SearchEnded
from tuner.search.executors import InProcess
from tuner.search.sqlite import connect_to_read, sqlite_file, sqlite_url
from tuner.search.storage import open_storage
from tuner.search.study_lookup import list_studies, load_study, open_study
from tuner.search.summary import summarise
from tuner.training.engine import Engine


@pytest.fixture
def study(tmp_path: Path) -> Rehearsal:
    """A study of three trials, as its process leaves it: SQLite's log is empty, and gone."""
    study = Rehearsal(tmp_path)
    record = study.record()
    assert list(search(record, study.plan(3), InProcess(rehearse)))[-1] == SearchEnded(3, "")
    record.storage.engine.dispose()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["tuner.db"]
    return study


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_study_in_memory_is_refused(url: str) -> None:
    with pytest.raises(
        StudyError, match=f"--storage {re.escape(url)}: a study in memory is lost when its process ends"
    ):
        open_storage(url)


@pytest.mark.parametrize(
    "content", [b"this is no database, but a text that is long enough to be one", b"SQLite format 3"]
)
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tuner.db").write_bytes(content)
    for existing in (False, True):
        with pytest.raises(StudyError, match="cannot be opened: file is not a database") as caught:
            open_storage(sqlite_url(tmp_path / "tuner.db"), existing=existing)
        assert "\n" not in str(caught.value)
    assert contents(tmp_path) == {"tuner.db": content}


def test_a_storage_that_must_be_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no studies in .*: start one with `tuner run`"):
        open_storage(sqlite_url(tmp_path / "tuner.db"), existing=True)
    assert list(tmp_path.iterdir()) == []


def test_the_password_of_a_server_is_not_shown() -> None:
    with pytest.raises(StudyError) as caught:
        open_storage("nodatabase://user:secret@host/name")
    assert "nodatabase://user:***@host/name" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["sqlite:///a{b}.db", "sqlite:///a{", "postgresql://host:port/name"])
def test_what_is_almost_a_url_is_refused(url: str) -> None:
    with pytest.raises(StudyError, match="not the URL of a database") as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["plain", "with space", "50%", "a{b}", "what?x=1", "a#b", "ä犬", "x%20y"])
def test_a_folder_of_any_name_can_hold_the_studies(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    open_study(open_storage(sqlite_url(folder / "tuner.db")), "a", SETTINGS, engine=Engine("cpu"))
    assert sqlite_file(open_storage(sqlite_url(folder / "tuner.db")).url) == folder / "tuner.db"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with sqlite3.connect(folder / "tuner.db") as connection:
        assert connection.execute("SELECT study_name FROM studies").fetchall() == [("a",)]
    connection.close()


def test_a_database_that_is_locked_in_the_middle_of_a_search_ends_it_in_one_line_and_the_next_run_goes_on(
    study: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_module, "SQLITE_TIMEOUT", 0.05)
    locker = sqlite3.connect(study.folder / "tuner.db", isolation_level=None)
    locked: list[bool] = []

    def lock(event: object) -> bool:
        if isinstance(event, EpochFinished) and event.number == 4 and not locked:
            locker.execute("BEGIN IMMEDIATE")
            locked.append(True)
        return False

    with pytest.raises(StudyError, match="database is locked; once that is fixed") as caught:
        study.run(6, until=lock)
    assert "\n" not in str(caught.value)
    assert study.url in str(caught.value)
    locker.execute("ROLLBACK")
    locker.close()
    events = study.run(6)
    assert events[-1] == SearchEnded(6, "")
    assert [event.number for event in ended(events)] == [4, 5]


def test_a_mistake_of_the_program_is_not_told_as_a_refusal_of_the_database(study: Rehearsal) -> None:
    with pytest.raises(OverflowError):
        open_storage(study.url).get_study_name_from_id(2**70)


def test_a_database_that_cannot_be_written_is_told_in_one_line(study: Rehearsal) -> None:
    url = f"sqlite:///file:{study.folder / 'tuner.db'}?mode=ro&uri=true"
    with pytest.raises(StudyError, match="attempt to write a readonly database") as caught:
        open_study(open_storage(url), "new", SETTINGS, engine=Engine("cpu"))
    assert "\n" not in str(caught.value)
    assert [record.name for record in list_studies(open_storage(url))] == ["rehearsal"]


def test_a_database_that_cannot_be_written_is_read_and_left_as_it_is(study: Rehearsal) -> None:
    files = contents(study.folder)
    (study.folder / "tuner.db").chmod(0o444)
    study.folder.chmod(0o555)
    try:
        storage = open_storage(study.url, existing=True)
        assert summarise(load_study(storage), studies=study.folder).num_counted == 3
        storage.engine.dispose()
    finally:
        study.folder.chmod(0o755)
    assert contents(study.folder) == files


def test_a_connection_to_read_makes_no_file_and_writes_none(study: Rehearsal) -> None:
    files = contents(study.folder)
    connection = connect_to_read(study.folder / "tuner.db")
    assert connection.execute("SELECT count(*) FROM trials").fetchone() == (3,)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM trials")
    assert contents(study.folder) == files
    connection.close()


def test_a_connection_to_read_sees_what_is_still_in_the_log_or_says_that_it_cannot(study: Rehearsal) -> None:
    writer = sqlite3.connect(study.folder / "tuner.db")
    writer.execute("INSERT INTO studies (study_name) VALUES ('late')")
    writer.commit()
    assert (study.folder / "tuner.db-wal").stat().st_size
    reader = connect_to_read(study.folder / "tuner.db")
    assert ("late",) in reader.execute("SELECT study_name FROM studies").fetchall()
    reader.close()
    (study.folder / "copy").mkdir()
    for name in ("tuner.db", "tuner.db-wal"):
        shutil.copy(study.folder / name, study.folder / "copy")
    with pytest.raises(StudyError, match=r"tuner\.db-wal: .* copy the folder to a disk that is not read-only"):
        connect_to_read(study.folder / "copy" / "tuner.db")
    writer.close()


@pytest.mark.parametrize(
    ("table", "column", "key", "said"),
    [
        ("trial_user_attributes", "value_json", "candidate", "trial 1 cannot be read"),
        ("trial_user_attributes", "value_json", "num_parameters", "its trials cannot be read"),
    ],
)
def test_a_trial_that_cannot_be_read_is_named_in_one_line(
    study: Rehearsal, table: str, column: str, key: str, said: str
) -> None:
    value = '{"x": 1}' if key == "candidate" else "not JSON"
    with sqlite3.connect(study.folder / "tuner.db") as connection:
        where = "WHERE key = ? AND trial_id = (SELECT trial_id FROM trials WHERE number = 1)"
        connection.execute(f"UPDATE {table} SET {column} = ? {where}", (value, key))
    connection.close()
    with pytest.raises(StudyError, match=f"study 'rehearsal': {said}") as caught:
        study.record().trials()
    assert "\n" not in str(caught.value)
