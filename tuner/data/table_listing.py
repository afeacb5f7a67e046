"""List the images of a table (.csv): their files, classes and parts. No image is opened here."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.data.dataset import Columns
from tuner.data.folder_listing import Classes, FolderListing, ImageFile, list_images
from tuner.data.given_path import is_file
from tuner.data.table_columns import Roles, Table, find_roles, read_table
from tuner.data.unused_files import UnusedFiles, count_by_extension
from tuner.errors import DataError
from tuner.names import first_few, shortened

_SPLITS: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class _Row:
    """An image of a table: its path below the table's folder (absolute if it is elsewhere), class, part and group."""

    name: str
    label: str
    part: str
    group: str


def list_table(path: Path, columns: Columns) -> FolderListing:
    """List the images of a table, whose paths are relative to its folder.

    Raises DataError for a table without the necessary columns, for labels and parts that are missing, and for images
    that are missing, ambiguous or listed with different labels.
    """
    table = read_table(path)
    roles = find_roles(table, columns)
    labels = _filled(table, roles.label, "label")
    parts = _parts(table, roles)
    groups = _filled(table, roles.group, "group") if roles.group else ("",) * len(labels)
    files = _find_files(table, table.column(roles.image))
    rows = list(dict.fromkeys(map(_Row, files, labels, parts, groups)))
    _refuse_contradictions(table, rows)
    classes = _in_order({row.label for row in rows})
    listed = {part: _classes(path.parent, classes, [row for row in rows if row.part == part]) for part in set(parts)}
    notes = []
    if num_twice := len(labels) - len(rows):
        rows_repeat = "1 row of {} repeats" if num_twice == 1 else f"{num_twice:,} rows of {{}} repeat"
        notes.append(
            f"{rows_repeat.format(path.name)} an earlier row, and {'is' if num_twice == 1 else 'are'} used once"
        )
    for part in ("validation", "test"):
        missing = [name for name, found in listed.get(part, {}).items() if not found]
        if missing:
            num = "1 class" if len(missing) == 1 else f"{len(missing):,} classes"
            notes.append(f"the {part} part of {path.name} has no image of {num} ({first_few(missing)})")
    return FolderListing(
        root=path.parent,
        train=_training(path, listed),
        validation=listed.get("validation"),
        test=listed.get("test"),
        ignored=(),
        unused=_count_unused(path, [row.name for row in rows]),
        table=path,
        groups={row.name: row.group for row in rows} if roles.group else None,
        notes=tuple(notes),
    )


def _training(path: Path, listed: Mapping[str, Classes]) -> Classes:
    if "train" not in listed:
        raise DataError(f"a table must have training images; {path} has only {' and '.join(sorted(listed))} ones")
    empty = [name for name, files in listed["train"].items() if not files]
    if empty:
        raise DataError(
            f"every class must have training images; {first_few(empty)} in {path} has none: add some or remove its rows"
        )
    if len(listed["train"]) < 2:
        raise DataError(f"a data set must have at least 2 classes; {path} has {first_few(listed['train'])}")
    return listed["train"]


def _filled(table: Table, name: str, what: str) -> tuple[str, ...]:
    values = table.column(name)
    if num_empty := values.count(""):
        raise DataError(
            f"every row must have a {what}; {num_empty:,} of the {len(values):,} rows of {table.path} have none in "
            f"column {name!r}: fill or remove them"
        )
    return values


def _parts(table: Table, roles: Roles) -> tuple[str, ...]:
    if roles.split is None:
        return ("train",) * len(table.rows)
    values = tuple(value.lower() for value in table.column(roles.split))
    unknown = Counter(value for value in values if value not in _SPLITS)
    if unknown:
        raise DataError(
            f"column {roles.split!r} of {table.path} must hold train, val or test; {unknown.total():,} rows have "
            f"{first_few(unknown)}: fix them, or rename the column if it is no split"
        )
    return tuple(_SPLITS[value] for value in values)


