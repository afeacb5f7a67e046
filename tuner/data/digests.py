"""Digests of an image set: of its source, which identifies the set, and of its decoded pixels, which reveals damage."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.data.dataset import Report

_READ_BYTES = 4 * 2**20
_REPORT_BYTES = 256 * 2**20
"""Larger sets are checked with a progress bar."""
_HASHED_ROWS = 1024


def hash_lines(lines: Iterable[str]) -> str:
    """Digest of a sequence of strings, including the boundaries between them."""
    return hashlib.blake2b(json.dumps(list(lines)).encode(), digest_size=16).hexdigest()


def hash_array(images_NCHW: NDArray[np.uint8]) -> str:
    """Digest of an array's shape and values, whatever its memory layout."""
    digest = hashlib.blake2b(json.dumps(["array", images_NCHW.shape]).encode(), digest_size=16)
    for start in range(0, len(images_NCHW), _HASHED_ROWS):
        digest.update(images_NCHW[start : start + _HASHED_ROWS].tobytes())
    return digest.hexdigest()


def hash_source(
    images_digest: str,
    labels_N: NDArray[np.int64],
    class_names: Sequence[str],
    validation_start: int | None,
    groups_N: NDArray[np.int64] | None = None,
) -> str:
    """Digest of the images, labels, class names, validation part and groups, equal at any image size.

    images_digest: digest of the image files or array.
    """
    digest = hashlib.blake2b(json.dumps([images_digest, list(class_names), validation_start]).encode(), digest_size=16)
    digest.update(labels_N.astype("<i8").tobytes())
    if groups_N is not None:
        digest.update(groups_N.astype("<i8").tobytes())
    return digest.hexdigest()


def hash_pixels(
    images_file: Path,
    labels_file: Path,
    class_names: Sequence[str],
    validation_start: int | None,
    *,
    report: Report | None,
    take_rows: Callable[[NDArray[np.uint8]], None] | None = None,
) -> str:
    """Digest of the cached images, labels, class names and validation part; paths and times are not part of it.

    take_rows: called with the bytes of the images (N, B), block by block, in another thread. Raises OSError or
    ValueError for files that cannot be read.
    """
    try:
        mapped_NCHW, labels_N = np.load(images_file, mmap_mode="r"), np.load(labels_file)
        shape_NCHW, offset, type_code = mapped_NCHW.shape, mapped_NCHW.offset, mapped_NCHW.dtype.str
        del mapped_NCHW
    # NumPy parses a header as Python: of a damaged one it raises whatever comes first.
    except Exception as error:
        raise ValueError(f"a header cannot be read: {error}") from error
    if type_code != "|u1" or len(shape_NCHW) != 4:
        raise ValueError(f"images are uint8 in 4 dimensions, not {type_code} in {len(shape_NCHW)}")
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([shape_NCHW, list(class_names), validation_start]).encode())
    digest.update(labels_N.astype("<i8").tobytes())
    num_bytes, image_bytes = math.prod(shape_NCHW), math.prod(shape_NCHW[1:])
    block_bytes = min(max(1, _READ_BYTES // image_bytes) * image_bytes, num_bytes)
    num_read = 0
    # Read, not mapped: what is mapped stays in the process's memory until others need it.
    with FileIO(images_file) as file, ThreadPoolExecutor(max_workers=1) as pool:
        file.seek(offset)
        buffer = np.empty(block_bytes, dtype=np.uint8)
        while num_read < num_bytes:
            block = buffer[: num_bytes - num_read]
            _read_into(block, file)
            taken = None if take_rows is None else pool.submit(take_rows, block.reshape(-1, image_bytes))
            digest.update(block.data)
            if taken is not None:
                taken.result()
            num_read += len(block)
            if report is not None and num_bytes > _REPORT_BYTES:
                report("checking the decoded images", num_read * shape_NCHW[0] // num_bytes, shape_NCHW[0])
    return digest.hexdigest()


def _read_into(block: NDArray[np.uint8], file: FileIO) -> None:
    wanted = block.data
    while len(wanted):
        length = file.readinto(wanted)
        if not length:
            raise OSError("it ends too early")
        wanted = wanted[length:]
