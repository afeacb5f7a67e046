"""No study harms another: whose folder it is, and what is deleted with a study."""

import json
import os
import shutil
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import optuna
import pytest
from rehearsal import SETTINGS, Rehearsal, rehearse, writes_checkpoints
from test_checkpoints import best_of, checkpoint_of, of_another_study

from tuner.cli.study_commands import list_
from tuner.errors import CheckpointError, StudyError
from tuner.search.coordinator import search
from tuner.search.executors import InProcess
from tuner.search.folder_owner import claim_folder, folder_id, refuse_other_studys_folder
from tuner.search.locks import hold
from tuner.search.record import ID, StudyRecord
from tuner.search.record import SETTINGS as SETTINGS_KEY
from tuner.search.storage import GoneError, Storage, open_storage
from tuner.search.study_deletion import delete_study, disk_use
from tuner.search.study_files import ID_FILE, artifact_id, artifacts_folder, checkpoint_path, confirmed_path
from tuner.search.study_lookup import list_studies, load_study, open_study, unusable_names
from tuner.search.summary import summarise
from tuner.temporary import temporary_beside
from tuner.training.checkpoint import save_checkpoint
from tuner.training.engine import Engine


@pytest.fixture
def study(tmp_path: Path) -> Rehearsal:
    """A study of four trials, with the checkpoint of the best in its folder, which is bound to it."""
    study = Rehearsal(tmp_path / "studies")
    study.folder.mkdir()
    study.run(4)
    with hold(study.study_folder, study.name):
        claim_folder(study.study_folder, study.record())
    best = best_of(study)
    save_checkpoint(checkpoint_of(study.record(), best), checkpoint_path(study.study_folder, best.number))
    return study


@pytest.fixture
def twin(tmp_path: Path) -> Rehearsal:
    """Another study of the same name, in another storage."""
    twin = Rehearsal(tmp_path / "elsewhere")
    twin.folder.mkdir()
    twin.run(2)
    return twin


def without_id(study: Rehearsal) -> None:
    """Make a study one from before there were ids."""
    with study.record().storage.engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM study_user_attributes WHERE key = '{ID}'")
    (study.study_folder / ID_FILE).unlink()
    assert study.record().id is None


def everything(folder: Path) -> dict[str, bytes]:
    """All files, but for the database, which reading alone may change, and the locks."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "tuner.db" not in path.name and path.name != ".lock"
    }


def test_a_study_has_a_random_id_from_its_start_and_binds_its_folder(study: Rehearsal, twin: Rehearsal) -> None:
    identity = study.record().id
    assert identity is not None
    assert uuid.UUID(hex=identity).version == 4
    assert folder_id(study.study_folder) == identity == study.record().make_id()
    assert twin.record().id not in (None, identity)


def test_the_folder_of_another_study_is_refused_and_named(study: Rehearsal, twin: Rehearsal) -> None:
    before = everything(study.folder)
    for claim in (
        lambda: claim_folder(study.study_folder, twin.record()),
        lambda: refuse_other_studys_folder(study.study_folder, twin.record(), twin.name),
        lambda: refuse_other_studys_folder(study.study_folder, None, twin.name),
    ):
        with pytest.raises(StudyError, match=r"--studies .*--study NAME") as caught:
            claim()
        assert str(caught.value).startswith(f"{study.study_folder}: the folder of another study 'rehearsal'")
        assert "\n" not in str(caught.value)
    assert everything(study.folder) == before


def test_a_folder_from_before_ids_is_adopted_by_the_study_whose_checkpoints_it_has(
    study: Rehearsal, twin: Rehearsal
) -> None:
    without_id(study)
    with pytest.raises(StudyError, match="a checkpoint of another study"):
        claim_folder(study.study_folder, twin.record())
    assert folder_id(study.study_folder) is None
    claim_folder(study.study_folder, study.record())
    assert folder_id(study.study_folder) == study.record().id is not None


@pytest.mark.parametrize("name", ["confirmed.pt", "trained-00000.pt"])
def test_delivered_and_longer_trained_networks_show_whose_the_folder_is_too(
    study: Rehearsal, twin: Rehearsal, name: str
) -> None:
    """A trial's checkpoint has its seed and its epochs; these have others, so what they share is compared."""
    without_id(study)
    best = best_of(study)
    path = checkpoint_path(study.study_folder, best.number)
    later = checkpoint_of(study.record(), best)
    save_checkpoint(of_another_study(later), study.study_folder / name)
    path.unlink()
    with pytest.raises(StudyError, match=f"{name}: a checkpoint of another study"):
        open_and_claim(study.study_folder, twin, dataset_digest="e")
    claim_folder(study.study_folder, study.record())


