"""Set a test part aside from training images that come without one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.data.carving import carve, check_counts, describe_carving


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
) -> SetAside:
    """Choose test images as carve_test_part does.

    hashes_of: returns the hash of each image. kind: what is hashed, such as "file". has_validation: whether there is a
    validation part, so that none must be taken from the rest. Raises DataError if a class has too few images.
    """
    num_left, of_training = (1, "training ") if has_validation else (2, "")
    carving = carve(hashes_of(), labels_N, class_names, num_left=num_left, kind=f"{kind}s")
    return SetAside(
        carving.test_N,
        np.setdiff1d(np.arange(len(labels_N)), carving.test_N),
        describe_carving(name, carving, labels_N, kind=kind, of_training=of_training),
    )


def check_label_counts(
    labels_N: NDArray[np.int64], class_names: Sequence[str], *, place: str | Path, has_validation: bool, has_test: bool
) -> None:
    """Raise DataError for a class with too few training images to be split. labels_N: of the training images."""
    counts = np.bincount(labels_N, minlength=len(class_names)).tolist()
    named = dict(zip(class_names, counts, strict=True))
    check_counts(named, place=place, has_validation=has_validation, has_test=has_test)
