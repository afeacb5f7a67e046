"""What a look at a data set finds before anything is trained on it, and what makes its scores meaningless."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from tuner.data.image_records import PartRecords
from tuner.data.reading import VISIBLE
from tuner.data.resizing import DEFAULT_RESIZING, Resizing
from tuner.data.unused_files import UnusedFiles
from tuner.errors import DataError
from tuner.formats import refuse_newer_format

CHECKS_FORMAT = 1
"""Raised when checks of a later version would be read wrongly by this one; a new key raises nothing."""
PROBLEMS = ("duplicates", "constant", "labels")
"""Names of what makes a score meaningless. They are errors, unless `--allow NAME` accepts them."""
MOST_SHARE = 0.01
"""Largest share of test images that may also be development images, and of images that may have two labels."""
UNEVEN = 3
"""Classes are uneven if the largest has more than this number of times the images of the smallest."""
FEW = 10
"""A class with fewer training and validation images is reported."""


@dataclass(frozen=True, kw_only=True)
class DataChecks:
    """What a look at both parts of a data set has found. Images are the same if their decoded pixels are.

    num_development, num_test, num_distinct: images of each class in the development part and in the test part, and
    different images of the class in both. num_validation: images of the source's own validation part, 0 if it has none.
    test_in_development: test images that are also in the development part. validation_in_train: images of the source's
    own validation part that are also in its train part. repeated_development, repeated_test: images that repeat an
    earlier image of their part. two_labels: images of both parts that also exist under another label. constant_images:
    images of both parts with one value in every pixel. faint_images: other images of both parts whose values differ by
    less than VISIBLE; None in checks of an earlier version. cropped_mean, cropped_most: share of the pixels of an image
    that the centre crop takes away, over both parts; None if the original sizes are not known. unused: number of files
    of the source that are not used, by extension.
    """

    class_names: tuple[str, ...]
    num_development: tuple[int, ...]
    num_test: tuple[int, ...]
    num_distinct: tuple[int, ...]
    num_validation: int
    test_in_development: int
    validation_in_train: int
    repeated_development: int
    repeated_test: int
    two_labels: int
    constant_images: int
    cropped_mean: float | None
    cropped_most: float | None
    unused: UnusedFiles = field(default_factory=dict)
    faint_images: int | None = None

    @property
    def total_development(self) -> int:
        """Number of images in the development part."""
        return sum(self.num_development)

    @property
    def total_test(self) -> int:
        """Number of images in the test part."""
        return sum(self.num_test)

    @property
    def total(self) -> int:
        """Number of images in both parts."""
        return self.total_development + self.total_test

    @property
    def largest_class(self) -> int:
        """The label with the most images in the development part."""
        return int(np.argmax(self.num_development))

    @property
    def smallest_class(self) -> int:
        """The label with the fewest images in the development part."""
        return int(np.argmin(self.num_development))

    @property
    def largest_share(self) -> float:
        """Share of the development part that its largest class has."""
        return max(self.num_development) / self.total_development

    @property
    def are_classes_uneven(self) -> bool:
        """Whether accuracy alone says little, because classes differ too much in size."""
        return are_uneven(self.num_development)

    @property
    def constant_classes(self) -> tuple[int, ...]:
        """Labels of classes in which all images are the same."""
        return tuple(label for label, number in enumerate(self.num_distinct) if number == 1)

    @property
    def few_classes(self) -> tuple[int, ...]:
        """Labels of classes with fewer than FEW images in the development part."""
        return tuple(label for label, number in enumerate(self.num_development) if number < FEW)

    @property
    def untested_classes(self) -> tuple[int, ...]:
        """Labels of classes without test images."""
        return tuple(label for label, number in enumerate(self.num_test) if not number)

    @property
    def problems(self) -> tuple[str, ...]:
        """What makes the scores of this data set meaningless: names of PROBLEMS."""
        found = {
            "duplicates": self.test_in_development > MOST_SHARE * self.total_test,
            "constant": bool(self.constant_classes),
            "labels": self.two_labels > MOST_SHARE * self.total,
        }
        return tuple(name for name in PROBLEMS if found[name])

    def to_json(self) -> dict[str, Any]:
        """The JSON object that `tuner check --json` prints and a study stores."""
        data: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        largest = {"name": self.class_names[self.largest_class], "share": self.largest_share}
        few, untested = (
            [self.class_names[label] for label in labels] for labels in (self.few_classes, self.untested_classes)
        )
        return {
            "format": CHECKS_FORMAT,
            "problems": list(self.problems),
            "largest_class": largest,
            "few_classes": few,
            "untested_classes": untested,
            **data,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> DataChecks:
        """Read what to_json returned. Raises NewerFormatError, and ValueError for anything else."""
        refuse_newer_format(data, known=CHECKS_FORMAT, what="checks of data")
        return _ADAPTER.validate_python(data)


_ADAPTER = TypeAdapter(DataChecks)


def are_uneven(counts: Sequence[int]) -> bool:
    """Whether the largest class has more than UNEVEN times the images of the smallest one that has any."""
    present = [count for count in counts if count]
    return bool(present) and max(present) > UNEVEN * min(present)


def compare_parts(
    development: PartRecords,
    test: PartRecords,
    class_names: Sequence[str],
    *,
    validation_start: int | None,
    image_size: tuple[int, int],
    resizing: Resizing = DEFAULT_RESIZING,
    unused: UnusedFiles,
) -> DataChecks:
    """Compare the records of both parts. validation_start: first row of the source's own validation part, if any."""
    num_development, num_classes = len(development.labels_N), len(class_names)
    records_N = np.concatenate([development.records_N, test.records_N])
    labels_N = np.concatenate([development.labels_N, test.labels_N])
    groups_N, num_groups = _group(records_N["pixels"])
    ours_N, theirs_N = groups_N[:num_development], groups_N[num_development:]
    start = num_development if validation_start is None else validation_start
    pairs = np.unique(groups_N * num_classes + labels_N)
    labels_of_group = np.bincount(pairs // num_classes, minlength=num_groups)
    cropped_N = _cropped_shares(records_N, image_size, resizing)
    spans_N = records_N["high"].astype(np.int64) - records_N["low"]
    return DataChecks(
        class_names=tuple(class_names),
        num_development=_counts(development.labels_N, num_classes),
        num_test=_counts(test.labels_N, num_classes),
        num_distinct=_counts(pairs % num_classes, num_classes),
        num_validation=num_development - start,
        test_in_development=int(np.isin(theirs_N, ours_N).sum()),
        validation_in_train=int(np.isin(ours_N[start:], ours_N[:start]).sum()),
        repeated_development=len(ours_N) - len(np.unique(ours_N)),
        repeated_test=len(theirs_N) - len(np.unique(theirs_N)),
        two_labels=int((labels_of_group[groups_N] > 1).sum()),
        constant_images=int((spans_N == 0).sum()),
        faint_images=int(((spans_N > 0) & (spans_N < VISIBLE)).sum()),
        cropped_mean=float(cropped_N.mean()) if len(cropped_N) else None,
        cropped_most=float(cropped_N.max()) if len(cropped_N) else None,
        unused=dict(unused),
    )


def count_shared(development: PartRecords, test: PartRecords) -> int:
    """Count the test images that have exactly the same pixels as an image of the development part."""
    groups_N, _ = _group(np.concatenate([development.records_N["pixels"], test.records_N["pixels"]]))
    ours_N, theirs_N = np.split(groups_N, [len(development.records_N)])
    return int(np.isin(theirs_N, ours_N).sum())


def refuse_meaningless(checks: DataChecks, name: str, *, allowed: Collection[str]) -> None:
    """Raise DataError if the scores of a data set would be meaningless, for reasons that are not allowed."""
    refused = [problem for problem in checks.problems if problem not in allowed]
    if refused:
        reasons = "; ".join(f"{problem_in_words(checks, problem)} (--allow {problem})" for problem in refused)
        raise DataError(
            f"scores must say something about new images; those of {name} would not: {reasons}: "
            "fix the images, or accept this with the option in brackets"
        )


def problem_in_words(checks: DataChecks, problem: str) -> str:
    """Describe one of PROBLEMS with its numbers, or the same finding where it is too rare to be a problem."""
    return _WORDS[problem](checks)


def is_or_are(number: int) -> str:
    """The verb for a number of things."""
    return "is" if number == 1 else "are"


def _duplicates_in_words(checks: DataChecks) -> str:
    return (
        f"{checks.test_in_development:,} of the {checks.total_test:,} test images "
        f"({checks.test_in_development / checks.total_test:.1%}) "
        f"{is_or_are(checks.test_in_development)} also among the training and validation images, pixel for pixel"
    )


def _labels_in_words(checks: DataChecks) -> str:
    return (
        f"{checks.two_labels:,} of all {checks.total:,} images ({checks.two_labels / checks.total:.1%}) are also "
        "in the data set under another label, pixel for pixel"
    )


def _constant_in_words(checks: DataChecks) -> str:
    each = [
        f"{checks.class_names[label]!r} ({checks.num_development[label] + checks.num_test[label]:,} images)"
        for label in checks.constant_classes
    ]
    shown = ", ".join(each[:3]) + (f" and {len(each) - 3:,} more" if len(each) > 3 else "")
    have = "has" if len(each) == 1 else "have"
    return f"{len(each):,} of {len(checks.class_names):,} classes {have} only one distinct image: {shown}"


_WORDS: Mapping[str, Callable[[DataChecks], str]] = {
    "duplicates": _duplicates_in_words,
    "constant": _constant_in_words,
    "labels": _labels_in_words,
}


def _group(digests_N: NDArray[np.void]) -> tuple[NDArray[np.int64], int]:
    """Return the number of each digest among the different ones, and how many there are."""
    halves_N2 = np.ascontiguousarray(digests_N).view("<u8").reshape(-1, 2)
    order_N = np.lexsort(halves_N2.T)
    is_new_N = np.ones(len(order_N), dtype=bool)
    is_new_N[1:] = (halves_N2[order_N][1:] != halves_N2[order_N][:-1]).any(axis=1)
    groups_N = np.empty(len(order_N), dtype=np.int64)
    groups_N[order_N] = np.cumsum(is_new_N) - 1
    return groups_N, int(is_new_N.sum())


def _counts(labels_N: NDArray[np.int64], num_classes: int) -> tuple[int, ...]:
    return tuple(np.bincount(labels_N, minlength=num_classes).tolist())


def _cropped_shares(
    records_N: NDArray[np.void], image_size: tuple[int, int], resizing: Resizing
) -> NDArray[np.float64]:
    """Share of each image that is lost where an image is resized and centre-cropped to (height, width).

    Empty if the original size of an image is not known, so that no part is described by the other.
    """
    if not records_N["height"].all():
        return np.empty(0)
    heights_N, widths_N = records_N["height"].astype(np.float64), records_N["width"].astype(np.float64)
    height, width = image_size
    covered_height, covered_width = resizing.covered_size(image_size)
    scales_N = np.maximum(covered_height / heights_N, covered_width / widths_N)
    shares_N: NDArray[np.float64] = 1 - height * width / (scales_N**2 * heights_N * widths_N)
    return shares_N.clip(0, 1)
