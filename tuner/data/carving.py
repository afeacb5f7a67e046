"""Choose test images from class folders without a test part: the images whose files have a low hash.

The hash depends only on the bytes of a file, so adding, renaming or removing other files moves no image. Images are
chosen in each class separately, so that each class has images on both sides.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.data.dataset import Report
from tuner.data.splits import TEST_FRACTION
from tuner.data.threads import map_in_threads
from tuner.errors import DataError

LIMIT = int(TEST_FRACTION * 2**64)
"""Test images have hashes below this limit; all hashes are between 0 and 2**64 - 1."""

_READ_BYTES = 2**20


@dataclass(frozen=True, eq=False)
class Carving:
    """test_N: int64 rows of the test images, ascending. moved: classes that do not follow the rule exactly."""

    test_N: NDArray[np.int64]
    moved: tuple[str, ...]


def carve_test_part(
    files: Sequence[Path],
    labels_N: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    num_left: int,
    report: Report | None,
) -> Carving:
    """Choose the test images: about a fifth of all images, and at least one of each class.

    A class that would have no test image gives the image with the lowest hash. A class that would keep fewer than
    `num_left` images keeps those with the highest hashes. Files with equal bytes in one class are on the same side.
    Raises DataError if a class has too few different files for that, or if a file cannot be read.
    """
    hashes_N = list(map_in_threads(hash_file, files, what="reading files", report=report))
    chosen, moved = list[int](), list[str]()
    for label, name in enumerate(class_names):
        rows = np.flatnonzero(labels_N == label).tolist()
        test_rows, is_bent = _choose(rows, hashes_N, num_left=num_left)
        if not test_rows:
            num_different = len({hashes_N[row] for row in rows})
            raise DataError(
                f"a class without test images must have different files for a test part and for {num_left} images "
                f"besides; {name!r} has {len(rows)} files, {num_different} of them different: add images or remove the "
                "class"
            )
        chosen += test_rows
        moved += [name] * is_bent
    return Carving(np.sort(np.array(chosen, dtype=np.int64)), tuple(moved))


def hash_file(path: Path) -> int:
    """Hash the bytes of a file to an integer in 0..2**64 - 1. Raises DataError if the file cannot be read."""
    digest = hashlib.blake2b(digest_size=8, person=b"tuner test part")
    try:
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"every file of an image folder must be readable; {error}: fix or remove it") from error
    return int.from_bytes(digest.digest())


def _choose(rows: Sequence[int], hashes_N: Sequence[int], *, num_left: int) -> tuple[list[int], bool]:
    """Return the test rows of one class (none if impossible), and whether they differ from those below LIMIT."""
    ordered = sorted({hashes_N[row] for row in rows})
    num_low = sum(value < LIMIT for value in ordered)
    num_chosen = max(num_low, 1)
    while num_chosen:
        limit = ordered[num_chosen - 1]
        test_rows = [row for row in rows if hashes_N[row] <= limit]
        if len(rows) - len(test_rows) >= num_left:
            return test_rows, num_chosen != num_low
        num_chosen -= 1
    return [], True
