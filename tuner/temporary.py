"""Temporary files and folders: their names, which say which process owns them, and the removal of those left behind.

A name is `.NAME.MACHINE-PID-START.tmp`. A process is known by its machine, its number and its start, since a number is
given again after a process has ended.
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
"""Since the last change, after which a temporary file is removed whose owner cannot be asked for: one of another
machine that shares the folder, or of an older version, whose names did not say it."""

_OWNED = re.compile(r"\.(?P<name>.+)\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}\.tmp")
_OLDER = re.compile(r"\.(?P<name>.+)\.(\d+|[a-z0-9_]{8})\.tmp")


def temporary_beside(target: Path) -> Path:
    """A new name beside a file or a folder, to write to until it is whole; it belongs to this process."""
    owner = f"{_machine()}-{os.getpid()}-{_start_of(psutil.Process())}"
    return target.with_name(f".{_shortened(target.name)}.{owner}-{uuid.uuid4().hex[:8]}.tmp")


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what processes that are gone have left half written in a folder; what a living one owns stays.

    name: of the target that it was to become; None for any. What another user owns stays as well. Raises OSError.
    """
    for path in temporaries(folder, name):
        if not _is_in_use(path):
            with suppress(PermissionError):
                remove(path)


def in_use(folder: Path) -> list[Path]:
    """The temporary files and folders directly in a folder that may be those of a living process."""
    return [path for path in temporaries(folder) if _is_in_use(path)]


def remove(path: Path) -> None:
    """Remove a file, a folder, or a link but not what it leads to. One that is gone already is no error."""
    try:
        if path.is_dir() and not is_link(path):
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return


def is_link(path: Path) -> bool:
    """Whether a path is a symbolic link, or a junction of Windows."""
    return path.is_symlink() or (sys.version_info >= (3, 12) and path.is_junction())


def _shortened(name: str) -> str:
    """So much of a name as leaves room for its owner: file systems allow 255 bytes."""
    return name[:40]


def temporaries(folder: Path, name: str | None = None) -> Iterator[Path]:
    """The temporary files and folders directly in a folder, of every owner; name: as for remove_leftovers."""
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
    """When a file, or anything in a folder, was last written to; 0 for one that is gone."""
    times = [0.0]
    for one in [path, *path.rglob("*")]:
        try:
            times.append(one.lstat().st_mtime)
        except FileNotFoundError:
            continue
    return max(times)


def _start_of(process: psutil.Process) -> int:
    """When a process has started, in hundredths of a second; on Linux since the boot, which no change of a clock moves.

    psutil computes the time of day of it from the time of the boot, which the system moves with its clock.
    """
    boot = psutil.boot_time() if sys.platform == "linux" else 0.0
    return round(100 * (process.create_time() - boot))


@cache
def _machine() -> str:
    """This machine, or this container: the same number means another process elsewhere."""
    return blake2b(node().encode(), digest_size=4).hexdigest()
