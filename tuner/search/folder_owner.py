"""The owner of a study's folder: both share a random id, which is checked before files are written or deleted there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tuner.errors import CheckpointError, StudyError, reason_of
from tuner.search.checkpoints import foreign_checkpoint, own_and_foreign, refuse_foreign_checkpoints
from tuner.search.record import StudyRecord
from tuner.search.study_files import ID_FILE, LOCK
from tuner.temporary import remove_leftovers, temporaries, temporary_beside


def claim_folder(folder: Path, record: StudyRecord) -> None:
    """Bind a folder to the study that is about to write there, and remove leftovers of killed processes.

    A folder without an id is adopted if all its checkpoints are the study's, or if it is empty. The caller holds the
    folder's lock. Raises StudyError for a folder of another study, and for a folder with other files, which would be
    deleted with the study.
    """
    record.refuse_gone()
    found = folder_id(folder)
    if found is None:
        own, foreign = own_and_foreign(folder, record)
        if foreign:
            raise foreign_checkpoint(foreign[0], record.name)
        if not own:
            _refuse_other_files(folder, record.name)
        _save_id(folder, record.make_own_id(beside=ids_beside(folder)))
    elif found != record.id:
        raise _of_another_study(folder, record.name)
    elif found in ids_beside(folder):  # this or the other may be a copy, or a link to it: then its checkpoints say so
        refuse_foreign_checkpoints(folder, record, record.name)
    try:
        remove_leftovers(folder)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written: {reason_of(error)}") from error


def refuse_other_studys_folder(folder: Path, record: StudyRecord | None, name: str) -> None:
    """Raise StudyError for a folder of another study than `record` (None for a new study); nothing is written.

    This happens if two storages have a study with the same name, or if a database was deleted but not the folder.
    """
    found = folder_id(folder)
    if found is not None and (record is None or found != record.id):
        raise _of_another_study(folder, name)
    refuse_foreign_checkpoints(folder, record, name)
    if found is None and record is None:
        _refuse_other_files(folder, name)


def refuse_to_delete(folder: Path, record: StudyRecord) -> None:
    """Raise StudyError unless a folder certainly belongs to the study: by its id, by its checkpoints, or if empty."""
    found = folder_id(folder)
    if found is not None:
        if found != record.id:
            raise _of_another_study(folder, record.name, "nothing was deleted. ")
        if found not in ids_beside(folder):
            return
    try:
        entries = [path for path in folder.iterdir() if path.name != LOCK]
    except OSError as error:
        raise StudyError(f"{folder}: cannot be read: {reason_of(error)}; nothing was deleted") from error
    own, foreign = own_and_foreign(folder, record)
    strange = foreign or ([] if own or found is not None else entries)
    if strange:
        why = "a checkpoint of another study" if foreign else "in a folder without a checkpoint of this study"
        raise StudyError(
            f"{strange[0]}: {why}; nothing was deleted. Give the --studies that study {record.name!r} was run with, "
            "or move that folder away"
        )


def is_another_studys(folder: Path, record: StudyRecord) -> bool:
    """Whether a folder is known to contain the files of another study; for commands that only read."""
    found = folder_id(folder)
    if found is not None:
        return found != record.id
    try:
        return bool(own_and_foreign(folder, record)[1])
    except CheckpointError:  # a damaged file says nothing of its study; the command that reads it reports the damage
        return False


def ids_beside(folder: Path) -> set[str]:
    """Return the ids of the other studies' folders beside this one. Raises StudyError if they cannot be listed.

    Folders whose id cannot be read are ignored.
    """
    found = set[str | None]()
    try:
        others = [path for path in folder.parent.iterdir() if path.name != folder.name]
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise StudyError(f"{folder.parent}: cannot be read: {reason_of(error)}") from error
    for path in others:
        with suppress(StudyError):
            found.add(folder_id(path))
    return {one for one in found if one}


def folder_id(folder: Path) -> str | None:
    """Return the id in a study's folder; None if there is none. Raises StudyError if it cannot be read."""
    path = folder / ID_FILE
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {reason_of(error)}") from error


def _refuse_other_files(folder: Path, name: str) -> None:
    """Raise StudyError for a folder that contains anything except our lock and our temporary files."""
    if not folder.is_dir():
        return
    try:
        ours = {LOCK, *(path.name for path in temporaries(folder))}
        others = sorted(path for path in folder.iterdir() if path.name not in ours)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be read: {reason_of(error)}") from error
    if others:
        raise StudyError(
            f"{others[0]}: not a file of study {name!r}, whose folder would be {folder}; "
            "give another --study NAME, or other --studies, or move that folder away"
        )


def _save_id(folder: Path, identity: str) -> None:
    """Write the id atomically."""
    path = folder / ID_FILE
    temporary = temporary_beside(path)
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(f"{identity}\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written: {reason_of(error)}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _of_another_study(folder: Path, name: str, said: str = "") -> StudyError:
    return StudyError(
        f"{folder}: the folder of another study {name!r}; {said}Give the --studies that this study was run with, "
        "or another --study NAME, or move that folder away"
    )
