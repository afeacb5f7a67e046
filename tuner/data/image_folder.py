"""Image files in one folder per class, or listed in a table, decoded by the rule of images.py."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.data.carving import carve_test_part, check_counts, describe_carving
from tuner.data.dataset import DataSpec, DecodablePart, DecodableSource, ListedSource, Report
from tuner.data.folder_listing import Classes, FolderListing, list_folder
from tuner.data.given_path import given_path
from tuner.data.images import ImageFacts, bombs_as_errors, choose_size, inspect_image, read_hashed_pixels
from tuner.data.table_listing import list_table
from tuner.data.threads import map_in_threads
from tuner.errors import DataError
from tuner.names import shown_name


def list_image_folder(spec: DataSpec) -> ListedSource:
    """List an image folder. Raises DataError for an invalid layout, and for classes that are too small to be split."""
    return _listed_source(list_folder(given_path(spec.dataset)), spec)


def list_image_table(spec: DataSpec) -> ListedSource:
    """List the images of a table (.csv). Raises DataError as list_image_folder and list_table do."""
    return _listed_source(list_table(given_path(spec.dataset), spec.columns), spec)


def _listed_source(listing: FolderListing, spec: DataSpec) -> ListedSource:
    check_counts(
        {name: len(files) for name, files in listing.train.items()},
        place=listing.place,
        has_validation=listing.validation is not None,
        has_test=listing.test is not None,
    )
    files = [
        f"{label}{file.name} {file.size} {file.mtime_ns} {file.ctime_ns}"
        for classes in (listing.train, listing.validation, listing.test)
        for name, class_files in (classes or {}).items()
        # The folder of an image says its class, and a table says it in another column.
        for label in ([f"{name} "] if listing.table else [""])
        for file in class_files
    ]
    # The place counts: archives set equal times, and two folders of equal names and sizes need not be the same.
    kind = "table" if listing.table else "folder"
    lines = (kind, str(listing.place.resolve()), *listing.ignored, *listing.notes, "files", *files)
    return ListedSource(listing=lines, read=lambda report: _read(listing, spec, report=report))


def _read(listing: FolderListing, spec: DataSpec, *, report: Report | None) -> DecodableSource:
    notes = list(listing.notes)
    if listing.ignored:
        ignored = shown_name(", ".join(listing.ignored))
        notes.append(f"folders beside train/ that are not part of the data set were ignored: {ignored}")
    class_names, name = _class_names(listing), _name(listing)
    train, train_labels_N = _flatten(listing.train)
    validation, validation_labels_N = _flatten(listing.validation or {})
    if listing.test is None:
        carving = carve_test_part(
            [listing.root / name for name in train],
            train_labels_N,
            class_names,
            num_left=1 if validation else 2,
            report=report,
        )
        test_N = carving.test_N
        rest_N = np.setdiff1d(np.arange(len(train)), test_N)
        of_training = "training " if validation else ""
        notes.append(describe_carving(name, carving, train_labels_N, kind="file", of_training=of_training))
        test, test_labels_N = [train[row] for row in test_N], train_labels_N[test_N]
        train, train_labels_N = [train[row] for row in rest_N], train_labels_N[rest_N]
    else:
        test, test_labels_N = _flatten(listing.test)
    development = [listing.root / name for name in (*train, *validation)]
    with bombs_as_errors():
        facts = list(map_in_threads(inspect_image, development, what="looking at images", report=report))
    height, width = choose_size(facts, spec.decoding.image_size)
    channels = 1 if all(fact.grey for fact in facts) else 3
    notes.append(describe_rule(facts, channels=channels, height=height, width=width))
    shape_CHW = (channels, height, width)
    return DecodableSource(
        name=name or "images",
        class_names=class_names,
        image_shape=shape_CHW,
        development=_decodable(
            development,
            np.concatenate([train_labels_N, validation_labels_N]),
            shape_CHW=shape_CHW,
            validation_start=len(train) if validation else None,
            notes=notes,
        ),
        test=_decodable(
            [listing.root / name for name in test],
            test_labels_N,
            shape_CHW=shape_CHW,
            validation_start=None,
            notes=notes,
        ),
    )


def _name(listing: FolderListing) -> str:
    return shown_name(listing.table.stem if listing.table else listing.root.resolve().name)


def _class_names(listing: FolderListing) -> tuple[str, ...]:
    """Return the names of the class folders in a form that pages, files and other locales can show."""
    names = tuple(map(shown_name, listing.train))
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"every class must have a name of its own; {listing.place} has {twice[0]!r} twice: rename one")
    return names


def _decodable(
    paths: Sequence[Path],
    labels_N: NDArray[np.int64],
    *,
    shape_CHW: tuple[int, int, int],
    validation_start: int | None,
    notes: Sequence[str],
) -> DecodablePart:
    channels, height, width = shape_CHW

    def decode(path: Path) -> tuple[NDArray[np.uint8], bytes]:
        return read_hashed_pixels(path, channels=channels, height=height, width=width)

    def decode_into(images_NCHW: NDArray[np.uint8], report: Report | None) -> str:
        digest = hashlib.blake2b(b"files", digest_size=16)
        with bombs_as_errors():
            decoded = map_in_threads(decode, paths, what="decoding images", report=report)
            for row, (image_CHW, of_file) in enumerate(decoded):
                images_NCHW[row] = image_CHW
                digest.update(of_file)
        return digest.hexdigest()

    return DecodablePart(labels_N, decode_into, validation_start, tuple(notes))


def _flatten(classes: Classes) -> tuple[list[str], NDArray[np.int64]]:
    names = [file.name for class_files in classes.values() for file in class_files]
    counts = [len(class_files) for class_files in classes.values()]
    return names, np.repeat(np.arange(len(counts), dtype=np.int64), counts)


def describe_rule(facts: Sequence[ImageFacts], *, channels: int, height: int, width: int) -> str:
    """Say which channels and size the images have, and how many are resized."""
    colours = "grey (1 channel)" if channels == 1 else "RGB (3 channels)"
    num_other = sum((fact.height, fact.width) != (height, width) for fact in facts)
    if num_other == 0:
        return f"images are {colours}, {height}x{width} pixels (height x width)"
    return (
        f"images are {colours}; {num_other:,} of {len(facts):,} have another size and are resized to cover "
        f"{height}x{width} pixels (height x width; --image-size changes it), and centre-cropped"
    )
