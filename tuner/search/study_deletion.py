"""The disk use of a study, and its deletion: its trials, its folder and its artifacts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import get_args

from tuner.errors import StudyError, reason_of
from tuner.search.folder_owner import folder_id, ids_beside, is_another_studys, refuse_to_delete
from tuner.search.locks import hold, hold_record, record_lock
from tuner.search.optuna_tables import study_id_of
from tuner.search.record import StudyRecord
from tuner.search.sqlite import is_read_only, sqlite_file
from tuner.search.study_files import ID_FILE, LOCK, ArtifactKind, artifact_id, artifacts_folder
from tuner.temporary import in_use, is_link, remove


def disk_use(record: StudyRecord, *, studies: Path) -> int:
    """Bytes of a study's checkpoints and artifacts, counting hard links once. The database is not included.

    A file that disappears during counting, as happens during a search, is not counted, and neither is a folder of
    another study. Raises StudyError for a folder that cannot be read.
    """
    folder = studies / record.name
    paths = _artifacts(record, studies, is_bound=folder_id(folder) == record.id)
    sizes = {}
    with _readable(folder):
        if not is_another_studys(folder, record):
            paths += [Path(place) / name for place, _, names in os.walk(folder, onerror=_raise) for name in names]
        for path in paths:
            with suppress(FileNotFoundError):
                status = path.lstat()
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def delete_study(record: StudyRecord, *, studies: Path) -> bool:
    """Delete a study permanently, and return whether its folder existed.

    Files are deleted before trials, so after an interruption the same command deletes the rest. Raises StudyError,
    before anything is deleted, if the study is running, if the folder belongs to another study, or if something cannot
    be deleted.
    """
    folder, url = studies / record.name, record.storage.url
    is_there = os.path.lexists(folder)
    record.refuse_gone()
    if is_there:
        refuse_to_delete(folder, record)  # before the lock, which would be a new file in another study's folder
    with hold_record(url, record.name):
        with hold(folder, record.name) if is_there else nullcontext():
            record.refuse_gone()
            if is_there:
                refuse_to_delete(folder, record)
            artifacts = _artifacts(record, studies, is_bound=is_there)
            entries = _entries(folder) if is_there else []
            _refuse_undeletable(record, folder, entries, artifacts)
            for path in artifacts + entries:
                _remove(path)
            record.storage.delete_study(record.study_id)
        if is_there:
            with suppress(OSError):  # another process may have started a study of this name; then the lock is its own
                (folder / LOCK).unlink()
                folder.unlink() if is_link(folder) else folder.rmdir()
    lock = record_lock(url, record.name)
    if lock is not None:
        with suppress(OSError):
            lock.unlink(missing_ok=True)
    return is_there


def disk_size_in_words(num_bytes: int) -> str:
    """Format a size as in `1.4 MB`, in powers of 1000, as file managers and disk vendors do."""
    size = float(num_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{num_bytes} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def _entries(folder: Path) -> list[Path]:
    """List the contents of a study's folder.

    The id is last, so that the folder belongs to the study until all is gone.
    """
    return sorted((path for path in folder.iterdir() if path.name != LOCK), key=lambda path: path.name == ID_FILE)


def _artifacts(record: StudyRecord, studies: Path, *, is_bound: bool) -> list[Path]:
    """Return the artifact files that only this study shows, and not its original or its copy in another study.

    is_bound: whether the study's folder belongs to it. If it does not, artifacts whose ids are made from the study's
    name, as they were before studies had ids, may belong to another study with that name. Studies in other storages are
    recognized by their folders beside this study's folder.
    """
    storage, study_folder = record.storage, studies / record.name
    shown = set(storage.artifact_ids(record.study_id))
    if not shown:
        return []
    others = {study_id_of(study) for study in storage.get_all_studies()} - {record.study_id}
    shown -= {one for study_id in others for one in storage.artifact_ids(study_id)}
    ours = _made_by({record.id or record.name, record.name}, record) if is_bound else set()
    if not shown <= ours:
        if not is_bound:
            shown -= _made_by({record.name}, record)
        theirs = _made_by(ids_beside(study_folder), record)
        if shown & theirs:  # it is a copy, and whatever it shows of the other study is that one's
            shown &= ours
    folder = artifacts_folder(study_folder)
    paths = [folder / one for one in sorted(shown) if Path(one).name == one]
    with _readable(folder):
        return [path for path in paths if path.is_file() or is_link(path)]


def _made_by(identities: Iterable[str], record: StudyRecord) -> set[str]:
    """Return the ids of all artifacts that studies with these ids or names may have, for the trials of a study."""
    kinds, numbers = get_args(ArtifactKind), range(record.num_stored)
    return {artifact_id(study, number, kind) for study in identities for number in numbers for kind in kinds}


def _remove(path: Path) -> None:
    try:
        remove(path)
    except OSError as error:
        raise StudyError(
            f"{error.filename or path}: cannot be deleted: {reason_of(error)}; the study is still in its database: "
            "once that is fixed, the same command deletes the rest"
        ) from error


def _refuse_undeletable(record: StudyRecord, folder: Path, entries: list[Path], artifacts: list[Path]) -> None:
    """Raise StudyError, before a deletion begins, for anything that is known to prevent it."""
    database = sqlite_file(record.storage.url)
    if database is not None and is_read_only(database):
        raise StudyError(f"{database}: cannot be written; nothing was deleted")
    with _readable(folder):
        used = in_use(folder) if entries else []
        subfolders = [path for path in entries if path.is_dir() and not is_link(path)]
        places = [path.parent for path in entries[:1] + artifacts[:1]]
        places += [Path(place) for path in subfolders for place, _, _ in os.walk(path, onerror=_raise)]
    if used:
        raise StudyError(
            f"{used[0]}: a running process may be writing this file; nothing was deleted. Wait for it, or remove it"
        )
    for place in places:
        if not os.access(place, os.W_OK | os.X_OK):
            raise StudyError(f"{place}: this folder cannot be written; nothing was deleted")


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StudyError(f"{error.filename or folder}: cannot be read: {reason_of(error)}") from error


def _raise(error: OSError) -> None:
    """Error handler for os.walk: raise if a folder cannot be read; ignore a folder that no longer exists."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
