"""Read a table in a .csv file, and find its columns of images, labels and splits by their names."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from tuner.data.dataset import Columns
from tuner.errors import DataError, reason_of
from tuner.names import first_few

IMAGE_NAMES = (
    (
        *("path", "file_path", "filepath", "image_path", "img_path", "filename", "file_name", "file"),
        *("image", "image_name", "image_file", "img"),
    ),
    ("image_id", "id_code", "id"),
)
"""Names of the column of images. Those of ids are used only if there is none of paths."""
LABEL_NAMES = (
    ("label", "labels", "class", "class_name", "class_id", "target", "category", "species", "breed", "diagnosis"),
)
SPLIT_NAMES = (("split", "subset", "set", "partition"),)
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Table:
    """A table with a header. rows: texts without surrounding spaces, each as long as the header."""

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> tuple[str, ...]:
        """Return the values of a column that exists."""
        index = self.header.index(name)
        return tuple(row[index] for row in self.rows)


@dataclass(frozen=True)
class Roles:
    """Names of the columns in the header; None if there is no such column."""

    image: str
    label: str
    split: str | None
    group: str | None


def read_table(path: Path) -> Table:
    """Read a table in UTF-8 (or UTF-16 with its mark), separated by commas, semicolons, tabs or bars.

    Raises DataError if it cannot be read, or has no rows, or a row is longer or shorter than the header.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except OSError as error:
        raise DataError(f"the file of a data set must be readable; {path} is not ({reason_of(error)})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"a table must be UTF-8 text; {path} is not ({error}): save it as UTF-8") from error
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=first.count)
    rows = list[tuple[str, ...]]()
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            values = tuple(value.strip() for value in row)
            if not any(values):
                continue
            if rows and len(values) != len(rows[0]):
                raise DataError(
                    f"every row of a table must have as many values as its header; line {reader.line_num} of {path} "
                    f"has {len(values)}, and the header has {len(rows[0])}: fix the line"
                )
            rows.append(values)
    except csv.Error as error:
        raise DataError(f"a table must be readable; line {reader.line_num} of {path} is not ({error})") from error
    if len(rows) < 2:
        raise DataError(f"a table must have a header and rows; {path} has {'only a header' if rows else 'neither'}")
    return Table(path, rows[0], tuple(rows[1:]))


def find_roles(table: Table, given: Columns) -> Roles:
    """Find the columns by the given names, or by the known ones in any case.

    Raises DataError for a column that is missing or ambiguous.
    """
    image = _find(table, given.image, IMAGE_NAMES, "image")
    if image is None:
        looks_like_data = any("/" in name or Path(name).suffix[1:].isalpha() for name in table.header)
        hint = "its first line looks like a row, so add a header" if looks_like_data else "give --image-column NAME"
        raise _no_column(table, IMAGE_NAMES, "images", hint)
    label = _find(table, given.label, LABEL_NAMES, "label")
    if label is None:
        if one_hot := _one_hot_columns(table, besides=image):
            raise DataError(
                f"a table must have one column of labels; {table.path} has one-hot columns ({first_few(one_hot)}): "
                "make one column with the name of the class"
            )
        raise _no_column(table, LABEL_NAMES, "labels", "give --label-column NAME")
    split = _find(table, given.split, SPLIT_NAMES, "split")
    group = _find(table, given.group, (), "group")
    return Roles(image, label, split, group)


def _find(table: Table, given: str | None, known: Sequence[Sequence[str]], role: str) -> str | None:
    if given is not None:
        found = [name for name in table.header if name == given] or [
            name for name in table.header if _plain(name) == _plain(given)
        ]
        if not found:
            raise DataError(
                f"--{role}-column must be a column of the table; {table.path} has no {given!r}, but has "
                f"{first_few(table.header)}"
            )
    else:
        candidates = ([name for name in table.header if _plain(name) in names] for names in known)
        found = next((names for names in candidates if names), [])
    if len(found) > 1:
        raise DataError(
            f"a table must have one {role} column; {table.path} has {first_few(found)}: choose one with "
            f"--{role}-column, or rename the others"
        )
    return found[0] if found else None


def _plain(name: str) -> str:
    return name.lower().replace(" ", "_").replace("-", "_")


def _no_column(table: Table, known: Sequence[Sequence[str]], what: str, hint: str) -> DataError:
    names = ", ".join(name for names in known for name in names)
    return DataError(
        f"a table must have a column of {what} (named {names}); {table.path} has {first_few(table.header)}: {hint}"
    )


def _one_hot_columns(table: Table, *, besides: str) -> list[str]:
    """Return the columns that hold 0 or 1, if there are several and each row has a single 1 in them."""
    values: Mapping[str, tuple[str, ...]] = {name: table.column(name) for name in table.header if name != besides}
    flags = {name: column for name, column in values.items() if set(column) <= {"0", "1", "0.0", "1.0"}}
    is_one_hot = len(flags) > 1 and all(sum(map(float, row)) == 1 for row in zip(*flags.values(), strict=True))
    return list(flags) if is_one_hot else []
