"""Turn a request for a data set into two cache folders: one for the development part, one for the test part."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tuner.data import digits
from tuner.data.cache import FORMAT, find_listing, is_intact, is_sound, save_listing, save_part
from tuner.data.dataset import DataSpec, ListedSource, Report
from tuner.data.digests import hash_lines
from tuner.data.given_path import given_path
from tuner.data.image_folder import list_image_folder
from tuner.data.known_sets import DIGITS, EMNIST_SPLITS, KNOWN_NAMES, TORCHVISION_SETS
from tuner.data.torchvision_sets import list_torchvision_set
from tuner.errors import DataError

MAX_SIDE = 1024
"""Largest image side in pixels."""

_PARTS = ("development", "test")


@dataclass(frozen=True)
class PreparedParts:
    """The cache folders of both parts.

    Only sealed.py opens `test`. repairs: descriptions of what was damaged in them.
    """

    development: Path
    test: Path
    repairs: tuple[str, ...] = ()


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
    return PreparedParts(development, test, tuple(_repair(part, spec) for part in _PARTS if part in damaged))


def _repair(part: str, spec: DataSpec) -> str:
    return f"the cached {part} images of {spec.dataset} were damaged or missing, and have been decoded again"


def _list_source(spec: DataSpec, *, report: Report | None) -> ListedSource:
    if spec.dataset == DIGITS:
        return digits.list_digits(spec)
    if spec.dataset in TORCHVISION_SETS:
        return list_torchvision_set(spec, report=report)
    path = given_path(spec.dataset)
    # What looks like a path is one, even if nothing is there: then that is what has to be said.
    if path.exists() or len(path.parts) > 1 or spec.dataset.startswith((".", "~")):
        return list_image_folder(spec)
    if spec.dataset == "emnist":
        raise DataError(
            f"emnist must be given with a split; use one of {_joined(f'emnist-{s}' for s in EMNIST_SPLITS)}"
        )
    close = difflib.get_close_matches(spec.dataset.lower().replace("_", "-"), KNOWN_NAMES, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise DataError(
        f"--dataset must be a known name or an existing folder; {spec.dataset!r} is neither: {hint}"
        f"known are {_joined(KNOWN_NAMES)}"
    )


def _joined(names: Iterable[str]) -> str:
    return ", ".join(names)
