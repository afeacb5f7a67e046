"""The folder and the storage of studies, and their names."""

from __future__ import annotations

import re
from pathlib import Path

from tuner.errors import StudyError, reason_of
from tuner.search.sqlite import sqlite_url
from tuner.search.storage import Storage, open_storage

MAX_NAME = 100
SHOWN_NAME = 40
"""Characters of a name that cannot be a folder, of which an error shows no more."""
DATABASE = "tuner.db"
"""Database in the folder of studies, unless --storage is given.

SQLite creates files beside it that begin with its name.
"""

FILE_ENDING = re.compile(r"\.(npz|csv|tsv)$", re.IGNORECASE)
"""Ending of a data set's file, which is no part of a study's name."""


def existing_storage(studies: Path, storage: str | None = None) -> Storage:
    """Open the storage of existing studies, read-only on a read-only disk.

    Raises StudyError if there is none.
    """
    if not has_storage(studies, storage):
        raise StudyError(f"no studies in {studies}: start one with `tuner run`, or say where they are with --studies")
    return open_storage(storage_url(studies, storage), existing=True)


def has_storage(studies: Path, storage: str | None = None) -> bool:
    """Whether there is a storage to open: one was given, or the folder of studies has its own."""
    return storage is not None or (studies / DATABASE).is_file()


def storage_url(studies: Path, storage: str | None = None) -> str:
    """Return the URL of the storage: the given one, or SQLite in the folder of studies."""
    return sqlite_url(studies / DATABASE) if storage is None else storage


def make_studies_folder(studies: Path) -> None:
    """Create the folder of studies. Raises StudyError if that is impossible."""
    try:
        studies.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StudyError(f"--studies {studies}: cannot be written: {reason_of(error)}") from error


def default_study_name(dataset: str, space: str) -> str:
    """Name a study after its data set and space, each a name or a path, as in `digits-auto`."""
    names = (FILE_ENDING.sub("", Path(dataset).name) or dataset, Path(space).stem)
    name = "-".join(re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "images" for name in names)
    return name[-MAX_NAME:].strip("-")


def check_study_name(name: str) -> None:
    """Raise StudyError unless this study name can be the name of a folder on every system."""
    if not can_be_a_folder(name):
        raise StudyError(
            f"--study {name!r}: a name has 1 to 100 letters, digits, dots, dashes or underscores, begins with a letter "
            "or a digit but not with tuner.db, and is none that Windows keeps for devices"
        )


def can_be_a_folder(name: str) -> bool:
    """Whether a study's name can be the name of a folder directly beside the others, on every system."""
    is_device = re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name.lower())
    is_plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name) is not None
    is_database = name.lower().startswith(
        DATABASE
    )  # a folder in the place of its log or journal would make it unusable
    return is_plain and not name.endswith(".") and not is_device and not is_database


def unusable_name(*names: str) -> StudyError:
    """The error for studies of such names."""
    shown = ", ".join(ascii(name if len(name) <= SHOWN_NAME else f"{name[:SHOWN_NAME]}...") for name in names)
    which = "study" if len(names) == 1 else "studies"
    return StudyError(
        f"{which} {shown}: a study's name is also the name of its folder, so it has 1 to 100 letters, digits, dots, "
        "dashes or underscores, and begins with a letter or a digit, but not with tuner.db; "
        "rename it with the program that gave it this name"
    )
