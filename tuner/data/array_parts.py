"""Data sets of arrays with labels: labels become classes, images become uint8, and a missing test part is set aside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.data.array_labels import Classes, classes_of, indices_of, labels_from
from tuner.data.array_values import array_from, bytes_from, channels_first, refuse_not_finite, value_rule
from tuner.data.arrays import ArrayPart, source_from_arrays
from tuner.data.carving import hash_bytes
from tuner.data.dataset import DecodableSource, Decoding
from tuner.data.groups import describe_groups, groups_from_array, numbers_of, refuse_cut_groups
from tuner.data.reading import Levels, Reading
from tuner.data.set_aside import check_label_counts, set_test_aside
from tuner.errors import DataError

TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True, eq=False)
class RawPart:
    """A part as it was given: images, labels and perhaps groups, and how errors call each of them."""

    images: Any
    labels: Any
    images_word: str
    labels_word: str
    groups: Any = None
    groups_word: str = ""


@dataclass(frozen=True, eq=False)
class _Part:
    """given_NCHW: the images with the values that were given. images_NCHW: uint8. labels_N: int64.

    groups: the group of each image; None without groups.
    """

    given_NCHW: NDArray[Any]
    images_NCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    groups: list[str] | None

    def take(self, rows_N: NDArray[np.int64]) -> "_Part":
        groups = None if self.groups is None else [self.groups[row] for row in rows_N]
        return _Part(self.given_NCHW[rows_N], self.images_NCHW[rows_N], self.labels_N[rows_N], groups)


@dataclass(frozen=True, eq=False)
class _Converted:
    """All parts, by name. levels: as in ValueRule. notes: lines for the user."""

    classes: Classes
    parts: dict[str, _Part]
    levels: Levels | None
    notes: list[str]


def source_from_parts(
    name: str, raw: Mapping[str, RawPart], *, class_names: Sequence[str] | None, decoding: Decoding
) -> DecodableSource:
    """Make a source from the part TRAIN and, if they are given, VALIDATION and TEST.

    Raises DataError for arrays that are no images with labels, or that cannot be split.
    """
    converted = _convert(name, raw, class_names, reading=decoding.reading)
    classes, parts, notes = converted.classes, converted.parts, converted.notes
    train, validation = parts[TRAIN], parts.get(VALIDATION)
    has_validation = validation is not None
    check_label_counts(train.labels_N, classes.names, place=name, has_validation=has_validation, has_test=TEST in parts)
    if TEST not in parts:
        given_NCHW = train.given_NCHW
        aside = set_test_aside(
            name,
            train.labels_N,
            classes.names,
            hashes_of=lambda: [hash_bytes(image_CHW.tobytes()) for image_CHW in given_NCHW],
            kind="image",
            has_validation=has_validation,
            groups=train.groups,
        )
        notes.append(aside.note)
        parts[TEST], train = train.take(aside.test_N), train.take(aside.rest_N)
    test = parts[TEST]
    return source_from_arrays(
        name,
        classes.names,
        development=_development(name, train, validation, notes),
        test=ArrayPart(test.images_NCHW, test.labels_N, tuple(notes)),
        decoding=decoding,
        levels=converted.levels,
    )


def _convert(
    name: str, raw: Mapping[str, RawPart], class_names: Sequence[str] | None, *, reading: Reading | None
) -> _Converted:
    images = {
        key: channels_first(array_from(part.images, part.images_word), part.images_word) for key, part in raw.items()
    }
    for key, part in raw.items():
        refuse_not_finite(images[key], part.images_word)
    labels = {key: labels_from(part.labels, part.labels_word, num_images=len(images[key])) for key, part in raw.items()}
    classes = classes_of(labels[TRAIN], class_names, raw[TRAIN].labels_word)
    groups = {key: _groups(part, num_images=len(images[key])) for key, part in raw.items()}
    without = [key for key, found in groups.items() if found is None]
    if 0 < len(without) < len(groups):
        raise DataError(f"all parts must have groups, or none; the {without[0]} part of {name} has none")
    refuse_cut_groups({key: found for key, found in groups.items() if found is not None}, name)
    rule = value_rule([images[key] for key in (TRAIN, VALIDATION) if key in raw], name, reading)
    parts = {
        key: _Part(
            images[key],
            bytes_from(images[key], rule, part.images_word),
            indices_of(labels[key], classes, part.labels_word),
            groups[key],
        )
        for key, part in raw.items()
    }
    notes = [rule.note] if rule.note else []
    if not without:
        notes.append(describe_groups(group for found in groups.values() if found is not None for group in found))
    notes += [*classes.notes, *_notes_on_missing_classes(parts, classes, raw)]
    return _Converted(classes, parts, rule.levels, notes)


def _groups(part: RawPart, *, num_images: int) -> list[str] | None:
    return None if part.groups is None else groups_from_array(part.groups, part.groups_word, num_images=num_images)


def _notes_on_missing_classes(parts: Mapping[str, _Part], classes: Classes, raw: Mapping[str, RawPart]) -> list[str]:
    notes = []
    for key, part in parts.items():
        counts_K = np.bincount(part.labels_N, minlength=len(classes.names))
        if missing := [name for name, count in zip(classes.names, counts_K, strict=True) if not count]:
            shown = ", ".join(map(repr, missing[:3])) + (", ..." if len(missing) > 3 else "")
            num = "1 class" if len(missing) == 1 else f"{len(missing):,} classes"
            notes.append(f"{raw[key].labels_word} have no image of {num} ({shown})")
    return notes


def _development(name: str, train: _Part, validation: _Part | None, notes: Sequence[str]) -> ArrayPart:
    if validation is None:
        groups_N = None if train.groups is None else numbers_of(train.groups)
        return ArrayPart(train.images_NCHW, train.labels_N, tuple(notes), groups_N=groups_N)
    shapes = [part.images_NCHW.shape[1:] for part in (train, validation)]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"the training and validation images of {name} must have the same shape; they have {shapes[0]} and "
            f"{shapes[1]} (C, H, W): resize or convert them"
        )
    return ArrayPart(
        np.concatenate([train.images_NCHW, validation.images_NCHW]),
        np.concatenate([train.labels_N, validation.labels_N]),
        tuple(notes),
        validation_start=len(train.labels_N),
    )