def open_and_claim(folder: Path, twin: Rehearsal, **settings: str) -> None:
    record = twin.record()
    record.storage.set_study_user_attr(record.study_id, SETTINGS_KEY, {**SETTINGS.to_json(), **settings})
    claim_folder(folder, load_study(record.storage))


def test_a_damaged_checkpoint_shows_nothing_and_is_not_adopted(study: Rehearsal) -> None:
    without_id(study)
    confirmed_path(study.study_folder).write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"confirmed\.pt"):
        claim_folder(study.study_folder, study.record())


def test_a_folder_of_other_files_is_not_adopted_so_that_no_deletion_takes_them(study: Rehearsal) -> None:
    photos = study.folder / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_text("mine")
    record = open_study(open_storage(study.url), "photos", SETTINGS, engine=Engine("cpu"))
    with pytest.raises(StudyError, match=r"cat\.jpg: not a file of study 'photos'.*another --study NAME"):
        refuse_other_studys_folder(photos, None, "photos")
    with pytest.raises(StudyError, match=r"cat\.jpg: not a file of study 'photos'"):
        claim_folder(photos, record)
    with pytest.raises(StudyError, match=r"cat\.jpg: .*nothing was deleted"):
        delete_study(record, studies=study.folder)
    assert everything(photos) == {"cat.jpg": b"mine"}


def test_a_folder_of_locks_and_half_written_files_is_adopted(study: Rehearsal) -> None:
    folder = study.folder / "killed"
    folder.mkdir()
    temporary_beside(folder / "trial-00000.pt").touch()
    (folder / ".lock").touch()
    refuse_other_studys_folder(folder, None, "killed")
    record = open_study(open_storage(study.url), "killed", SETTINGS, engine=Engine("cpu"))
    claim_folder(folder, record)
    assert folder_id(folder) == record.id


def test_two_processes_that_give_a_study_its_id_agree_on_it(study: Rehearsal) -> None:
    storage, study_id = study.record().storage, study.record().study_id
    known = study.record().id
    assert storage.add_study_user_attribute(study_id, ID, "another") == known
    assert study.record().id == known


def test_what_reads_alone_does_not_take_another_studys_files_for_this_ones(study: Rehearsal, twin: Rehearsal) -> None:
    save_checkpoint(
        checkpoint_of(twin.record(), best_of(twin)), checkpoint_path(study.study_folder, best_of(twin).number)
    )
    before = everything(study.folder)
    for has_id in (True, False):
        if not has_id:
            (study.study_folder / ID_FILE).unlink()
            del before[f"rehearsal/{ID_FILE}"]
        summary = summarise(twin.record(), studies=study.folder)
        assert summary.best is not None
        assert summary.checkpoint is None
        assert disk_use(twin.record(), studies=study.folder) == 0
        assert everything(study.folder) == before


@pytest.mark.parametrize("has_id", [True, False])
def test_a_study_is_not_deleted_with_the_folder_of_another(study: Rehearsal, twin: Rehearsal, has_id: bool) -> None:
    if not has_id:
        without_id(study)
    before = everything(study.folder)
    with pytest.raises(StudyError, match="nothing was deleted") as caught:
        delete_study(twin.record(), studies=study.folder)
    assert str(study.study_folder) in str(caught.value)
    assert "--studies" in str(caught.value)
    assert everything(study.folder) == before
    assert len(load_study(open_storage(twin.url)).trials()) == 2


def test_a_folder_that_shows_no_study_is_not_deleted_with_one(study: Rehearsal) -> None:
    without_id(study)
    checkpoint_path(study.study_folder, best_of(study).number).unlink()
    (study.study_folder / "thesis.txt").write_text("mine")
    with pytest.raises(StudyError, match=r"thesis\.txt: .*nothing was deleted"):
        delete_study(study.record(), studies=study.folder)
    assert (study.study_folder / "thesis.txt").read_text() == "mine"
    assert len(study.record().trials()) == 4


