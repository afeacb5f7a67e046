"""Data sets in .csv files: how columns, parts and files are found, and the tables that are refused."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sample_data import make_spec, save_image

from tuner.data.dataset import Columns, ImageDataset
from tuner.data.development_part import load_development
from tuner.data.given_path import TABLE_ENDINGS
from tuner.data.sealed import load_test_set
from tuner.data.splits import split_development
from tuner.data.table_columns import IMAGE_NAMES, LABEL_NAMES, SPLIT_NAMES
from tuner.errors import DataError

DOCUMENT = Path(__file__).parents[2] / "docs" / "images.md"


def make_images(folder: Path, names: Iterable[str]) -> None:
    """Save grey images, the first with level 0, the next with 1 and so on."""
    for level, name in enumerate(names):
        save_image(folder / name, "L", colour=level)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def table_of(rows: Sequence[Sequence[object]], header: str = "path,label") -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


def names(count: int, folder: str = "images", ending: str = ".png") -> list[str]:
    return [f"{folder}/{number:03}{ending}" for number in range(count)]


def load(table: Path, **columns: str) -> ImageDataset:
    return load_development(make_spec(table, table.parent, columns=Columns(**columns)))


def greys(dataset: ImageDataset) -> list[int]:
    return dataset.images_NCHW[:, 0, 0, 0].tolist()


def test_a_table_with_a_split_gives_three_parts(tmp_path: Path) -> None:
    make_images(tmp_path, names(9))
    splits = ["train", "Training", "train", "train", "val", "valid", "dev", "test", "TEST"]
    rows = [(name, "dog" if number % 2 else "cat", splits[number]) for number, name in enumerate(names(9))]
    table = write(tmp_path / "pets.csv", table_of(rows, "Path,Label,Split"))
    spec = make_spec(table, tmp_path)
    development, test = load_development(spec), load_test_set(spec)
    assert (development.name, development.class_names) == ("pets", ("cat", "dog"))
    assert greys(development) == [0, 2, 1, 3, 4, 6, 5]
    assert development.labels_N.tolist() == [0, 0, 1, 1, 0, 0, 1]
    assert split_development(development, seed=0).validation_indices_N.tolist() == [4, 5, 6]
    assert greys(test) == [8, 7]


def test_a_table_without_a_split_gives_a_fifth_to_the_test_part(tmp_path: Path) -> None:
    make_images(tmp_path, names(100))
    table = write(tmp_path / "pets.csv", table_of([(name, int(name[7:10]) % 2) for name in names(100)]))
    spec = make_spec(table, tmp_path)
    development, test = load_development(spec), load_test_set(spec)
    assert sorted(greys(development) + greys(test)) == list(range(100))
    assert "pets has no test part" in development.notes[0]


def test_classes_that_are_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    make_images(tmp_path, names(33))
    rows = [(name, (2, 10, 9)[number % 3]) for number, name in enumerate(names(33))]
    assert load(write(tmp_path / "t.csv", table_of(rows))).class_names == ("2", "9", "10")


ROWS = [("000", "cat"), ("001", "dog"), ("002", "cat"), ("003", "dog"), ("004", "cat"), ("005", "dog")]
"""Of images in the folder `images`."""


@pytest.mark.parametrize(
    "text",
    [
        "path,label\n" + "".join(f"images/{name}.png,{label}\n" for name, label in ROWS),
        "\ufeffpath,label\r\n" + "".join(f"images/{name}.png,{label}\r\n" for name, label in ROWS),
        "label;filename\n" + "".join(f"{label};images/{name}.png\n" for name, label in ROWS),
        "file name\tCLASS\n\n" + "".join(f"images/{name}.png\t{label}\n" for name, label in ROWS),
        '"note","image","label"\n' + "".join(f'"a, ""b""", "images/{name}.png","{label}"\n' for name, label in ROWS),
        "image_id,target\n" + "".join(f"{name},{label}\n" for name, label in ROWS),
        "id_code,diagnosis\n" + "".join(f"{name},{label}\n" for name, label in ROWS),
        "id,filename,label\n" + "".join(f"9,{name}.png,{label}\n" for name, label in ROWS),
        "img,label\n" + "".join(f".\\images\\{name}.png,{label}\n" for name, label in ROWS),
        "image,label\n" + "".join(f"images/{name},{label}\n" for name, label in ROWS),
    ],
)
def test_tables_of_many_programs_give_the_same_images(tmp_path: Path, text: str) -> None:
    make_images(tmp_path, names(6))
    development = load(write(tmp_path / "t.csv", text))
    assert development.class_names == ("cat", "dog")
    assert len(development.labels_N) == 4
    assert {
        (grey % 2, label) for grey, label in zip(greys(development), development.labels_N.tolist(), strict=True)
    } == {
        (0, 0),
        (1, 1),
    }


