"""`list`, `compare` and `delete`, as a user types them."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.system.conftest import Tuner, run_tuner
from tuner.search.locks import hold
from tuner.search.storage import open_storage
from tuner.search.study_deletion import disk_size_in_words, disk_use
from tuner.search.study_files import artifacts_folder
from tuner.search.study_lookup import load_study

SHORT = ("--trials", "1", "--epochs", "1", "--workers", "1", "--no-confirm")


@pytest.fixture(scope="module")
def with_other(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the finished study, and a second, smaller one."""
    folder = tmp_path_factory.mktemp("with-other")
    shutil.copytree(workplace / "studies", folder / "studies")
    done = run_tuner("run", "--study", "other", "--space", "article", *SHORT, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(with_other: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    return shutil.copytree(with_other, tmp_path, dirs_exist_ok=True)


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.pt")}


def test_list_has_a_column_of_disk_use_in_which_a_linked_file_counts_once(workplace: Path) -> None:
    listed = json.loads(run_tuner("list", "--json", cwd=workplace).stdout)[0]
    studies = workplace / "studies"
    record = load_study(open_storage(f"sqlite:///{studies / 'tuner.db'}"))
    own = {path for path in (studies / "digits-auto").rglob("*") if path.is_file()}
    shown = {artifacts_folder(studies / "digits-auto") / name for name in record.storage.artifact_ids(record.study_id)}
    linked = {path for path in shown if any(path.samefile(one) for one in own)}
    assert linked
    expected = sum(path.stat().st_size for path in own | shown - linked)
    assert listed["disk_bytes"] == expected == disk_use(record, studies=studies)
    assert disk_size_in_words(expected) in run_tuner("list", cwd=workplace).stdout


@pytest.mark.slow
def test_compare_shows_two_studies_side_by_side_and_where_they_differ(copy: Path, tuner_here: Tuner) -> None:
    compared = run_tuner("compare", "digits-auto", "other", cwd=copy)
    assert compared.returncode == 0, compared.stderr
    shown = json.loads(tuner_here("show", "digits-auto", "--json", cwd=copy).stdout)
    text = " ".join(compared.stdout.split())
    assert re.search(r"data set digits digits", text)
    assert re.search(r"trials 8 1", text)
    assert f"trial {shown['best']['number']}: {shown['best']['validation_accuracy']:.2%}" in text
    assert f"{shown['confirmed']['test_accuracy']:.2%} test" in text
    assert "not confirmed" in text
    assert re.search(r"space_name cnn article", text)
    assert re.search(r"epochs 8 1", text)
    assert "winner, where it differs" in text


@pytest.mark.slow
def test_a_study_compared_with_itself_differs_nowhere(workplace: Path) -> None:
    compared = run_tuner("compare", "digits-auto", "digits-auto", cwd=workplace)
    assert compared.returncode == 0
    assert "differ" not in compared.stdout.replace("difference", "")


@pytest.mark.slow
def test_delete_names_what_goes_asks_and_removes_one_study_whole(copy: Path) -> None:
    before = files_in(copy / "studies")
    command = [sys.executable, "-m", "tuner", "delete", "digits-auto"]
    for answer in ("n\n", ""):
        kept = subprocess.run(command, cwd=copy, input=answer, capture_output=True, text=True, check=False)
        assert re.search(r"Delete study digits-auto: 8 trials, [\d.]+ MB of files permanently\?", kept.stdout)
        assert kept.returncode == (0 if answer else 2)
        assert "nothing was deleted" in kept.stdout + kept.stderr
        assert "Traceback" not in kept.stderr
        assert files_in(copy / "studies") == before
    gone = subprocess.run(command, cwd=copy, input="y\n", capture_output=True, text=True, check=False)
    assert gone.returncode == 0, gone.stderr
    left = json.loads(run_tuner("list", "--json", cwd=copy).stdout)
    assert [study["study"] for study in left] == ["other"]
    assert not [path.name for path in (copy / "studies").iterdir() if "digits-auto" in path.name]
    record = load_study(open_storage(f"sqlite:///{copy / 'studies' / 'tuner.db'}"))
    artifacts = {path.name for path in artifacts_folder(copy / "studies" / "other").iterdir()}
    assert artifacts == set(record.storage.artifact_ids(record.study_id))
    assert set(files_in(copy / "studies")) == {name for name in before if name.startswith("other")}


@pytest.mark.slow
def test_a_deleted_study_can_be_started_anew(copy: Path) -> None:
    assert run_tuner("delete", "other", "--yes", cwd=copy).returncode == 0
    again = run_tuner("run", "--study", "other", *SHORT, cwd=copy)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_study_that_runs_is_not_deleted(copy: Path, tuner_here: Tuner) -> None:
    before = files_in(copy / "studies")
    with hold(copy / "studies" / "other", "other"):
        refused = run_tuner("delete", "other", "--yes", cwd=copy)
    assert refused.returncode == 2
    assert "is being run by another process" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert files_in(copy / "studies") == before
    assert json.loads(tuner_here("show", "other", "--json", cwd=copy).stdout)["trials"]["counted"] == 1


@pytest.fixture(scope="module")
def with_two(with_other: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Beside the others, a study of the same name in another storage, with its files in another folder."""
    folder = shutil.copytree(with_other, tmp_path_factory.mktemp("with-two"), dirs_exist_ok=True)
    elsewhere = ("--storage", "sqlite:///b.db", "--studies", "B", "--study", "digits-auto")
    done = run_tuner("run", *SHORT, "--space", "article", *elsewhere, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def two(with_two: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be changed."""
    return shutil.copytree(with_two, tmp_path, dirs_exist_ok=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["delete", "digits-auto", "--yes"],
        ["confirm", "digits-auto"],
        ["train", "digits-auto", "--trial", "0", "--epochs", "1"],
        ["run", "--trials", "2", "--epochs", "1", "--space", "article", "--study", "digits-auto"],
    ],
    ids=lambda command: command[0],
)
def test_a_study_of_the_same_name_loses_no_file_to_a_command_that_gives_the_wrong_folder(
    two: Path, tuner_here: Tuner, command: list[str]
) -> None:
    before = files_in(two)
    refused = tuner_here(*command, "--storage", "sqlite:///b.db", cwd=two)
    assert refused.returncode == 2, refused.stdout
    assert f"{Path('studies', 'digits-auto')}: the folder of another study 'digits-auto'" in refused.stderr
    assert "--studies" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert files_in(two) == before
    shown = json.loads(tuner_here("show", "--json", "--storage", "sqlite:///b.db", cwd=two).stdout)
    assert shown["trials"]["counted"] == 1
    assert shown["best"] is None or shown["best"]["checkpoint"] is None
    assert json.loads(tuner_here("list", "--json", "--storage", "sqlite:///b.db", cwd=two).stdout)[0]["disk_bytes"] == 0
    deleted = tuner_here("delete", "digits-auto", "--yes", "--storage", "sqlite:///b.db", "--studies", "B", cwd=two)
    assert deleted.returncode == 0, deleted.stderr
    assert files_in(two) == {name: content for name, content in before.items() if not name.startswith("B")}


@pytest.mark.slow
def test_a_study_whose_folder_is_not_there_is_deleted_and_that_is_reported(two: Path, tuner_here: Tuner) -> None:
    before = files_in(two)
    there = ("--storage", "sqlite:///b.db", "--studies", "nowhere")
    deleted = tuner_here("delete", "digits-auto", "--yes", *there, cwd=two)
    assert deleted.returncode == 0, deleted.stderr
    assert f"there is no folder {Path('nowhere', 'digits-auto')}" in deleted.stdout
    assert files_in(two) == before
    assert json.loads(tuner_here("list", "--json", "--storage", "sqlite:///b.db", cwd=two).stdout) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["..", "\x1b[31m\n../digits-auto"])
def test_a_study_that_another_program_renamed_to_a_path_is_named_by_list_and_touched_by_nothing(
    copy: Path, tuner_here: Tuner, name: str
) -> None:
    with closing(sqlite3.connect(copy / "studies" / "tuner.db")) as connection, connection:
        connection.execute("UPDATE studies SET study_name = ? WHERE study_name = 'other'", (name,))
    before = files_in(copy)
    listed = tuner_here("list", cwd=copy)
    assert listed.returncode == 2
    assert "digits-auto" in listed.stdout
    for said in (listed, tuner_here("delete", name, "--yes", cwd=copy), tuner_here("show", cwd=copy)):
        assert said.returncode == 2
        assert f"study {name!a}: a study's name is also the name of its folder" in said.stderr
        assert len(said.stderr.strip().splitlines()) == 1
        assert said.stderr.strip().isprintable()
    assert files_in(copy) == before


@pytest.mark.parametrize("arguments", [["delete", "nothing", "--yes"], ["compare", "digits-auto", "nothing"]])
def test_a_study_that_does_not_exist_is_named_in_one_line(
    workplace: Path, tuner_here: Tuner, arguments: list[str]
) -> None:
    refused = tuner_here(*arguments, cwd=workplace)
    assert refused.returncode == 2
    assert "no study 'nothing'" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
