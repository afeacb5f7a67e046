"""Data sets that a program gives: arrays, tensors and torch data sets, and the objects that are refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sample_data import make_spec
from torch.utils.data import Dataset, Subset, TensorDataset

from tuner.data.cache import FORMAT
from tuner.data.dataset import DataSpec, ImageDataset
from tuner.data.development_part import load_development
from tuner.data.image_parts import ImageParts, parts_from
from tuner.data.listed_parts import stored_name
from tuner.data.sealed import load_test_set
from tuner.data.splits import split_development
from tuner.errors import DataError

IMAGES_NHWC = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
LABELS_N = np.arange(40) % 2


class Items(Dataset[Any]):
    """A data set of the images of IMAGES_NHWC, converted."""

    def __init__(self, convert: Callable[[NDArray[np.uint8]], Any], labels: Any = LABELS_N.tolist(), num: int = 40):
        self.convert, self.labels, self.num = convert, labels, num

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return self.convert(IMAGES_NHWC[index]), self.labels[index]


def spec_of(dataset: Any, folder: Path, **options: Any) -> DataSpec:
    parts = dataset if isinstance(dataset, ImageParts) else parts_from(dataset)
    return replace(make_spec("", folder, **options), dataset=parts)


def load(dataset: Any, folder: Path, **options: Any) -> ImageDataset:
    return load_development(spec_of(dataset, folder, **options))


def all_pixels(spec: DataSpec) -> list[bytes]:
    both = torch.cat([load_development(spec).images_NCHW, load_test_set(spec).images_NCHW])
    return sorted(image_CHW.numpy().tobytes() for image_CHW in both)


EXPECTED = sorted(image_HWC.transpose(2, 0, 1).tobytes() for image_HWC in IMAGES_NHWC)


@pytest.mark.parametrize(
    "dataset",
    [
        (IMAGES_NHWC, LABELS_N),
        (IMAGES_NHWC.tolist(), LABELS_N.tolist()),
        (torch.from_numpy(IMAGES_NHWC).permute(0, 3, 1, 2), torch.from_numpy(LABELS_N)[:, None]),
        (torch.from_numpy(IMAGES_NHWC) / 255, torch.from_numpy(LABELS_N)),
        TensorDataset(torch.from_numpy(IMAGES_NHWC), torch.from_numpy(LABELS_N)),
        Items(Image.fromarray),
        Items(lambda image_HWC: image_HWC.transpose(2, 0, 1)),
        Items(lambda image_HWC: torch.from_numpy(image_HWC).permute(2, 0, 1) / 255),
        Items(Image.fromarray, [np.int64(label) for label in LABELS_N]),
        [(Image.fromarray(image_HWC), label) for image_HWC, label in zip(IMAGES_NHWC, LABELS_N.tolist(), strict=True)],
    ],
)
def test_arrays_tensors_and_data_sets_give_the_same_images(tmp_path: Path, dataset: Any) -> None:
    spec = spec_of(dataset, tmp_path)
    development, test = load_development(spec), load_test_set(spec)
    assert development.class_names == test.class_names == ("0", "1")
    assert all_pixels(spec) == EXPECTED
    assert (development.labels_N.bincount() + test.labels_N.bincount()).tolist() == [20, 20]
    assert any("has no test part" in note and "a hash of each image" in note for note in development.notes)


@pytest.mark.parametrize("are_items", [False, True])
def test_tensors_in_bfloat16_are_read(tmp_path: Path, are_items: bool) -> None:
    """It has eight bits of precision, so whole numbers up to 256 are exact."""
    images_NCHW = torch.from_numpy(IMAGES_NHWC.transpose(0, 3, 1, 2).copy())
    tensors = (images_NCHW > 127).bfloat16(), torch.from_numpy(LABELS_N).bfloat16()
    found = load(TensorDataset(*tensors) if are_items else tensors, tmp_path)
    assert found.images_NCHW.unique().tolist() == [0, 255]
    assert sorted(found.labels_N.unique().tolist()) == [0, 1]


@pytest.mark.parametrize("typed", ["arrays:foo", "arrays:", "arrays:pets:0123", "arrays::" + 32 * "0"])
def test_a_text_like_that_of_a_stored_set_is_refused_as_an_unknown_name(tmp_path: Path, typed: str) -> None:
    with pytest.raises(DataError, match=f"'{typed}' is neither: give arrays in Python"):
        load_development(make_spec(typed, tmp_path))


def test_a_data_spec_takes_arrays_and_data_sets_as_run_options_do(tmp_path: Path) -> None:
    tensors = torch.from_numpy(IMAGES_NHWC), torch.from_numpy(LABELS_N)
    for dataset in ((IMAGES_NHWC, LABELS_N), tensors, TensorDataset(*tensors), Items(Image.fromarray)):
        given: Any = dataset
        assert all_pixels(DataSpec(given, tmp_path, tmp_path / "cache")) == EXPECTED


@pytest.mark.parametrize("dataset", [5, None, Path("pets"), {"images": IMAGES_NHWC}])
def test_a_data_spec_of_another_object_is_refused_in_one_line(tmp_path: Path, dataset: Any) -> None:
    with pytest.raises(DataError, match=r"must be a .*pair .*; it is of type (int|NoneType|dict|.*Path)") as caught:
        load_development(DataSpec(dataset, tmp_path, tmp_path / "cache"))
    assert "\n" not in str(caught.value)


def test_given_parts_and_names_are_used(tmp_path: Path) -> None:
    for number, kind in enumerate((lambda *pair: pair, lambda x, y: TensorDataset(*map(torch.from_numpy, (x, y))))):
        parts = [kind(IMAGES_NHWC[start:end], LABELS_N[start:end]) for start, end in ((0, 20), (20, 30), (30, 40))]
        spec = spec_of(ImageParts(*parts, class_names=["cat", "dog"], name="pets"), tmp_path / str(number))
        development, test = load_development(spec), load_test_set(spec)
        assert (development.name, development.class_names, len(test.labels_N)) == ("pets", ("cat", "dog"), 10)
        assert split_development(development, seed=0).validation_indices_N.tolist() == [*range(20, 30)]
        np.testing.assert_array_equal(development.images_NCHW.numpy(), IMAGES_NHWC[:30].transpose(0, 3, 1, 2))
        np.testing.assert_array_equal(test.images_NCHW.numpy(), IMAGES_NHWC[30:].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_a_dark_image_stays_dark_or_the_images_of_its_data_set_are_refused(tmp_path: Path, dtype: str) -> None:
    images_NHW = IMAGES_NHWC[..., 0].astype(dtype)
    images_NHW[::3] //= 128  # only 0 and 1, among images with values in 0..255
    items = TensorDataset(torch.from_numpy(images_NHW), torch.from_numpy(LABELS_N))
    if dtype == "float32":
        with pytest.raises(
            DataError, match=r"item 1 of .* floats in 0\.\.1; it has float32 values in .*: convert it to"
        ):
            load(items, tmp_path)
        return
    assert all_pixels(spec_of(items, tmp_path)) == sorted(image_HW.astype("uint8").tobytes() for image_HW in images_NHW)


def test_images_of_different_sizes_and_colours_follow_the_image_rule(tmp_path: Path) -> None:
    def convert(image_HWC: NDArray[np.uint8]) -> Image.Image:
        side = 8 + int(image_HWC[0, 0, 0]) % 3
        return Image.fromarray(image_HWC).convert("L").resize((side, side + 1))

    development = load(Items(convert), tmp_path)
    assert development.images_NCHW.shape[1] == 1
    assert "have another size and are resized" in development.notes[-1]
    assert load(Items(convert), tmp_path, image_size=(5, 6)).images_NCHW.shape[2:] == (5, 6)


def test_the_names_of_a_data_sets_own_classes_are_used(tmp_path: Path) -> None:
    items = Items(Image.fromarray)
    items.classes = ["ant", "bee", "unused"]  # type: ignore[attr-defined]
    assert load(items, tmp_path).class_names == ("ant", "bee")
    assert load(Subset(items, range(10, 30)), tmp_path).class_names == ("ant", "bee")
    assert parts_from(items).name == "Items"
    assert parts_from(Subset(items, range(10))).name == "arrays"


def test_names_that_a_data_set_has_later_are_used_though_its_images_are_cached(tmp_path: Path) -> None:
    items = Items(Image.fromarray)
    parts = parts_from(items)
    found = [load(parts, tmp_path)]
    for classes in (["ant", "bee"], ("bee", "ant"), np.array(["cat", "dog"]), ["cat", "dog", "eel"]):
        items.classes = classes  # type: ignore[attr-defined]
        found.append(load(parts, tmp_path))
        assert load(items, tmp_path).class_names == found[-1].class_names
    names = [development.class_names for development in found]
    assert names == [("0", "1"), ("ant", "bee"), ("bee", "ant"), ("cat", "dog"), ("cat", "dog")]
    assert len({development.digest for development in found}) == 4
    note = (
        "of the 3 names in `classes` of the train part of Items, these have no training image, and are not used: 'eel'"
    )
    assert [note in development.notes for development in found] == [False] * 4 + [True]
    items.classes = ["ant"]  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"must be in 0\.\.0, since there are 1 classes; one is 1") as caught:
        load(items, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_study_finds_the_decoded_images_without_the_arrays(tmp_path: Path) -> None:
    parts = ImageParts((IMAGES_NHWC, LABELS_N), name="pets")
    spec = spec_of(parts, tmp_path)
    development = load_development(spec)
    stored = replace(spec, dataset=stored_name(parts))
    assert load_development(stored).digest == development.digest
    assert load_test_set(stored).digest == load_test_set(spec).digest
    with pytest.raises(DataError, match=r"the images of pets were given by a program, .* give them again with"):
        load_development(replace(stored, image_size=(4, 4)))


def test_the_digest_covers_pixels_labels_and_split(tmp_path: Path) -> None:
    other = IMAGES_NHWC.copy()
    other[3, 2, 1, 0] ^= 1
    test = (IMAGES_NHWC[:2], LABELS_N[:2])
    digests = [
        load(ImageParts(train, validation, test), tmp_path).digest
        for train, validation in (
            ((IMAGES_NHWC, LABELS_N), None),
            ((IMAGES_NHWC.copy(), LABELS_N.tolist()), None),
            ((other, LABELS_N), None),
            ((IMAGES_NHWC, 1 - LABELS_N), None),
            ((IMAGES_NHWC[:30], LABELS_N[:30]), (IMAGES_NHWC[30:], LABELS_N[30:])),
        )
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4
    assert FORMAT == 3


class Rolling(Items):
    """A data set with a random transform."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        return np.roll(IMAGES_NHWC[index], np.random.default_rng().integers(1, 8), axis=0), self.labels[index]


