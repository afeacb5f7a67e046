"""Choose test images from images without a test part: those whose files or pixels have a low hash.

The hash depends only on the bytes of one image, so adding, renaming or removing other images moves none. Images are
chosen in each class separately, so that each class has images on both sides. A class whose images are all the same is
on both sides too, which the checks of the data (data_checks.py) report.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.data.splits import TEST_FRACTION, part_size
from tuner.errors import BrokenImage, DataError, reason_of

LIMIT = int(TEST_FRACTION * 2**64)
"""Test images have hashes below this limit; all hashes are between 0 and 2**64 - 1."""

_READ_BYTES, _PERSON = 2**20, b"tuner test part"


@dataclass(frozen=True, eq=False)
class Carving:
    """test_N: int64 rows of the test images, ascending. moved: classes that do not follow the rule exactly.

    copied: classes whose images are all the same.
    """

    test_N: NDArray[np.int64]
    moved: tuple[str, ...]
    copied: tuple[str, ...]


def carve(
    hashes_N: Sequence[int], labels_N: NDArray[np.int64], class_names: Sequence[str], *, num_left: int, kind: str
) -> Carving:
    """Choose the test images by their hashes: about a fifth of all images, and at least one of each class.

    A class that would have no test image gives the image with the lowest hash. A class that would keep fewer than
    `num_left` images keeps those with the highest hashes. Images with equal hashes in one class are on the same
    side, unless all images of the class are equal: then about a fifth of them become test images. kind: what is hashed,
    for errors. Raises DataError if a class has too few different images for that.
    """
    chosen, moved, copied = list[int](), list[str](), list[str]()
    for label, name in enumerate(class_names):
        rows = np.flatnonzero(labels_N == label).tolist()
        test_rows, is_bent = _choose(rows, hashes_N, num_left=num_left)
        if not test_rows and len({hashes_N[row] for row in rows}) == 1:
            test_rows = rows[: min(part_size(len(rows), TEST_FRACTION), len(rows) - num_left)]
            is_bent = False
            copied.append(name)
        if not test_rows:
            num_different = len({hashes_N[row] for row in rows})
            raise DataError(
                f"a class without test images must have different {kind} for a test part and for {num_left} images "
                f"besides; {name!r} has {len(rows)} {kind}, {num_different} of them different: add images or remove "
                "the class"
            )
        chosen += test_rows
        moved += [name] * is_bent
    return Carving(np.sort(np.array(chosen, dtype=np.int64)), tuple(moved), tuple(copied))


def hash_bytes(content: bytes) -> int:
    """Hash bytes to an integer in 0..2**64 - 1."""
    return int.from_bytes(hashlib.blake2b(content, digest_size=8, person=_PERSON).digest())


def hash_file(path: Path) -> int:
    """Hash the bytes of a file to an integer in 0..2**64 - 1. Raises BrokenImage if the file cannot be read."""
    digest = hashlib.blake2b(digest_size=8, person=_PERSON)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise BrokenImage(path, reason_of(error)) from error
    return int.from_bytes(digest.digest())


def check_counts(counts: Mapping[str, int], *, place: str | Path, has_validation: bool, has_test: bool) -> None:
    """Raise DataError for a class with too few training images. counts: number of training images by class."""
    needs = ["train"] + ["validation"] * (not has_validation) + ["test"] * (not has_test)
    for name, count in counts.items():
        if count < len(needs):
            raise DataError(
                f"a class must have an image for each of {', '.join(needs)}; {name!r} in {place} has "
                f"{count}: add images or remove the class"
            )


def describe_carving(name: str, carving: Carving, labels_N: NDArray[np.int64], *, kind: str, of_training: str) -> str:
    """Say which images are set aside. kind: what is hashed. of_training: "training " if there is a validation part."""
    num_images, num_test = len(labels_N), len(carving.test_N)
    counts_K = np.bincount(labels_N)
    shares_K = np.bincount(labels_N[carving.test_N], minlength=len(counts_K)) / counts_K
    note = (
        f"{name} has no test part: {num_test:,} of its {num_images:,} {of_training}images "
        f"({num_test / num_images:.1%}; {shares_K.min():.1%} to {shares_K.max():.1%} of a class), chosen by a hash of "
        f"each {kind}, are set aside as the sealed test set"
    )
    if carving.moved:
        note += f"; in {_classes(carving.moved)} the limit was moved, so that every part has images of each class"
    if carving.copied:
        note += f"; in {_classes(carving.copied)} all images are the same, and every part has some of them"
    return note


def _classes(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    return f"1 class ({shown})" if len(names) == 1 else f"{len(names):,} classes ({shown})"


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