def test_a_table_in_utf_16_and_paths_elsewhere_are_read(tmp_path: Path) -> None:
    make_images(tmp_path / "elsewhere", names(6))
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "t.csv"
    rows = [(tmp_path / "elsewhere" / name, number % 2) for number, name in enumerate(names(3))]
    rows += [(f"../elsewhere/{name}", number % 2) for number, name in enumerate(names(6))][3:]
    table.write_text(table_of(rows), encoding="utf-16")
    assert len(load(table).labels_N) == 4


def test_given_columns_win_over_known_names(tmp_path: Path) -> None:
    make_images(tmp_path, names(8))
    rows = [("x", name, "all", number % 2, "test" if number > 5 else "train") for number, name in enumerate(names(8))]
    table = write(tmp_path / "t.csv", table_of(rows, "path,Picture,label,Kind of,fold"))
    development = load(table, image="picture", label="Kind of", split="fold")
    assert development.class_names == ("0", "1")
    assert len(development.labels_N) == 6


def test_repeated_rows_are_used_once_and_a_missing_class_is_reported(tmp_path: Path) -> None:
    make_images(tmp_path, names(7))
    rows = [(name, number % 2, "train") for number, name in enumerate(names(6))]
    rows += [rows[0], (f"./{rows[0][0]}", 0, "train"), (names(7)[6], 0, "test")]
    development = load(write(tmp_path / "t.csv", table_of(rows, "path,label,split")))
    assert len(development.labels_N) == 6
    assert development.notes[:2] == (
        "2 rows of t.csv repeat an earlier row, and are used once",
        "the test part of t.csv has no image of 1 class ('1')",
    )


@pytest.mark.parametrize("ending", TABLE_ENDINGS)
def test_a_table_may_have_any_of_the_documented_endings(tmp_path: Path, ending: str) -> None:
    make_images(tmp_path, names(6))
    rows = "".join(f"images/{name}.png\t{label}\n" for name, label in ROWS)
    found = load(write(tmp_path / f"t{ending.upper()}", f"path\tlabel\n{rows}"))
    assert (found.name, found.class_names) == ("t", ("cat", "dog"))
    assert f"`{ending}`" in DOCUMENT.read_text(encoding="utf-8")


def test_one_repeated_row_is_one_row(tmp_path: Path) -> None:
    make_images(tmp_path, names(6))
    rows = [(name, number % 2) for number, name in enumerate(names(6))]
    note = load(write(tmp_path / "t.csv", table_of([*rows, rows[0]]))).notes[0]
    assert note == "1 row of t.csv repeats an earlier row, and is used once"


def test_the_digest_covers_labels_and_split_and_not_the_place(tmp_path: Path) -> None:
    digests = {}
    for number, (label, split) in enumerate([("1", "train"), ("1", "train"), ("0", "train"), ("1", "val")]):
        folder = tmp_path / str(number)
        make_images(folder, names(9))
        rows = [(name, row % 2, "train") for row, name in enumerate(names(8))]
        rows[-1] = (rows[-1][0], label, split)
        rows.append((names(9)[8], 0, "test"))
        digests[number] = load(write(folder / "t.csv", table_of(rows, "path,label,split"))).digest
    assert digests[0] == digests[1]
    assert len(set(digests.values())) == 3


def test_another_label_in_the_table_is_noticed(tmp_path: Path) -> None:
    make_images(tmp_path, names(9))
    rows: list[tuple[Any, ...]] = [(name, row % 2) for row, name in enumerate(names(9))]
    first = load(write(tmp_path / "t.csv", table_of(rows)))
    rows[0] = (rows[0][0], 1)
    assert load(write(tmp_path / "t.csv", table_of(rows))).labels_N.sum() > first.labels_N.sum()


