"""Locks that give a study a single writer; the operating system releases them when the process ends."""

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
    """Lock the folder of a study's checkpoints for writing.

    Raises StudyError if another process holds the lock. `otherwise` is what the user can do instead of waiting.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"{folder}: cannot be written: {reason_of(error)}") from error
    with _locked(folder / LOCK, name, otherwise=otherwise):
        yield


@contextmanager
def hold_record(url: str, name: str) -> Iterator[None]:
    """Lock the record of a study for writing, whatever folder its checkpoints are in.

    The lock is a file beside the SQLite database. With a database server there is no such place. The folder's lock then
    excludes other runs that share the folder. Otherwise, the search ends as soon as a trial gets an unexpected number,
    because another writer has taken the expected one. Raises StudyError if another process holds the lock.
    """
    lock = record_lock(url, name)
    if lock is None:
        yield
    else:
        with _locked(lock, name):
            yield


def record_lock(url: str, name: str) -> Path | None:
    """Return the lock file of a study's record, beside its SQLite database; None for a database server."""
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
