"""Groups of images stay on one side of every split, however the groups are given."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sample_data import make_spec, save_image

from tuner.data.dataset import Columns, DataSpec, ImageDataset
from tuner.data.development_part import load_cached, load_development
from tuner.data.group_split import choose_groups, seeded_order
from tuner.data.groups import describe_groups
from tuner.data.image_parts import ImageParts
from tuner.data.sealed import load_test_set
from tuner.data.splits import Split, fresh_split, split_development
from tuner.errors import DataError

NUM_GROUPS, SIZE = 12, 6
"""Groups of the images, each with as many images of both classes."""


def group_of(images_NCHW: torch.Tensor) -> set[int]:
    """The groups of images, each of which has the number of its group as its level of grey, times 20."""
    return {round(level / 20) for level in images_NCHW[:, 0, 0, 0].tolist()}


def sides(dataset: ImageDataset, split: Split) -> tuple[set[int], set[int]]:
    rows = (split.train_indices_N, split.validation_indices_N)
    train, validation = (group_of(dataset.images_NCHW[indices_N]) for indices_N in rows)
    return train, validation


def images() -> list[tuple[str, str, int]]:
    """Class, file name and group of each image: the files of both classes have the same groups."""
    return [
        (("cat", "dog")[number % 2], f"p{group:02}_{number}.png", group)
        for group in range(NUM_GROUPS)
        for number in range(SIZE)
    ]


def make_folder(folder: Path, root: str = "pets") -> Path:
    for label, name, group in images():
        save_image(folder / root / label / name, "L", colour=group * 20 + int(name[4]))
    return folder / root


def folder_spec(folder: Path) -> DataSpec:
    return make_spec(make_folder(folder), folder, group=r"^(p\d+)_")


def table_spec(folder: Path) -> DataSpec:
    make_folder(folder)
    rows = [f"{folder.name},pets/{label}/{name},{label},{group}" for label, name, group in images()]
    (folder / "t.csv").write_text("\n".join(["x,path,label,patient", *rows]), encoding="utf-8")
    return make_spec(folder / "t.csv", folder, columns=Columns(group="Patient"))


def table_with_names_spec(folder: Path) -> DataSpec:
    return replace(table_spec(folder), columns=Columns(), group=r"p\d\d")


def arrays() -> tuple[Any, Any, Any]:
    values_N = np.array([group * 20 + int(name[4]) for _, name, group in images()], dtype=np.uint8)
    images_NHW = np.broadcast_to(values_N[:, None, None], (len(values_N), 8, 8)).copy()
    return images_NHW, np.array([label for label, *_ in images()]), np.array([group for *_, group in images()])


def arrays_spec(folder: Path) -> DataSpec:
    return replace(make_spec("", folder), dataset=ImageParts(arrays()))


def npz_spec(folder: Path) -> DataSpec:
    images_NHW, labels_N, groups_N = arrays()
    np.savez(folder / "set.npz", images=images_NHW, labels=labels_N, groups=groups_N[:, None].astype(str))
    return make_spec(folder / "set.npz", folder)


@pytest.mark.parametrize("make", [folder_spec, table_spec, table_with_names_spec, npz_spec, arrays_spec])
def test_groups_are_kept_whole_in_the_test_part_and_every_split(tmp_path: Path, make: Any) -> None:
    spec = make(tmp_path)
    development, test = load_development(spec), load_test_set(spec)
    everything, of_test = set(range(NUM_GROUPS)), group_of(test.images_NCHW)
    assert group_of(development.images_NCHW) == everything - of_test
    assert 1 <= len(of_test) <= 3
    assert "the images are in 12 groups, each of which stays on one side of every split" in development.notes
    assert any(f"which are {len(of_test)} of 12 groups, are set aside" in note for note in development.notes)
    found = set()
    for seed in range(8):
        own = split_development(development, seed=seed)
        for split in (own, fresh_split(development, seed=seed, num_validation=len(own.validation_indices_N))):
            train, validation = sides(development, split)
            assert train | validation == everything - of_test
            assert not train & validation
            assert development.labels_N[split.validation_indices_N].bincount().tolist() == [6, 6]
            found.add(frozenset(validation))
    assert len(found) > 4
    again = load_cached(development.folder)
    assert again.groups_N is not None
    assert development.groups_N is not None
    assert again.groups_N.tolist() == development.groups_N.tolist()
    assert test.groups_N is None


def test_another_grouping_is_another_data_set_and_the_same_one_is_not(tmp_path: Path) -> None:
    spec = folder_spec(tmp_path)
    digests = {group: load_development(replace(spec, group=group)).digest for group in (None, r"p\d\d", r"^(p\d+)_")}
    assert digests[r"p\d\d"] == digests[r"^(p\d+)_"]
    assert digests[None] != digests[r"p\d\d"]


def make_parts(folder: Path, groups: dict[str, tuple[int, ...]]) -> Path:
    for part, numbers in groups.items():
        for group in numbers:
            for label, number in (("cat", 0), ("dog", 1)):
                save_image(folder / "set" / part / label / f"p{group}_{number}.png", "L", colour=10 * group + number)
    return folder / "set"


def test_given_parts_are_kept_if_they_cut_no_group(tmp_path: Path) -> None:
    root = make_parts(tmp_path, {"train": (1, 2, 3), "val": (4,), "test": (5, 6)})
    development = load_development(make_spec(root, tmp_path, group=r"p\d"))
    assert development.groups_N is None
    assert development.validation_indices_N is not None
    assert development.digest == load_development(make_spec(root, tmp_path)).digest


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"train": (1, 2, 3), "test": (3, 4)}, r"1 of the 4 groups of .*set are in several \('p3' in train and test\)"),
        (
            {"train": (1, 2), "val": (1, 2), "test": (3,)},
            r"2 of the 3 groups .* \('p1', 'p2' in train and val",
        ),
        ({"train": (1, 2, 3), "val": (4,), "test": (4,)}, r"\('p4' in validation and test\): move their images"),
    ],
)
def test_parts_that_cut_a_group_are_refused(tmp_path: Path, groups: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_development(make_spec(make_parts(tmp_path, groups), tmp_path, group=r"p\d"))


def test_arrays_whose_parts_cut_a_group_are_refused(tmp_path: Path) -> None:
    images_NHW, labels_N, groups_N = arrays()
    test = (images_NHW[:6], labels_N[:6])
    for parts, message in (
        (
            ImageParts(arrays(), test=(*test, groups_N[:6])),
            r"1 of the 12 groups of arrays are in .* \('0' in train",
        ),
        (ImageParts(arrays(), test=test), "all parts must have groups, or none; the test part of arrays has none"),
        (ImageParts((images_NHW, labels_N, groups_N[:5])), r"must be one per image; there are 72, .* shape \(5,\)"),
        (ImageParts((images_NHW, labels_N, groups_N / 7)), "must be whole numbers or texts that are not empty"),
        (ImageParts((images_NHW, labels_N, labels_N)), "images in at least 3 groups to be split; 'cat' has them in 1"),
    ):
        with pytest.raises(DataError, match=message):
            load_development(replace(make_spec("", tmp_path), dataset=parts))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"--group must be a regular expression; '\(' is not"),
        (r"q\d", r"finds no group in 72 of 72: 'p00_0\.png', .* and 62 more"),
        (r"p0\d", "finds no group in 12 of 72: 'p10_0.png'"),
        (r"(x)?p", "finds no group in 72 of 72"),
        (r"_(\d)\.png", "to be split; 'cat' has them in 3|groups allow none|at least"),
        ("p", "images in at least 3 groups to be split; 'cat' has them in 1: add groups"),
    ],
)
def test_an_expression_that_gives_no_usable_groups_is_refused(tmp_path: Path, pattern: str, message: str) -> None:
    spec = make_spec(make_folder(tmp_path), tmp_path, group=pattern)
    if pattern == r"_(\d)\.png":  # three groups of each class, which suffice
        assert len(load_development(spec).labels_N) == 48
        return
    with pytest.raises(DataError, match=message) as caught:
        load_development(spec)
    assert "\n" not in str(caught.value)


def test_group_options_that_do_not_fit_the_data_set_are_refused(tmp_path: Path) -> None:
    for dataset in ("digits", str(npz_spec(tmp_path).dataset), ImageParts(arrays())):
        with pytest.raises(DataError, match="--group must go with a folder or a table"):
            load_development(replace(make_spec("", tmp_path), dataset=dataset, group="p"))
    with pytest.raises(DataError, match="--group and --group-column exclude each other"):
        load_development(replace(table_spec(tmp_path), group=r"p\d\d"))
    with pytest.raises(DataError, match="--group-column must go with a table"):
        load_development(make_spec(tmp_path / "pets", tmp_path, columns=Columns(group="patient")))


def test_one_class_with_few_groups_does_not_enlarge_the_validation_part() -> None:
    groups_N = np.repeat(np.arange(100), 10)
    labels_N = np.zeros(1000, dtype=np.int64)
    labels_N[:20] = 1
    chosen_N = choose_groups(labels_N, groups_N, ("many", "few"), total=200, order=seeded_order(100, 0))
    assert np.bincount(labels_N[chosen_N])[1] == 10
    assert abs(len(chosen_N) - 200) <= 10


@given(st.data())
def test_chosen_groups_are_whole_and_leave_every_class_on_both_sides(data: st.DataObject) -> None:
    num_groups = data.draw(st.integers(2, 15))
    groups_N = np.array(data.draw(st.lists(st.integers(0, num_groups - 1), min_size=4, max_size=80)))
    groups_N = np.unique(groups_N, return_inverse=True)[1]
    labels_N = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(groups_N), max_size=len(groups_N))))
    labels_N = np.unique(labels_N, return_inverse=True)[1]
    names = [str(label) for label in range(labels_N.max() + 1)]
    total = data.draw(st.integers(1, len(groups_N)))
    order = seeded_order(int(groups_N.max()) + 1, data.draw(st.integers(0, 2**64)))
    try:
        chosen_N = choose_groups(labels_N, groups_N, names, total=total, order=order)
    except DataError:
        few = [label for label in range(len(names)) if len(set(groups_N[labels_N == label])) < 2]
        assert few or len(set(groups_N)) < 4 * len(names)
        return
    rest_N = np.setdiff1d(np.arange(len(labels_N)), chosen_N)
    assert chosen_N.tolist() == sorted(set(chosen_N.tolist()))
    assert not set(groups_N[chosen_N]) & set(groups_N[rest_N])
    assert set(labels_N[chosen_N]) == set(labels_N[rest_N]) == set(range(len(names)))


@pytest.mark.parametrize(("sizes", "is_named"), [((2,) * 5, False), ((3,) + (2,) * 6, False), ((5, 2, 2, 2), True)])
def test_a_group_that_is_larger_than_a_part_is_named(sizes: tuple[int, ...], is_named: bool) -> None:
    note = describe_groups(f"p{group}" for group, size in enumerate(sizes) for _ in range(size))
    expected = f"the images are in {len(sizes)} groups, each of which stays on one side of every split"
    largest = "; the largest, 'p0', has 5 of the 11 images, so the parts may be much smaller or larger than planned"
    assert note == expected + (largest if is_named else "")
