"""Turn a request for a data set into two cache folders: one for the development part, one for the test part."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tuner.data import digits
from tuner.data.cache import FORMAT, find_listing, is_intact, is_sound, save_listing, save_part
from tuner.data.dataset import DataSpec, ListedSource, Report
from tuner.data.digests import hash_lines
from tuner.data.given_path import TABLE_ENDINGS, given_path
from tuner.data.image_folder import list_image_folder, list_image_table
from tuner.data.image_parts import STORED, ImageParts
from tuner.data.known_sets import DIGITS, EMNIST_SPLITS, KNOWN_NAMES, TORCHVISION_SETS
from tuner.data.listed_parts import list_parts, list_stored_parts
from tuner.data.npz_file import list_npz
from tuner.data.torchvision_sets import list_torchvision_set
from tuner.data.unused_files import UnusedFiles
from tuner.errors import DataError

MAX_SIDE = 1024
"""Largest image side in pixels."""

_PARTS = ("development", "test")


@dataclass(frozen=True)
class PreparedParts:
    """The cache folders of both parts.

    Only sealed.py opens `test`. repairs: descriptions of what was damaged in them. unused: as in ListedSource.
    """

    development: Path
    test: Path
    repairs: tuple[str, ...] = ()
    unused: UnusedFiles = field(default_factory=dict)


def prepare(
    spec: DataSpec, *, report: Report | None, opened: Literal["development", "test"] | None = "development"
) -> PreparedParts:
    """Find a data set in the cache, or download, decode and cache both of its parts.

    Both parts are decoded at once, so that a broken test image is found before a search and not after it. The part that
    will be `opened` is read once and compared with its digest. If it is damaged, both parts are decoded again. Raises
    DataError for an unknown name, and for images that cannot be read or split.
    """
    if spec.image_size is not None and not all(1 <= side <= MAX_SIDE for side in spec.image_size):
        height, width = spec.image_size
        raise DataError(
            f"the sides of --image-size must be between 1 and {MAX_SIDE}; got {height}x{width}: choose another size"
        )
    source = _list_source(spec, report=report)
    key = hash_lines([str(FORMAT), spec.decoding.key, *source.listing])
    folders = find_listing(spec.cache_dir, key)
    damaged = set[str]()
    if folders is not None:
        for part, folder in zip(_PARTS, folders, strict=True):
            if not (is_intact(folder, report=report) if part == opened else is_sound(folder)):
                damaged.add(part)
    if folders is None or damaged:
        decodable = source.read(report)
        saved = [
            save_part(spec.cache_dir, part, source=decodable, report=report)
            for part in (decodable.development, decodable.test)
        ]
        damaged |= {part for part, (_, was_damaged) in zip(_PARTS, saved, strict=True) if was_damaged}
        folders = tuple(folder for folder, _ in saved)
        save_listing(spec.cache_dir, key, folders)
    development, test = folders
    repairs = tuple(_repair(part, spec) for part in _PARTS if part in damaged)
    return PreparedParts(development, test, repairs, source.unused)


def _repair(part: str, spec: DataSpec) -> str:
    return f"the cached {part} images of {spec.dataset} were damaged or missing, and have been decoded again"


def _list_source(spec: DataSpec, *, report: Report | None) -> ListedSource:
    dataset = spec.dataset
    if spec.columns.given() and Path(str(dataset)).suffix.lower() not in TABLE_ENDINGS:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in spec.columns.given())
        raise DataError(f"{names} must go with a table (.csv); the data set is {dataset}: omit it, or give a table")
    has_file_names = isinstance(dataset, str) and not (
        dataset in KNOWN_NAMES or dataset.startswith(STORED) or dataset.lower().endswith(".npz")
    )
    if spec.group is not None and not has_file_names:
        raise DataError(
            f"--group must go with a folder or a table (.csv), since {dataset} has no file names: omit it, and "
            "give arrays with an array of groups"
        )
    if isinstance(dataset, ImageParts):
        return list_parts(dataset, spec, report=report)
    if dataset.startswith(STORED):
        return list_stored_parts(spec)
    if dataset == DIGITS:
        return digits.list_digits(spec)
    if dataset in TORCHVISION_SETS:
        return list_torchvision_set(dataset, spec, report=report)
    path = given_path(dataset)
    if path.suffix.lower() == ".npz" and not path.is_dir():
        return list_npz(spec)
    if path.suffix.lower() in TABLE_ENDINGS and not path.is_dir():
        return list_image_table(spec)
    if path.is_file():
        raise DataError(
            f"--dataset must be a folder, an .npz or a .csv file; {path} is a file of another kind: give the folder "
            "that holds the class folders, or convert it"
        )
    # What looks like a path is one, even if nothing is there: then that is what has to be said.
    if path.exists() or len(path.parts) > 1 or dataset.startswith((".", "~")):
        return list_image_folder(spec)
    if dataset == "emnist":
        raise DataError(
            f"emnist must be given with a split; use one of {_joined(f'emnist-{s}' for s in EMNIST_SPLITS)}"
        )
    close = difflib.get_close_matches(dataset.lower().replace("_", "-"), KNOWN_NAMES, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise DataError(
        f"--dataset must be a known name, or the path of a folder or file; {dataset!r} is neither: {hint}"
        f"known are {_joined(KNOWN_NAMES)}"
    )


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names)
