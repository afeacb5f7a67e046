"""Temporary files and folders: names that contain the owning process, and removal of leftovers.

A name is `.NAME.MACHINE-PID-START.tmp`. A process is identified by its machine, its number and its start time, since
numbers are reused after a process has ended.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path
from platform import node

import psutil

KEPT_SECONDS = 24 * 3600.0
"""Age in seconds at which a temporary file is removed if it is unknown whether its owner still runs.

The owner may be on another machine that shares the folder, or be an older version, whose names did not contain it.
"""

_OWNED = re.compile(r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}\.tmp")
_OLDER = re.compile(r"\.(?P<name>.+)\.(\d+|[a-z0-9_]{8})\.tmp")


def temporary_beside(target: Path) -> Path:
    """Return a temporary name beside a file or folder, to write to before renaming; it belongs to this process."""
    owner = f"{_machine()}-{os.getpid()}-{_start_of(psutil.Process())}"
    return target.with_name(f".{_shortened(target.name)}.{owner}-{uuid.uuid4().hex[:8]}.tmp")


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove unfinished files of processes that have ended; files of running processes stay.

    name: name of the final file; None for any. Files of other users stay as well. Raises OSError.
    """
    for path in temporaries(folder, name):
        if not _is_in_use(path):
            with suppress(PermissionError):
                remove(path)


def in_use(folder: Path) -> list[Path]:
    """Return the temporary files and folders directly in a folder whose process may still run."""
    return [path for path in temporaries(folder) if _is_in_use(path)]


def remove(path: Path) -> None:
    """Remove a file, a folder, or a link but not its target. A missing path is no error."""
    try:
        if path.is_dir() and not is_link(path):
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return


def is_link(path: Path) -> bool:
    """Whether a path is a symbolic link or a Windows junction."""
    return path.is_symlink() or (sys.version_info >= (3, 12) and path.is_junction())


def _shortened(name: str) -> str:
    """Shorten a name to leave room for its owner: file systems allow 255 bytes."""
    return name[:40]


def temporaries(folder: Path, name: str | None = None) -> Iterator[Path]:
    """Yield the temporary files and folders of all owners directly in a folder. name: as for remove_leftovers."""
    for path in folder.iterdir():
        match = _OWNED.fullmatch(path.name) or _OLDER.fullmatch(path.name)
        if match is not None and (name is None or match["name"] == _shortened(name)):
            yield path


def _is_in_use(path: Path) -> bool:
    match = _OWNED.fullmatch(path.name)
    if match is None or match["machine"] != _machine():
        return time.time() - _last_change(path) < KEPT_SECONDS
    try:
        process = psutil.Process(int(match["pid"]))
        return process.status() != psutil.STATUS_ZOMBIE and _start_of(process) == int(match["start"])
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _last_change(path: Path) -> float:
    """Time of the last change of a file, or of anything in a folder; 0 if it no longer exists."""
    times = [0.0]
    for one in [path, *path.rglob("*")]:
        try:
            times.append(one.lstat().st_mtime)
        except FileNotFoundError:
            continue
    return max(times)


def _start_of(process: psutil.Process) -> int:
    """Start time of a process in hundredths of a second; on Linux since boot, so that clock changes do not affect it.

    psutil computes the time of day from the boot time, which changes with the system's clock.
    """
    boot = psutil.boot_time() if sys.platform == "linux" else 0.0
    return round(100 * (process.create_time() - boot))


@cache
def _machine() -> str:
    """Identify this machine or container, since process numbers are only unique within it."""
    return blake2b(node().encode(), digest_size=4).hexdigest()
