"""Files of cached features: written whole with a checksum, checked when they are opened, deleted to make room."""

from __future__ import annotations

import errno
import io
import math
import os
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from tuner.temporary import remove_leftovers, temporary_beside

_BLOCK_BYTES = 2**20


def lock_of(path: Path) -> FileLock:
    """The lock that a process holds while it opens, computes or deletes a file of features."""
    return FileLock(path.with_suffix(".lock"))


def is_sound(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file has features of this shape and the checksum that is stored with it. Every byte is read once."""
    try:
        features_NX = np.load(path, mmap_mode="r")
        stored = _checksum_file(path).read_text(encoding="ascii")
        return bool(features_NX.shape == shape) and stored == f"{_checksum_of(path):08x}"
    except (EOFError, OSError, ValueError):  # missing or damaged: they are computed again
        return False


def write_features(path: Path, shape: tuple[int, ...], batches: Iterable[NDArray[np.float32]]) -> None:
    """Write features of a shape in the order of their batches, to a file that gets its name when it is whole.

    The space is reserved before the first batch is computed. Nothing is left of a file that is not finished. Raises
    OSError, for example if the disk is full.
    """
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
    temporary = temporary_beside(path)
    try:
        with temporary.open("w+b") as file:
            _reserve(file, len(header.getvalue()) + 4 * math.prod(shape))
            file.write(header.getvalue())
            checksum = zlib.crc32(header.getvalue())
            for batch in batches:
                values = batch.astype("<f4", copy=False).tobytes()
                file.write(values)
                checksum = zlib.crc32(values, checksum)
            file.flush()
            os.fsync(file.fileno())
        _checksum_file(path).write_text(f"{checksum:08x}", encoding="ascii")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_room(path: Path, num_bytes: int, limit_bytes: int) -> None:
    """Delete the least recently used features beside a path until a new file fits.

    A process that has features open keeps them. Features that a process is just opening are not deleted. Unfinished
    files of processes that have ended are removed too.
    """
    folder = path.parent
    remove_leftovers(folder)
    found: list[tuple[float, int, Path]] = []
    for other in folder.glob("*.npy"):
        with suppress(FileNotFoundError):  # another process may make room too
            status = other.stat()
            found.append((status.st_mtime, status.st_size, other))
    total = sum(size for _, size, other in found if other != path)
    for _, size, other in sorted(found):
        if total + num_bytes <= limit_bytes:
            return
        if other != path and delete_file(other, waits=False):
            total -= size


def delete_file(path: Path, *, waits: bool) -> bool:
    """Delete a file of features with its checksum and its lock.

    waits: whether to wait for a process that is just opening it; otherwise the result is false, and the file stays.

    Another process may already wait for the lock. It then computes the features at the same time as a third one, which
    makes a new lock, and each writes a file of its own.
    """
    try:
        with lock_of(path).acquire(timeout=-1 if waits else 0):
            _checksum_file(path).unlink(missing_ok=True)  # first: without it, the features are not used
            with suppress(PermissionError):  # on Windows, a file that is open stays
                path.unlink(missing_ok=True)
                path.with_suffix(".lock").unlink(missing_ok=True)
    except Timeout:
        return False
    return True


def _checksum_file(path: Path) -> Path:
    return path.with_suffix(".crc32")


def _checksum_of(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _reserve(file: IO[bytes], num_bytes: int) -> None:
    """Reserve space for a new file, so that a full disk is an error before anything is computed. Raises OSError."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some file systems have no such call
                raise
        else:
            return
    for start in range(0, num_bytes, _BLOCK_BYTES):
        file.write(bytes(min(_BLOCK_BYTES, num_bytes - start)))
    file.flush()
    file.seek(0)