def test_a_study_without_a_folder_is_deleted_and_so_is_what_it_alone_shows(study: Rehearsal, twin: Rehearsal) -> None:
    """The study of that name in these studies lost its folder, and its artifacts are still there."""
    artifacts = artifacts_folder(study.study_folder)
    old, own = artifact_id(twin.name, 0, "curve"), artifact_id(twin.record().make_id(), 0, "curve")
    for name in (old, own):
        (artifacts / name).write_text("a picture")
        key = f"dashboard:artifacts:1:{name}"
        twin.record().storage.set_study_system_attr(twin.record().study_id, key, "{}")
    shutil.rmtree(study.study_folder)
    assert delete_study(twin.record(), studies=study.folder) is False
    assert (artifacts / old).exists()
    assert not (artifacts / own).exists()
    assert not study.study_folder.exists()
    assert twin_is_gone(twin)


def twin_is_gone(twin: Rehearsal) -> bool:
    return list_studies(open_storage(twin.url)) == []


def test_two_studies_of_a_name_have_artifacts_of_their_own(study: Rehearsal, tmp_path: Path) -> None:
    """Beside each other, since the folders of both were in this place, one after the other."""
    study.run(6, trainer=writes_checkpoints(study.study_folder))
    before = everything(artifacts_folder(study.study_folder))
    shutil.move(study.study_folder, tmp_path / "kept")
    other = Rehearsal(study.folder)
    record = open_study(open_storage(f"sqlite:///{tmp_path / 'other.db'}"), other.name, SETTINGS, engine=Engine("cpu"))
    run_with(other, record)
    after = everything(artifacts_folder(study.study_folder))
    assert before.items() <= after.items()
    assert len(after) > len(before)
    other.study_folder.mkdir()
    claim_folder(other.study_folder, record)
    assert delete_study(record, studies=study.folder)
    assert everything(artifacts_folder(study.study_folder)) == before


def run_with(study: Rehearsal, record: StudyRecord) -> None:
    """Run another study's record in the folder of a rehearsal."""
    list(search(record, study.plan(3), InProcess(rehearse)))


def test_artifacts_that_a_copy_of_a_study_shows_stay_when_it_is_deleted(study: Rehearsal) -> None:
    study.run(6, trainer=writes_checkpoints(study.study_folder))
    optuna.copy_study(
        from_study_name=study.name, from_storage=study.url, to_storage=study.url, to_study_name="the-copy"
    )
    before = everything(artifacts_folder(study.study_folder))
    assert before
    copy = load_study(open_storage(study.url), "the-copy")
    assert copy.storage.artifact_ids(copy.study_id)
    assert delete_study(copy, studies=study.folder) is False
    assert everything(artifacts_folder(study.study_folder)) == before
    assert len(study.record().trials()) >= 6


@pytest.mark.parametrize("is_link", [True, False])
def test_a_copy_whose_folder_is_that_of_its_original_or_a_copy_of_it_writes_and_deletes_nothing_there(
    study: Rehearsal, is_link: bool
) -> None:
    optuna.copy_study(
        from_study_name=study.name, from_storage=study.url, to_storage=study.url, to_study_name="the-copy"
    )
    copy, folder = load_study(open_storage(study.url), "the-copy"), study.folder / "the-copy"
    folder.symlink_to(study.study_folder) if is_link else shutil.copytree(study.study_folder, folder)
    before = everything(study.folder)
    with pytest.raises(StudyError, match=r"trial-.*\.pt: a checkpoint of another study"):
        claim_folder(folder, copy)
    with pytest.raises(StudyError, match=r"trial-.*\.pt: a checkpoint of another study; nothing was deleted"):
        delete_study(copy, studies=study.folder)
    assert everything(study.folder) == before


