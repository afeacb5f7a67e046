"""One writer a study: locks of the operating system, which are gone with the process that holds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tuner.errors import StudyError, reason_of
from tuner.search.sqlite import sqlite_file
from tuner.search.study_files import LOCK

OTHERWISE = "give --study NAME"


@contextmanager
def hold(folder: Path, name: str, *, otherwise: str = OTHERWISE) -> Iterator[None]:
    """Hold the folder of a study's checkpoints for writing.

    Raises StudyError when another process holds it; `otherwise` is what the user can do but wait.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written: {reason_of(error)}") from error
    with _locked(folder / LOCK, name, otherwise=otherwise):
        yield


@contextmanager
def hold_record(url: str, name: str) -> Iterator[None]:
    """Hold the record of a study for writing, whatever folder its checkpoints go to.

    What holds it is a file beside the SQLite database. For the URL of a database server there is no such place: the
    folder's lock keeps out the other runs that share the folder, and for the rest the search ends as soon as a trial
    gets a number that was not due, which another writer has taken.
    Raises StudyError when another process holds it.
    """
    lock = record_lock(url, name)
    if lock is None:
        yield
    else:
        with _locked(lock, name):
            yield


def record_lock(url: str, name: str) -> Path | None:
    """The file that holds a study's record, beside its SQLite database; None for a database server."""
    file = sqlite_file(url)
    return None if file is None else file.with_name(f".{file.name}-{name.lower()}.lock")


@contextmanager
def _locked(file: Path, name: str, *, otherwise: str = OTHERWISE) -> Iterator[None]:
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise StudyError(f"study {name!r} is being run by another process; wait for it, or {otherwise}") from error
    except OSError as error:
        raise StudyError(f"{file.parent}: cannot be written: {reason_of(error)}") from error
    try:
        yield
    finally:
        lock.release()
