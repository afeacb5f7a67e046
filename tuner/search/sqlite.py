"""Locate the file of a SQLite URL, and read it on a read-only disk."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from sqlalchemy import URL, make_url

from tuner.errors import StudyError
from tuner.search.secrets import shown_url


def sqlite_url(file: Path) -> str:
    """Return the URL of a database file for Optuna."""
    # Bytes of a name that are no UTF-8 cannot be escaped in a URL of SQLAlchemy's; it takes them as they are.
    pieces = re.split("([\udc80-\udcff]+)", file.as_posix())
    pieces[::2] = [URL.create("sqlite", database=piece).render_as_string() for piece in pieces[::2]]
    url = "sqlite:///" + "".join(piece.removeprefix("sqlite:///").removeprefix("sqlite://") for piece in pieces)
    return url.replace("{", "{{").replace("}", "}}")  # Optuna fills braces in


def sqlite_file(url: str) -> Path | None:
    """Return the database file of a SQLite URL; None for any other database.

    Raises StudyError for an in-memory database, and sqlalchemy.exc.ArgumentError for text that is not a URL.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    name = parsed.database or ""
    if name in ("", ":memory:", "file::memory:") or parsed.query.get("mode") == "memory":
        raise StudyError(
            f"--storage {shown_url(url)}: a study in memory is lost when its process ends; give a file, sqlite:///FILE"
        )
    return Path(url2pathname(urlsplit(name).path) if name.startswith("file:") else name)


def is_read_only(file: Path) -> bool:
    """Whether a database is read-only. Writing needs a writable file and a writable folder for its log."""
    return not (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))


def connect_to_read(file: Path) -> sqlite3.Connection:
    """Open a connection that writes nothing, neither to the file nor beside it.

    A file in write-ahead mode is opened with its log and the log's index, which SQLite creates if they are missing.
    Only a file that is declared immutable is read without them, and then without the contents of the log; this is used
    for files whose log is empty. Source: sqlite.org/wal.html, read-only databases. Raises StudyError for a log without
    its index.
    """
    log, index = (file.with_name(f"{file.name}-{ending}") for ending in ("wal", "shm"))
    is_empty = not (log.is_file() and log.stat().st_size)
    if not is_empty and not index.is_file():
        raise StudyError(f"{log}: left by a search that was killed; copy the folder to a disk that is not read-only")
    mode = "immutable=1" if is_empty else "mode=ro"
    return sqlite3.connect(f"{file.resolve().as_uri()}?{mode}", uri=True, check_same_thread=False)