def test_a_copy_of_a_folder_beside_it_does_not_keep_a_study_from_being_run_and_deleted(study: Rehearsal) -> None:
    shutil.copytree(study.study_folder, study.folder / "backup")
    claim_folder(study.study_folder, study.record())
    artifacts = artifacts_folder(study.study_folder)
    assert [path.name for path in artifacts.iterdir()]
    assert delete_study(study.record(), studies=study.folder)
    assert not [path.name for path in artifacts.iterdir()]
    assert (study.folder / "backup" / ID_FILE).exists()


@pytest.mark.parametrize("is_run", [False, True])
def test_a_copy_in_another_storage_writes_and_deletes_none_of_the_artifacts_of_its_original(
    study: Rehearsal, tmp_path: Path, is_run: bool
) -> None:
    study.run(6, trainer=writes_checkpoints(study.study_folder))
    before, url = everything(artifacts_folder(study.study_folder)), f"sqlite:///{tmp_path / 'other.db'}"
    open_storage(url)
    optuna.copy_study(from_study_name=study.name, from_storage=study.url, to_storage=url, to_study_name="the-copy")
    copy, folder = load_study(open_storage(url)), study.folder / "the-copy"
    if is_run:
        folder.mkdir()
        claim_folder(folder, copy)
        plan = study.plan(8, study_folder=folder)
        list(search(copy, plan, InProcess(writes_checkpoints(folder))))
        assert folder_id(folder) == copy.id != study.record().id
        assert len(everything(artifacts_folder(folder))) > len(before)
        study.run(8, trainer=writes_checkpoints(study.study_folder))
        assert disk_use(copy, studies=study.folder) > 0
        before = {name: content for name, content in everything(artifacts_folder(folder)).items() if shows(study, name)}
    else:
        assert disk_use(copy, studies=study.folder) == 0
    assert delete_study(copy, studies=study.folder) is is_run
    assert everything(artifacts_folder(study.study_folder)) == before


def shows(study: Rehearsal, name: str) -> bool:
    return name in study.record().storage.artifact_ids(study.record().study_id)


def test_a_copy_that_optuna_made_gets_an_id_of_its_own_before_it_writes(study: Rehearsal) -> None:
    optuna.copy_study(
        from_study_name=study.name, from_storage=study.url, to_storage=study.url, to_study_name="the-copy"
    )
    copy, folder = load_study(open_storage(study.url), "the-copy"), study.folder / "the-copy"
    assert copy.id == study.record().id
    folder.mkdir()
    claim_folder(folder, copy)
    assert folder_id(folder) == copy.id != study.record().id == folder_id(study.study_folder)


def test_a_study_of_the_same_name_and_number_is_not_taken_for_the_one_that_was_asked_for(study: Rehearsal) -> None:
    record = load_study(open_storage(study.url))
    assert delete_study(study.record(), studies=study.folder)
    study.run(2)
    successor = load_study(open_storage(study.url))
    assert (successor.study_id, successor.name) == (record.study_id, record.name)
    with pytest.raises(StudyError, match="study 'rehearsal' was deleted or renamed by another process"):
        delete_study(record, studies=study.folder)
    with pytest.raises(StudyError, match="study 'rehearsal' was deleted or renamed"):
        claim_folder(study.study_folder, record)
    assert len(successor.trials()) == 2


@pytest.mark.parametrize(
    "read",
    [
        lambda record, studies: summarise(record, studies=studies),
        lambda record, studies: disk_use(record, studies=studies),
        lambda record, _: record.settings,
        lambda record, _: record.engine,
        lambda record, _: record.confirmed,
        lambda record, _: record.trials(),
        lambda record, _: record.num_stored,
        lambda record, _: record.storage.get_study_system_attrs(record.study_id),
    ],
)
def test_a_study_that_is_deleted_while_it_is_read_is_one_line(
    study: Rehearsal, read: Callable[[StudyRecord, Path], object]
) -> None:
    record = load_study(open_storage(study.url))
    assert delete_study(study.record(), studies=study.folder)
    with pytest.raises(GoneError, match=r"^the study was deleted by another process; `tuner list` shows which are"):
        read(record, study.folder)


