"""Turn arrays of labels into class indices and class names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.data.array_values import array_from
from tuner.errors import DataError
from tuner.names import first_few, shortened, shown_name


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of a data set.

    labels_K: the label of each class in the arrays, ascending. notes: lines for the user.
    """

    labels_K: NDArray[Any]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def labels_from(value: Any, what: str, *, num_images: int) -> NDArray[Any]:
    """Return one label for each image: int64, or text. Labels of shape (N, 1) are flattened.

    Raises DataError for labels that are missing, not one per image, not whole, or negative.
    """
    labels = array_from(value, what)
    if labels.dtype == object and all(isinstance(label, str) for label in labels.flat):
        labels = labels.astype(str)  # as pandas stores text
    if labels.ndim == 2 and labels.shape[1] > 1:
        is_one_hot = labels.dtype.kind in "buif" and bool((np.sort(labels, axis=1)[:, -2:] == (0, 1)).all())
        what_to_do = "they look one-hot, so give labels.argmax(1)" if is_one_hot else "an image has one class here"
        raise DataError(f"{what} must be one label per image; they have shape {labels.shape}: {what_to_do}")
    if labels.ndim == 2:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{what} must have shape (N,) or (N, 1); they have {labels.shape}")
    if len(labels) != num_images:
        raise DataError(f"every image must have a label; there are {num_images:,} images, and {len(labels):,} {what}")
    if labels.dtype.kind in "US":
        return _as_text(labels, what)
    _refuse_beyond_64_bits(labels, what)
    if labels.dtype.kind not in "buif":
        raise DataError(f"{what} must be whole numbers or text; they have type {labels.dtype}")
    if labels.dtype.kind == "f" and (num_others := int((~(labels == np.rint(labels))).sum())) > 0:
        are = "is" if num_others == 1 else "are"
        raise DataError(
            f"{what} must be whole numbers or text; {num_others:,} of {len(labels):,} {are} NaN or a fraction: fix or "
            "remove these images"
        )
    if labels.min() < 0:
        raise DataError(f"{what} must not be negative; the smallest is {labels.min():g}: remove images without a class")
    return labels.astype(np.int64)


def _refuse_beyond_64_bits(labels: NDArray[Any], what: str) -> None:
    """Raise DataError for whole numbers that int64 cannot hold. To NumPy, the largest ones of Python are objects."""
    if labels.dtype.kind in "uf":
        largest = labels.max(initial=0, where=~np.isnan(labels))
    elif labels.dtype == object and all(type(label) is int for label in labels):
        largest = max(labels)
    else:
        return
    if largest >= 2**63:
        raise DataError(
            f"{what} must be less than 2**63; one is {shortened(str(largest))}: number the classes from 0, or give the "
            "labels as text"
        )


def _as_text(labels: NDArray[Any], what: str) -> NDArray[Any]:
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "surrogateescape")
    labels = np.char.strip(labels)
    if (num_empty := int((labels == "").sum())) > 0:
        raise DataError(f"every image must have a label; {num_empty:,} of the {what} are empty")
    return labels


def classes_of(train_labels: NDArray[Any], class_names: Sequence[str] | None, what: str) -> Classes:
    """Return the classes of the training labels.

    With names, label k has name k, and text labels must be names. Without names, each distinct label is a class that is
    named after it. Raises DataError for fewer than 2 classes, and for names that do not fit the labels.
    """
    found_K = np.unique(train_labels)
    is_text = train_labels.dtype.kind == "U"
    if class_names is None:
        names = tuple(shown_name(str(label)) for label in found_K)
        _check_names(names, what)
        return Classes(found_K, names, () if is_text else _note_on_gaps(found_K, what))
    names = tuple(class_names)
    if isinstance(class_names, str) or not all(isinstance(name, str) and name for name in names):
        raise DataError(f"class names must be a sequence of texts that are not empty; got {class_names!r}")
    names = tuple(map(shown_name, names))
    _check_names(names, what)
    labels_K = np.array(names) if is_text else np.arange(len(names))
    unknown = found_K[~np.isin(found_K, labels_K)]
    if len(unknown):
        rule = "be class names" if is_text else f"be in 0..{len(names) - 1}, since there are {len(names)} class names"
        raise DataError(f"{what} must {rule}; there is {first_few(unknown.tolist())}")
    missing = [name for name, label in zip(names, labels_K, strict=True) if label not in found_K]
    if missing:
        what_to_do = "remove the name" if is_text else "remove the name and renumber the labels after it"
        raise DataError(
            f"every class name must have training images; {first_few(missing)} has none in {what}: add "
            f"images of this class, or {what_to_do}"
        )
    order = np.argsort(labels_K)
    return Classes(labels_K[order], tuple(names[index] for index in order))


def indices_of(labels: NDArray[Any], classes: Classes, what: str) -> NDArray[np.int64]:
    """Return the class index of each label. Raises DataError for a label that no training image has."""
    if labels.dtype.kind != classes.labels_K.dtype.kind:
        raise DataError(f"the labels of all parts must be of one kind; {what} and those of training are not")
    unknown = np.unique(labels[~np.isin(labels, classes.labels_K)])
    if len(unknown):
        raise DataError(
            f"{what} must be classes of the training images; {first_few(unknown.tolist())} is not: add or remove them"
        )
    return np.searchsorted(classes.labels_K, labels).astype(np.int64)


def _check_names(names: Sequence[str], what: str) -> None:
    if len(names) < 2:
        raise DataError(f"a data set must have at least 2 classes; {what} have {len(names)}: {first_few(names)}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"every class must have a name of its own; {twice[0]!r} is there twice: rename one")


def _note_on_gaps(found_K: NDArray[np.int64], what: str) -> tuple[str, ...]:
    first, last = int(found_K[0]), int(found_K[-1])
    num_missing = last - first + 1 - len(found_K)
    if not num_missing:
        return ()
    return (
        f"{what} are in {first}..{last}, and {num_missing:,} of these numbers do not occur: the {len(found_K):,} "
        "labels that occur are the classes",
    )