def broken(_: NDArray[np.uint8]) -> Any:
    raise RuntimeError("no such frame")


def breaks_a_line(_: NDArray[np.uint8]) -> Any:
    raise ValueError("two\nlines")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ((IMAGES_NHWC,), r"must be a pair \(images, labels\), .* a length; it is a tuple of 1"),
        (IMAGES_NHWC, "it is of type ndarray"),
        ({"images": IMAGES_NHWC, "labels": LABELS_N}, "it is of type dict"),
        (iter([]), "it is of type list_iterator"),
        (ImageParts(None), "must have a training part; arrays has none"),
        (ImageParts((IMAGES_NHWC, LABELS_N), test=Items(Image.fromarray)), "mixes pairs of arrays and data sets"),
        (ImageParts((IMAGES_NHWC, LABELS_N), name=""), "must be a line of text that is not empty; got ''"),
        (ImageParts((IMAGES_NHWC, LABELS_N), name="a\nb"), r"must be a line of text that is not empty; got 'a\\nb'"),
        (ImageParts((IMAGES_NHWC, LABELS_N), name="a\n"), r"must be a line of text that is not empty; got 'a\\n'"),
        ((IMAGES_NHWC, [2**70, 1] * 20), r"less than 2\*\*63; one is 1180591620717411303424: number"),
        (ImageParts((IMAGES_NHWC, LABELS_N), class_names=["a"]), "must have at least 2 classes"),
        (ImageParts((IMAGES_NHWC, LABELS_N), class_names="ab"), "must be a sequence of texts"),
        ((IMAGES_NHWC, LABELS_N[:39]), "there are 40 images, and 39 the training labels of arrays"),
        ((np.array([object()] * 40), LABELS_N), "the training images of arrays must be numbers; they have type object"),
        ((IMAGES_NHWC, np.array([[0, 1]] * 40)), "they look one-hot, so give labels.argmax"),
        (Items(Image.fromarray, num=0), "every part must have images; the train part of Items is empty"),
        (Items(broken), r"item 0 of the train part of Items is not \(RuntimeError: no such frame\)"),
        (Items(breaks_a_line), r"item 0 of .* is not \(ValueError: two lines\)"),
        (Items(lambda image: image * np.float32("nan")), "item 0 of .* finite numbers; 192 of 192 values are NaN"),
        (Items(Image.fromarray, [2**70, 1] * 20), r"less than 2\*\*63; one is 1180591620717411303424"),
        (Items(lambda image: image / 100.0), "must have integers in 0..255 or floats in 0..1; it has .*: leave"),
        (Items(lambda image: torch.from_numpy(image).float()), "it has float32 values in .*: convert it to uint8, or"),
        (Items(lambda image: image[None]), r"must have shape \(H, W\), \(C, H, W\) or .*; it has \(1, 8, 8, 3\)"),
        (Items(lambda _: "a.png"), "must be numbers|must have shape"),
        (Items(Image.fromarray, [{"boxes": 1}] * 40), "that of item 0 of the train part of Items is of type dict"),
        (Items(Image.fromarray, [0, "1"] * 20), "must be all whole numbers or all texts; the train part of Items"),
        (Items(Image.fromarray, [0.5, 1] * 20), "must be whole numbers or text; 20 of 40 are NaN or a fraction"),
        (Items(Image.fromarray, [0, -1] * 20), "must not be negative; the smallest is -1"),
        (Items(Image.fromarray, [0] * 38 + [1, 1]), "for each of train, validation, test; '1' in Items has 2"),
        (Rolling(Image.fromarray), "of the train part of Rolling differs: remove random transforms"),
    ],
)  # fmt: skip
def test_objects_that_are_no_data_set_are_refused_in_one_line(tmp_path: Path, dataset: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(dataset, tmp_path)
    assert "\n" not in str(caught.value)