def test_list_shows_the_others_when_a_study_is_deleted_while_it_reads(
    study: Rehearsal, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_study(open_storage(study.url), "other", SETTINGS, engine=Engine("cpu"))

    def read_and_delete_one(storage: Storage) -> list[StudyRecord]:
        records = list_studies(storage)
        delete_study(load_study(open_storage(study.url), "other"), studies=study.folder)
        return records

    monkeypatch.setattr("tuner.search.study_lookup.list_studies", read_and_delete_one)
    list_(study.folder, study.url, as_json=True)
    assert [one["study"] for one in json.loads(capsys.readouterr().out)] == ["rehearsal"]


@pytest.mark.parametrize("is_followed", [True, False])
def test_a_study_that_was_deleted_while_one_was_asked_is_not_taken_for_its_successor(
    study: Rehearsal, is_followed: bool
) -> None:
    """SQLite gives the number of the last study again."""
    record = study.record()
    assert delete_study(study.record(), studies=study.folder)
    if is_followed:
        storage = open_storage(study.url)
        assert open_study(storage, "next", SETTINGS, engine=Engine("cpu")).study_id == record.study_id
    with pytest.raises(StudyError, match="study 'rehearsal' was deleted or renamed by another process"):
        delete_study(record, studies=study.folder)
    with pytest.raises(StudyError, match="study 'rehearsal' was deleted or renamed"):
        claim_folder(study.folder / "rehearsal", record)
    assert [one.name for one in list_studies(open_storage(study.url))] == (["next"] if is_followed else [])


@pytest.mark.parametrize("has_link", [True, False])
def test_a_file_in_the_place_of_the_folder_is_one_line(study: Rehearsal, has_link: bool) -> None:
    shutil.rmtree(study.study_folder)
    if has_link:
        study.study_folder.symlink_to(study.folder / "nothing")
    else:
        study.study_folder.write_text("mine")
    assert disk_use(study.record(), studies=study.folder) >= 0
    with pytest.raises(StudyError, match=r"rehearsal: cannot be read: .*; nothing was deleted"):
        delete_study(study.record(), studies=study.folder)
    assert len(study.record().trials()) == 4


def test_links_are_deleted_and_what_they_lead_to_is_not(study: Rehearsal, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photograph").write_text("mine")
    folder = study.study_folder
    (folder / "photographs").symlink_to(tmp_path / "mine", target_is_directory=True)
    (folder / "photograph").symlink_to(tmp_path / "mine" / "photograph")
    (folder / "broken").symlink_to(tmp_path / "nothing")
    (folder / "more").mkdir()
    (folder / "more" / "photographs").symlink_to(tmp_path / "mine", target_is_directory=True)
    assert delete_study(study.record(), studies=study.folder)
    assert (tmp_path / "mine" / "photograph").read_text() == "mine"
    assert not folder.exists()
    assert list_studies(open_storage(study.url)) == []


def test_a_folder_on_another_disk_is_emptied_and_its_link_removed(study: Rehearsal, tmp_path: Path) -> None:
    shutil.move(study.study_folder, tmp_path / "large-disk")
    study.study_folder.symlink_to(tmp_path / "large-disk", target_is_directory=True)
    assert delete_study(study.record(), studies=study.folder)
    assert not os.path.lexists(study.study_folder)
    assert list((tmp_path / "large-disk").iterdir()) == []


def test_a_study_is_not_deleted_while_a_process_still_writes_to_its_folder(study: Rehearsal) -> None:
    """As `train -o` and `export -o` into that folder do, which need no lock."""
    unfinished = temporary_beside(study.study_folder / "mine.pt")
    unfinished.write_text("half")
    before = everything(study.folder)
    with pytest.raises(StudyError, match="a running process may be writing this file; nothing was deleted"):
        delete_study(study.record(), studies=study.folder)
    assert everything(study.folder) == before
    unfinished.unlink()
    assert delete_study(study.record(), studies=study.folder)


@contextmanager
def as_a_user_without_rights(*, can_read: bool) -> Iterator[None]:
    """What the system says of such a user's rights: the administrator has all of them.

    can_read: keep the administrator's own rights, and only ask for those of the other user (`os.access`). Another user
    may be unable to read the packages that are imported on the way.
    """
    if os.getuid() != 0:
        yield
        return
    os.setresuid(65_534, 0 if can_read else 65_534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="gives up the rights of the administrator as Linux has it")
@pytest.mark.parametrize("protected", ["rehearsal", "rehearsal/more", ".artifacts", "tuner.db"])
def test_what_cannot_be_deleted_is_known_before_anything_is(protected: str) -> None:
    with TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o777)
        study = Rehearsal(Path(place) / "studies")
        study.folder.mkdir()
        study.run(6, trainer=writes_checkpoints(study.study_folder))
        (study.study_folder / "more").mkdir()
        (study.study_folder / "more" / "file").write_text("text")
        claim_written(study)
        for path in [study.folder, *study.folder.rglob("*")]:
            path.chmod(0o777)
        path = study.folder / protected
        path.chmod(0o555)
        before = everything(study.folder)
        record = load_study(open_storage(study.url, existing=True))  # before: SQLAlchemy's tools look for their files
        with as_a_user_without_rights(can_read=True):
            assert not os.access(path, os.W_OK)
            with pytest.raises(StudyError) as caught:
                delete_study(record, studies=study.folder)
        record.storage.engine.dispose()
        assert str(path) in str(caught.value)
        assert "None" not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert everything(study.folder) == before
        assert len(study.record().trials()) >= 6
        path.chmod(0o777)
        assert delete_study(study.record(), studies=study.folder)


def claim_written(study: Rehearsal) -> None:
    """Bind a folder whose checkpoints are only names."""
    (study.study_folder / ID_FILE).write_text(study.record().make_id())


@pytest.mark.skipif(sys.platform != "linux", reason="gives up the rights of the administrator as Linux has it")
def test_artifacts_that_cannot_be_read_are_one_line_that_list_can_go_past() -> None:
    with TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o777)
        study = Rehearsal(Path(place) / "studies")
        study.folder.mkdir()
        study.run(6, trainer=writes_checkpoints(study.study_folder))
        claim_written(study)
        for path in [study.folder, *study.folder.rglob("*")]:
            path.chmod(0o777)
        artifacts_folder(study.study_folder).chmod(0)
        record = study.record()
        refused = pytest.raises(StudyError, match=r"\.artifacts.*: cannot be read: Permission")
        with as_a_user_without_rights(can_read=False), refused:
            disk_use(record, studies=study.folder)
        record.storage.engine.dispose()
        artifacts_folder(study.study_folder).chmod(0o777)