def _find_files(table: Table, values: Sequence[str]) -> list[str]:
    """Return the path of each image below the table's folder. Raises DataError if some are missing or ambiguous."""
    root = table.path.parent
    found = {value: _direct(root, value) for value in set(values)}
    if any(name is None for name in found.values()):
        elsewhere = sorted(value for value, name in found.items() if name is None)
        try:
            below = _index(root)
        except DataError as error:
            raise DataError(
                f"every image of a table must exist; {len(elsewhere):,} of {len(found):,} do not ({error}): "
                f"{first_few(map(shortened, elsewhere))}"
            ) from error
        candidates = {value: _below(below, value) for value in elsewhere}
        missing = sorted(value for value, names in candidates.items() if not names)
        if missing:
            raise DataError(
                f"every image of a table must exist; {len(missing):,} of {len(found):,} are not below {root}: "
                f"{first_few(map(shortened, missing))}"
            )
        ambiguous = sorted(value for value, names in candidates.items() if len(names) > 1)
        if ambiguous:
            raise DataError(
                f"every image of a table must be one file; {len(ambiguous):,} of {len(found):,} can be several, such "
                f"as {ambiguous[0]!r}: {first_few(candidates[ambiguous[0]])}: write the paths in the table"
            )
        found |= {value: names[0] for value, names in candidates.items()}
    return [str(found[value]) for value in values]


def _direct(root: Path, value: str) -> str | None:
    """Return the path that a table gives if there is a file; a table made on Windows may have backslashes."""
    for given in dict.fromkeys((value, value.replace("\\", "/"))):
        if given and is_file(root / given):
            return Path(os.path.normpath(given)).as_posix()
    return None


def _index(root: Path) -> dict[str, list[str]]:
    """Return the images below a folder by their names, with and without the extension."""
    below: dict[str, list[str]] = {}
    for path in list_images(root)[0]:
        name = path.relative_to(root)
        for key in {name.name, name.stem}:
            below.setdefault(key, []).append(name.as_posix())
    return below


def _below(below: Mapping[str, list[str]], value: str) -> list[str]:
    """Return the images anywhere below the folder whose path ends as `value` does, with or without the extension."""
    ending = value.replace("\\", "/").removeprefix("./")
    return [
        name
        for name in below.get(ending.rpartition("/")[2], [])
        if any(f"/{path}".endswith(f"/{ending}") for path in (name, os.path.splitext(name)[0]))
    ]


def _count_unused(table: Path, names: Sequence[str]) -> UnusedFiles:
    """Count the files beside the images of a table that it does not list; other folders are not looked at."""
    folders = {folder: (table.parent / folder).resolve() for folder in set(map(os.path.dirname, names))}
    # Windows compares names without case.
    listed = {(folders[os.path.dirname(name)], os.path.normcase(os.path.basename(name))) for name in names}
    listed.add((table.parent.resolve(), os.path.normcase(table.name)))
    unused = Counter[str]()
    try:
        for folder in set(folders.values()):
            with os.scandir(folder) as entries:
                files = [entry.name for entry in entries if not entry.is_dir()]
            unused += count_by_extension(name for name in files if (folder, os.path.normcase(name)) not in listed)
    except OSError as error:
        raise DataError(
            f"the folders of a table's images must be readable; {error}: change their permissions"
        ) from error
    return unused


def _refuse_contradictions(table: Table, rows: Sequence[_Row]) -> None:
    twice = [name for name, count in Counter(row.name for row in rows).items() if count > 1]
    if twice:
        differing = [row for row in rows if row.name == twice[0]][:2]
        (what, one, other), *_ = (
            (key, getattr(differing[0], key), getattr(differing[1], key))
            for key in ("label", "part", "group")
            if getattr(differing[0], key) != getattr(differing[1], key)
        )
        raise DataError(
            f"every image of a table must have one label, part and group; {len(twice):,} in {table.path} have several, "
            f"such as {twice[0]!r} with {what} {one!r} and {other!r}: keep one row of each"
        )


def _in_order(labels: Iterable[str]) -> list[str]:
    """Sort labels: as numbers if all of them are, otherwise as text."""
    labels = list(labels)
    is_numbers = all(label.isascii() and label.isdecimal() for label in labels)
    return sorted(labels, key=lambda label: (int(label) if is_numbers else 0, label))


def _classes(root: Path, classes: Sequence[str], rows: Sequence[_Row]) -> Classes:
    found: Classes = {name: [] for name in classes}
    for row in sorted(rows, key=lambda row: row.name):
        stat = (root / row.name).stat()
        found[row.label].append(ImageFile(row.name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    return found
