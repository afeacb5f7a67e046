"""Set a test part aside from training images that come without one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.data.carving import carve, check_counts, describe_carving, hash_bytes
from tuner.data.group_split import choose_groups
from tuner.data.groups import numbers_of
from tuner.data.splits import TEST_FRACTION, part_size


@dataclass(frozen=True, eq=False)
class SetAside:
    """int64 rows of the test part and of the rest, each ascending. note: says which images were chosen."""

    test_N: NDArray[np.int64]
    rest_N: NDArray[np.int64]
    note: str


def set_test_aside(
    name: str,
    labels_N: NDArray[np.int64],
    class_names: Sequence[str],
    *,
    hashes_of: Callable[[], Sequence[int]],
    kind: str,
    has_validation: bool,
    groups: Sequence[str] | None = None,
) -> SetAside:
    """Choose test images as `carve` does, or about a fifth of the images as whole groups.

    hashes_of: returns the hash of each image. kind: what is hashed, such as "file". has_validation: whether there is a
    validation part, so that none must be taken from the rest. groups: the group of each image, if there are groups.
    Raises DataError if a class has too few images or groups.
    """
    num_left, of_training = (1, "training ") if has_validation else (2, "")
    if groups is not None:
        return _set_groups_aside(name, labels_N, class_names, groups, num_left=num_left, of_training=of_training)
    carving = carve(hashes_of(), labels_N, class_names, num_left=num_left, kind=f"{kind}s")
    return SetAside(
        carving.test_N,
        np.setdiff1d(np.arange(len(labels_N)), carving.test_N),
        describe_carving(name, carving, labels_N, kind=kind, of_training=of_training),
    )


def _set_groups_aside(
    name: str,
    labels_N: NDArray[np.int64],
    class_names: Sequence[str],
    groups: Sequence[str],
    *,
    num_left: int,
    of_training: str,
) -> SetAside:
    names, groups_N = sorted(set(groups)), numbers_of(groups)

    def order(attempt: int) -> NDArray[np.int64]:
        hashes = [hash_bytes(f"{attempt} {one}".encode("utf-8", "surrogateescape")) for one in names]
        return np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")

    num_images = len(labels_N)
    total = part_size(num_images, TEST_FRACTION)
    test_N = choose_groups(labels_N, groups_N, class_names, total=total, order=order, num_left=num_left)
    note = (
        f"{name} has no test part: {len(test_N):,} of its {num_images:,} {of_training}images "
        f"({len(test_N) / num_images:.1%}), which are {len(set(groups_N[test_N])):,} of {len(names):,} groups, are set "
        "aside as the sealed test set"
    )
    return SetAside(test_N, np.setdiff1d(np.arange(num_images), test_N), note)


def check_label_counts(
    labels_N: NDArray[np.int64], class_names: Sequence[str], *, place: str | Path, has_validation: bool, has_test: bool
) -> None:
    """Raise DataError for a class with too few training images to be split. labels_N: of the training images."""
    counts = np.bincount(labels_N, minlength=len(class_names)).tolist()
    named = dict(zip(class_names, counts, strict=True))
    check_counts(named, place=place, has_validation=has_validation, has_test=has_test)