def test_files_that_come_and_go_while_a_search_runs_do_not_disturb_who_counts_them(study: Rehearsal) -> None:
    before = disk_use(study.record(), studies=study.folder)
    is_over = threading.Event()

    def come_and_go() -> None:
        folder = study.study_folder / ".confirm"
        while not is_over.is_set():
            folder.mkdir()
            for path in [study.study_folder / "a", *(folder / str(number) for number in range(20))]:
                path.write_bytes(b"12345")
            shutil.rmtree(folder)
            (study.study_folder / "a").unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        record = study.record()
        sizes = {disk_use(record, studies=study.folder) for _ in range(300)}
    finally:
        is_over.set()
        thread.join()
    assert all(before <= size <= before + 21 * 5 for size in sizes)


NAMES = ["..", ".", "a/b", "../tuner.db", "/etc", "a\\b", "", "con", "a\nb", "\x1b[31m", "x" * 300, "tuner.db-wal"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_another_program_gave_a_study_is_never_part_of_a_path(study: Rehearsal, name: str) -> None:
    open_study(open_storage(study.url), "other", SETTINGS, engine=Engine("cpu"))
    rename(study.url, "other", name)
    storage = open_storage(study.url)
    for wanted in (name, None):  # it is the latest
        with pytest.raises(StudyError, match="the name of its folder") as caught:
            load_study(storage, wanted)
        assert str(caught.value).isprintable()
    assert [record.name for record in list_studies(storage)] == ["rehearsal"]
    assert unusable_names(storage) == [name]
    assert load_study(storage, "rehearsal").name == "rehearsal"
    with pytest.raises(StudyError, match=r"there are rehearsal$"):
        load_study(storage, "nothing")


def rename(url: str, old: str, new: str) -> None:
    with open_storage(url).engine.begin() as connection:
        connection.exec_driver_sql("UPDATE studies SET study_name = ? WHERE study_name = ?", (new, old))
