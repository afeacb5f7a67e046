"""Data sets in a NumPy archive (.npz): images and labels as arrays, in parts or together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.data.array_parts import TEST, TRAIN, VALIDATION, RawPart, source_from_parts
from tuner.data.dataset import DataSpec, DecodableSource, ListedSource
from tuner.data.given_path import given_path
from tuner.errors import DataError
from tuner.names import shown_name

_KEYS: tuple[Mapping[str, tuple[str, str, str]], ...] = (
    {
        TRAIN: ("train_images", "train_labels", "train_groups"),
        VALIDATION: ("val_images", "val_labels", "val_groups"),
        TEST: ("test_images", "test_labels", "test_groups"),
    },
    {
        TRAIN: ("x_train", "y_train", "groups_train"),
        VALIDATION: ("x_val", "y_val", "groups_val"),
        TEST: ("x_test", "y_test", "groups_test"),
    },
    {TRAIN: ("images", "labels", "groups")},
)
"""The names of images, labels and groups, by part: those of MedMNIST, those of Keras, and a single part."""
_CLASS_NAMES = "class_names"
_USES = (
    "train_images and train_labels (and val_..., test_...), x_train and y_train (and x_val, ..., x_test, ...), or "
    "images and labels"
)


def list_npz(spec: DataSpec) -> ListedSource:
    """List an archive. Raises DataError if there is none; its arrays are checked when it is read."""
    path = given_path(str(spec.dataset))
    if not path.is_file():
        raise DataError(f"--dataset must be an existing .npz file; there is no file {path}")
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"the file of a data set must be readable; {error}") from error
    lines = ("npz", str(path.resolve()), f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}")
    return ListedSource(listing=lines, read=lambda _: _read(path, spec))


def _read(path: Path, spec: DataSpec) -> DecodableSource:
    arrays = _load(path)
    keys = _find_keys(arrays, path)
    raw = {
        part: RawPart(
            arrays[images],
            arrays[labels],
            f"{images} of {path}",
            f"{labels} of {path}",
            arrays.get(groups),
            f"{groups} of {path}",
        )
        for part, (images, labels, groups) in keys.items()
    }
    class_names = None
    if _CLASS_NAMES in arrays:
        names = arrays[_CLASS_NAMES]
        if names.dtype.kind != "U" or names.ndim != 1:
            raise DataError(
                f"{_CLASS_NAMES} of {path} must be a row of texts; they are {names.dtype} of shape {names.shape}"
            )
        class_names = names.tolist()
    return source_from_parts(shown_name(path.stem) or "images", raw, class_names=class_names, decoding=spec.decoding)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """Load the arrays that this module knows; others are not read. Pickled objects are never loaded."""
    known = {_CLASS_NAMES, *(key for names in _KEYS for pair in names.values() for key in pair)}
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise ValueError("it is a single array: store images and labels with numpy.savez")
            return {key: archive[key] if key in known else np.empty(0) for key in archive.files}
    # NumPy parses headers as Python and zipfile reads whatever it finds: of damaged files they raise anything.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if "Object arrays" in reason:
            reason = "it contains Python objects, which could run code: store numbers or text of a fixed length"
        elif "pickled" in reason:
            reason = "it is no zip archive"
        raise DataError(f"a .npz file must be a whole archive of arrays; {path} is not ({reason})") from error


def _find_keys(arrays: Mapping[str, NDArray[Any]], path: Path) -> dict[str, tuple[str, str, str]]:
    """Return the names of the images, labels and groups of each part that is there; there may be no groups."""
    found = [names for names in _KEYS if any(key in arrays for pair in names.values() for key in pair)]
    if len(found) != 1:
        what = ", ".join(map(repr, list(arrays)[:8])) or "no array"
        rule = "must have arrays named" if not found else "must have arrays of only one kind:"
        raise DataError(f"a .npz file {rule} {_USES}; {path} has {what}")
    present = {}
    for part, names in found[0].items():
        there = [key for key in names if key in arrays]
        missing = [key for key in names[:2] if key not in arrays]
        if there and missing:
            raise DataError(f"images and labels belong together; {path} has {there[0]!r} and no {missing[0]!r}")
        if there:
            present[part] = names
    if TRAIN not in present:
        raise DataError(f"a .npz file must have a training part; {path} has no {found[0][TRAIN][0]!r}")
    return present
