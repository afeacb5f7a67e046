"""Image files in one folder per class, or listed in a table, decoded by the rule of images.py."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.data.broken_images import all_broken_named
from tuner.data.carving import check_counts, hash_file
from tuner.data.dataset import DataSpec, DecodablePart, DecodableSource, ListedSource, Report
from tuner.data.folder_listing import Classes, FolderListing, list_folder
from tuner.data.given_path import given_path
from tuner.data.groups import describe_groups, groups_from_names, numbers_of, refuse_cut_groups
from tuner.data.image_records import unknown_sources
from tuner.data.image_rule import ImageRule, choose_rule
from tuner.data.images import bombs_as_errors, inspect_image, read_hashed_pixels
from tuner.data.set_aside import set_test_aside
from tuner.data.table_listing import list_table
from tuner.data.threads import map_in_threads
from tuner.errors import DataError
from tuner.names import shown_name


def list_image_folder(spec: DataSpec) -> ListedSource:
    """List an image folder. Raises DataError for an invalid layout, and for classes that are too small to be split."""
    listing = list_folder(given_path(spec.dataset))
    return _listed_source(listing if spec.group is None else with_groups(listing, spec.group), spec)


def list_image_table(spec: DataSpec) -> ListedSource:
    """List the images of a table (.csv). Raises DataError as list_image_folder and list_table do."""
    listing = list_table(given_path(spec.dataset), spec.columns)
    return _listed_source(listing if spec.group is None else with_groups(listing, spec.group), spec)


def _listed_source(listing: FolderListing, spec: DataSpec) -> ListedSource:
    check_counts(
        {name: len(files) for name, files in listing.train.items()},
        place=listing.place,
        has_validation=listing.validation is not None,
        has_test=listing.test is not None,
    )
    groups = listing.groups
    if groups is not None:
        parts = {"train": listing.train, "validation": listing.validation, "test": listing.test}
        named = {part: _flatten(classes)[0] for part, classes in parts.items() if classes is not None}
        refuse_cut_groups({part: [groups[name] for name in names] for part, names in named.items()}, listing.place)
    files = [
        f"{label}{file.name} {file.size} {file.mtime_ns} {file.ctime_ns}"
        for classes in (listing.train, listing.validation, listing.test)
        for name, class_files in (classes or {}).items()
        # The folder of an image says its class, and a table says it in another column.
        for label in ([f"{name} "] if listing.table else [""])
        for file in class_files
    ]
    # The place counts: archives set equal times, and two folders of equal names and sizes need not be the same.
    # The number is raised when the same files are decoded in another way.
    kind = "table" if listing.table else "folder 2"
    lines = [kind, str(listing.place.resolve()), *listing.ignored, *listing.notes, "files", *files]
    if groups is not None:
        lines += ["groups", *(f"{name} {group}" for name, group in groups.items())]
    return ListedSource(tuple(lines), lambda report: _read(listing, spec, report=report), listing.unused)


def _read(listing: FolderListing, spec: DataSpec, *, report: Report | None) -> DecodableSource:
    notes = list(listing.notes)
    if listing.ignored:
        ignored = shown_name(", ".join(listing.ignored))
        notes.append(f"folders beside train/ that are not part of the data set were ignored: {ignored}")
    class_names, name, groups = _class_names(listing), _name(listing), listing.groups
    if groups is not None:
        notes.append(describe_groups(groups.values()))
    train, train_labels_N = _flatten(listing.train)
    validation, validation_labels_N = _flatten(listing.validation or {})
    if listing.test is None:
        given = [listing.root / name for name in train]
        with all_broken_named([*given, *(listing.root / name for name in validation)], report=report):
            aside = set_test_aside(
                name,
                train_labels_N,
                class_names,
                hashes_of=lambda: list(map_in_threads(hash_file, given, what="reading files", report=report)),
                kind="file",
                has_validation=bool(validation),
                groups=None if groups is None else [groups[name] for name in train],
            )
        notes.append(aside.note)
        test, test_labels_N = [train[row] for row in aside.test_N], train_labels_N[aside.test_N]
        train, train_labels_N = [train[row] for row in aside.rest_N], train_labels_N[aside.rest_N]
    else:
        test, test_labels_N = _flatten(listing.test)
    development = [listing.root / name for name in (*train, *validation)]
    every = [*development, *(listing.root / name for name in test)]
    with all_broken_named(every, report=report), bombs_as_errors():
        facts = list(map_in_threads(inspect_image, development, what="looking at images", report=report))
    rule = choose_rule(facts, spec.decoding)
    notes += [*rule.notes, rule.described]
    return DecodableSource(
        name=name or "images",
        class_names=class_names,
        image_shape=rule.shape_CHW,
        development=_decodable(
            development,
            np.concatenate([train_labels_N, validation_labels_N]),
            every=every,
            rule=rule,
            validation_start=len(train) if validation else None,
            notes=notes,
            groups_N=None if groups is None or validation else numbers_of([groups[name] for name in train]),
        ),
        test=_decodable(
            [listing.root / name for name in test],
            test_labels_N,
            every=every,
            rule=rule,
            validation_start=None,
            notes=notes,
        ),
        reading=rule.reading,
        resizing=rule.resizing,
    )


def with_groups(listing: FolderListing, pattern: str) -> FolderListing:
    """Find the group of each file by a regular expression.

    It is searched in the path below the class folder, or in the path that a table gives. Raises DataError for files
    that do not match.
    """
    if listing.groups is not None:
        raise DataError("--group and --group-column exclude each other: give one of them")
    parts = [classes for classes in (listing.train, listing.validation, listing.test) if classes is not None]
    is_flat = all(file.name.startswith(f"{label}/") for label, files in listing.train.items() for file in files)
    num_folders = 0 if listing.table else 1 if is_flat else 2
    names = [name for classes in parts for name in _flatten(classes)[0]]
    groups = groups_from_names([name.split("/", num_folders)[-1] for name in names], pattern)
    return replace(listing, groups=dict(zip(names, groups, strict=True)))


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
    every: Sequence[Path],
    rule: ImageRule,
    validation_start: int | None,
    notes: Sequence[str],
    groups_N: NDArray[np.int64] | None = None,
) -> DecodablePart:
    """Prepare one part. every: the files of both parts, which are all checked if one of them is broken."""
    channels, height, width = rule.shape_CHW
    sources_N = unknown_sources(len(paths))

    def decode(path: Path) -> tuple[NDArray[np.uint8], bytes, tuple[int, int]]:
        return read_hashed_pixels(
            path, channels=channels, height=height, width=width, reading=rule.reading, resizing=rule.resizing
        )

    def decode_into(images_NCHW: NDArray[np.uint8], report: Report | None) -> str:
        digest = hashlib.blake2b(b"files", digest_size=16)
        with all_broken_named(every, report=report), bombs_as_errors():
            decoded = map_in_threads(decode, paths, what="decoding images", report=report)
            for row, (image_CHW, of_file, own_size) in enumerate(decoded):
                images_NCHW[row] = image_CHW
                sources_N[row] = (of_file, *own_size)
                digest.update(of_file)
        return digest.hexdigest()

    return DecodablePart(labels_N, decode_into, validation_start, tuple(notes), groups_N, sources_N)


def _flatten(classes: Classes) -> tuple[list[str], NDArray[np.int64]]:
    names = [file.name for class_files in classes.values() for file in class_files]
    counts = [len(class_files) for class_files in classes.values()]
    return names, np.repeat(np.arange(len(counts), dtype=np.int64), counts)