GOOD = [(name, number % 2) for number, name in enumerate(names(6))]
LONGER = [(*row, 1) for row in GOOD]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a header and rows; .* has neither"),
        ("path,label\n", "must have a header and rows; .* has only a header"),
        (table_of(GOOD[1:], "images/000.png,0"), "its first line looks like a row, so add a header"),
        (table_of(GOOD, "where,label"), "column of images .* has 'where', 'label': give --image-column NAME"),
        (table_of(GOOD, "path,dx"), r"column of labels \(named label, .*: give --label-column NAME"),
        (table_of(LONGER, "path,label,class"), "one label column; .* has 'label', 'class': choose one"),
        (table_of(LONGER, "path,label,file"), "one image column; .* has 'path', 'file': choose one"),
        (table_of(LONGER, "path,label,label"), "has 'label', 'label': .* or rename the others"),
        (table_of([(name, label, 1 - label) for name, label in GOOD], "path,MEL,NV"),
         "has one-hot columns \\('MEL', 'NV'\\): make one column"),
        (table_of([*GOOD[:4], ("images/004.png",)]), "line 6 of .* has 1, and the header has 2: fix the line"),
        (table_of([*GOOD, ("images/000.png", '"a')]), "line 8 of .* is not"),
        (table_of([*GOOD[:4], (GOOD[4][0], "")]), "1 of the 5 rows of .* have none in column 'label'"),
        (table_of([*GOOD, (GOOD[0][0], 1)]), "1 in .* have several, such as 'images/000.png' with label '0' and '1'"),
        (table_of([(*row, "holdout") for row in GOOD], "path,label,split"),
         "must hold train, val or test; 6 rows have 'holdout'"),
        (table_of([(*row, "test") for row in GOOD], "path,label,split"), "must have training images; .* has only test"),
        (table_of([(name, label, ("train", "test")[label]) for name, label in GOOD], "path,label,split"),
         "every class must have training images; '1' in .* has none"),
        (table_of([(name, 0) for name, _ in GOOD]), "must have at least 2 classes; .* has '0'"),
        (table_of([(name, max(0, number - 4)) for number, (name, _) in enumerate(GOOD)]),
         "an image for each of train, validation, test; '1' in .*t.csv has 1"),
        (table_of([("gone.png", 0), ("lost.png", 1), *GOOD]), "2 of 8 are not below .*: 'gone.png', 'lost.png'"),
        (table_of([(f"{number:02}.png", number % 2) for number in range(12)]), "12 of 12 .* '09.png' and 2 more"),
        (table_of([("x" * 5000 + ".png", 0), *GOOD]), r"1 of 7 are not below .*: 'x{50}\.\.\.x{46}\.png'$"),
        (table_of([("same", 0), *GOOD]), "can be several, such as 'same': 'images/same.jpg', 'images/same.png': write"),
    ],
)  # fmt: skip
def test_a_table_that_is_no_data_set_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    make_images(tmp_path, [*names(6), "images/same.png", "images/same.jpg"])
    with pytest.raises(DataError, match=message) as caught:
        load(write(tmp_path / "t.csv", text))
    assert "\n" not in str(caught.value)


def test_files_that_are_no_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"must be readable; .*gone\.csv is not \(No such file"):
        load(tmp_path / "gone.csv")
    table = tmp_path / "t.csv"
    table.write_bytes("path,label\ncafé.png,0\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"must be UTF-8 text; .*: save it as UTF-8"):
        load(table)
    with pytest.raises(DataError, match=r"2 of 2 do not .* holds none"):
        load(write(table, table_of([("a.png", 0), ("b.png", 1)])))
    with pytest.raises(DataError, match=r"--split-column must be a column of the table; .* has no 'fold', but"):
        load(table, split="fold")


def test_the_document_lists_every_known_column() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for line, tiers in (("| image |", IMAGE_NAMES), ("| label |", LABEL_NAMES), ("| part, if", SPLIT_NAMES)):
        (row,) = [row for row in text.splitlines() if row.startswith(line)]
        assert re.findall(r"`(\w+)`", row.split("|")[2]) == [name for names in tiers for name in names]
