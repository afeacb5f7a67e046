"""Data sets in .npz files: their keys, layouts, values and labels, and the mistakes that are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sample_data import make_spec

from tuner.data.dataset import ImageDataset
from tuner.data.development_part import load_development
from tuner.data.sealed import load_test_set
from tuner.data.splits import split_development
from tuner.errors import DataError

RANDOM = np.random.default_rng(0)


def images(count: int, *, shape: tuple[int, ...] = (8, 8), dtype: str = "uint8") -> NDArray[Any]:
    return RANDOM.integers(0, 256, (count, *shape)).astype(dtype)


def labels(count: int) -> NDArray[np.int64]:
    return np.arange(count, dtype=np.int64) % 2


def medmnist(**changes: Any) -> dict[str, Any]:
    """Arrays as MedMNIST ships them, with labels of shape (N, 1)."""
    arrays = {}
    for part, count in (("train", 20), ("val", 6), ("test", 8)):
        arrays |= {f"{part}_images": images(count), f"{part}_labels": labels(count)[:, np.newaxis].astype("uint8")}
    return {key: value for key, value in {**arrays, **changes}.items() if value is not None}


def save(folder: Path, arrays: dict[str, Any]) -> Path:
    path = folder / "set.npz"
    np.savez(path, **arrays)
    return path


def load(folder: Path, arrays: dict[str, Any], **options: Any) -> ImageDataset:
    return load_development(make_spec(save(folder, arrays), folder, **options))


def test_the_keys_of_medmnist_give_three_parts(tmp_path: Path) -> None:
    arrays = medmnist()
    spec = make_spec(save(tmp_path, arrays), tmp_path)
    development, test = load_development(spec), load_test_set(spec)
    assert (development.name, development.class_names, development.notes) == ("set", ("0", "1"), ())
    together = np.concatenate([arrays["train_images"], arrays["val_images"]])
    np.testing.assert_array_equal(development.images_NCHW[:, 0].numpy(), together)
    assert development.labels_N.tolist() == [*labels(20), *labels(6)]
    assert split_development(development, seed=0).validation_indices_N.tolist() == [*range(20, 26)]
    np.testing.assert_array_equal(test.images_NCHW[:, 0].numpy(), arrays["test_images"])
    assert test.labels_N.tolist() == labels(8).tolist()


def test_the_keys_of_keras_give_two_parts(tmp_path: Path) -> None:
    arrays = {"x_train": images(20), "y_train": labels(20), "x_test": images(8), "y_test": labels(8)}
    spec = make_spec(save(tmp_path, arrays), tmp_path)
    development = load_development(spec)
    assert development.validation_indices_N is None
    assert len(development.labels_N) == 20
    assert len(load_test_set(spec).labels_N) == 8


def test_images_and_labels_alone_give_a_test_part_that_other_images_do_not_move(tmp_path: Path) -> None:
    pixels, of_pixels = images(100), labels(100)
    parts = []
    for number, count in enumerate((100, 80)):
        folder = tmp_path / str(number)
        folder.mkdir()
        spec = make_spec(save(folder, {"images": pixels[:count], "labels": of_pixels[:count]}), folder)
        development, test = load_development(spec), load_test_set(spec)
        assert len(development.labels_N) + len(test.labels_N) == count
        assert 0.1 < len(test.labels_N) / count < 0.3
        assert "set has no test part" in development.notes[0]
        assert "chosen by a hash of each image" in development.notes[0]
        parts.append({image.numpy().tobytes() for image in test.images_NCHW})
    assert parts[0] & {image.tobytes() for image in pixels[:80]} == parts[1]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 6), (1, 8, 6)),
        ((8, 6, 1), (1, 8, 6)),
        ((8, 6, 3), (3, 8, 6)),
        ((1, 8, 6), (1, 8, 6)),
        ((3, 8, 6), (3, 8, 6)),
        ((8, 6, 4), (3, 8, 6)),
        ((300, 250, 3), (3, 224, 224)),
    ],
)
def test_the_layout_of_the_axes_is_found(
    tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    development = load(tmp_path, {"images": images(12, shape=shape), "labels": labels(12)})
    assert development.images_NCHW.shape[1:] == expected


def test_channels_last_and_first_have_the_same_pixels_and_digest(tmp_path: Path) -> None:
    last = images(12, shape=(8, 6, 3))
    found = []
    for name, pixels in (("last", last), ("first", last.transpose(0, 3, 1, 2))):
        (tmp_path / name).mkdir()
        found.append(load(tmp_path / name, {"train_images": pixels, "train_labels": labels(12)}))
    assert found[0].digest == found[1].digest
    assert (found[0].images_NCHW == found[1].images_NCHW).all()


def test_transparent_pixels_are_laid_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((12, 6, 6, 4), np.uint8)
    pixels[:, :2, :, 3] = 255
    pixels[:, 0, 0, 0] = np.arange(12)
    development = load(tmp_path, {"images": pixels, "labels": labels(12)})
    assert development.images_NCHW[0, :, 3, 3].tolist() == [255] * 3
    assert development.images_NCHW[0, :, 1, 1].tolist() == [0] * 3


LEVELS = np.linspace(0, 1, 12 * 4).reshape(12, 2, 2)


@pytest.mark.parametrize(
    ("values", "first", "last", "note"),
    [
        ((LEVELS * 255).astype("uint8"), 0, 255, ""),
        ((LEVELS > 0.5), 0, 255, ""),
        ((LEVELS * 200).astype("int64"), 0, 200, ""),
        (LEVELS, 0, 255, ""),
        (LEVELS.astype("float16"), 0, 255, ""),
        (np.rint(LEVELS * 16), 0, 16, ""),
        ((LEVELS * 119 + 1000).astype("uint16"), 0, 255, "pixel values of set are in 1000..1119"),
        (LEVELS * 2 - 1, 0, 255, "pixel values of set are in -1..1, and are scaled to 0..255"),
        ((LEVELS * 4000 - 1000).astype("int16"), 0, 255, "pixel values of set are in -1000..3000"),
        (LEVELS * 255, 0, 255, "pixel values of set are in 0..255, and are scaled"),
    ],
)
def test_values_become_0_to_255_by_the_written_rule(
    tmp_path: Path, values: NDArray[Any], first: int, last: int, note: str
) -> None:
    arrays = {"train_images": values, "train_labels": labels(12), "test_images": values, "test_labels": labels(12)}
    development = load(tmp_path, arrays)
    flat = development.images_NCHW.flatten()
    assert (int(flat[0]), int(flat[-1])) == (first, last)
    assert len(flat.unique()) > 40 or last == 16 or values.dtype == bool
    assert [note in one for one in development.notes] == [True] * bool(note)


def test_test_images_beyond_the_range_of_training_are_clipped(tmp_path: Path) -> None:
    train, test = np.full((12, 2, 2), 1000), np.full((4, 2, 2), 5000)
    train[::2] = 2000
    arrays = {"train_images": train, "train_labels": labels(12), "test_images": test, "test_labels": labels(4)}
    spec = make_spec(save(tmp_path, arrays), tmp_path)
    assert load_test_set(spec).images_NCHW.unique().tolist() == [255]
    assert load_development(spec).images_NCHW.unique().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("given", "names", "class_names", "expected"),
    [
        ([1, 2] * 6, ("1", "2"), None, [0, 1] * 6),
        ([0.0, 1.0] * 6, ("0", "1"), None, [0, 1] * 6),
        ([True, False] * 6, ("0", "1"), None, [1, 0] * 6),
        (["dog", "cat "] * 6, ("cat", "dog"), None, [1, 0] * 6),
        ([b"dog", b"cat"] * 6, ("cat", "dog"), None, [1, 0] * 6),
        ([1, 0] * 6, ("frog", "ape"), ["frog", "ape"], [1, 0] * 6),
        (["frog", "ape"] * 6, ("ape", "frog"), ["frog", "ape"], [1, 0] * 6),
    ],
)
def test_labels_become_classes(
    tmp_path: Path, given: list[Any], names: tuple[str, ...], class_names: list[str] | None, expected: list[int]
) -> None:
    arrays = {"train_images": images(12), "train_labels": np.array(given)}
    arrays |= {"test_images": images(12), "test_labels": np.array(given)}
    development = load(tmp_path, arrays if class_names is None else {**arrays, "class_names": np.array(class_names)})
    assert development.class_names == names
    assert development.labels_N.tolist() == expected


def test_labels_with_gaps_are_classes_and_a_note_says_so(tmp_path: Path) -> None:
    development = load(
        tmp_path,
        medmnist(train_labels=np.array([3, 7] * 10), val_labels=None, val_images=None, test_labels=np.array([3] * 8)),
    )
    assert development.class_names == ("3", "7")
    assert "train_labels of" in development.notes[0]
    assert "are in 3..7, and 3 of these numbers do not occur" in development.notes[0]
    assert "test_labels of" in development.notes[1]
    assert "have no image of 1 class ('7')" in development.notes[1]


def floats_with_nan() -> NDArray[Any]:
    values = images(20).astype("float32")
    values[3, 0, 0] = np.nan
    return values


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": None}, "images and labels belong together; .* has 'train_images' and no 'train_labels'"),
        ({"train_labels": None, "train_images": None}, "must have a training part; .* has no 'train_images'"),
        ({"train_labels": labels(19)}, "there are 20 images, and 19 train_labels of"),
        ({"train_labels": np.zeros(20)}, "must have at least 2 classes; train_labels of .* have 1: '0'"),
        ({"train_labels": np.r_[labels(19), -1]}, "must not be negative; the smallest is -1: remove images without"),
        ({"train_labels": np.r_[labels(19), 0.5]}, "train_labels of .* text; 1 of 20 is NaN or a fraction: fix"),
        ({"train_labels": np.r_[labels(18), 0.5, np.nan]}, "must be .* or text; 2 of 20 are NaN or a fraction"),
        ({"train_labels": np.array([2**63, 1] * 10, dtype="uint64")}, r"less than 2\*\*63; one is 922337203685477580"),
        ({"train_labels": np.array([1e300, 1] * 10)}, r"train_labels of .* less than 2\*\*63; one is 1e\+300: number"),
        ({"train_labels": np.eye(2)[labels(20)]}, r"one label per image; they have shape \(20, 2\): they look one-hot"),
        ({"train_labels": np.ones((20, 14))}, r"they have shape \(20, 14\): an image has one class here"),
        ({"train_labels": np.array([["a"], [""]] * 10)}, "10 of the train_labels of .* are empty"),
        ({"train_labels": np.array([0, 1, 2] + [0] * 17), "val_images": None, "val_labels": None},
         "an image for each of train, validation; '1' in set has 1"),
        ({"test_labels": np.array([0, 2] * 4)}, "test_labels of .* must be classes of the training images; 2 is not"),
        ({"test_labels": np.array(["0", "1"] * 4)}, "the labels of all parts must be of one kind"),
        ({"test_images": images(8).astype("float32")}, "test_images of .* have float32, and the training .* uint8"),
        ({"val_images": images(6, shape=(8, 9))}, r"must have the same shape; they have \(1, 8, 8\) and \(1, 8, 9\)"),
        ({"train_images": images(20)[:0], "train_labels": labels(0)}, r"must have an image .*; they have shape \(0, 8"),
        ({"train_images": images(20, shape=(8,))}, r"must have shape \(N, H, W\), .*; they have \(20, 8\)"),
        ({"train_images": images(20, shape=(3, 8, 3))}, r"with shape \(20, 3, 8, 3\), both can be: reshape"),
        ({"train_images": images(20, shape=(8, 8, 2))}, r"with shape \(20, 8, 8, 2\), neither can be: reshape"),
        ({"train_images": images(20).astype(complex)}, "must be numbers; they have type complex128"),
        ({"train_images": images(20).astype(str)}, "must be numbers; they have type <U"),
        ({"train_images": floats_with_nan(), "val_images": images(6).astype("float32"),
          "test_images": images(8).astype("float32")}, "^train_images of .*; 1 of 1,280 values is NaN or inf"),
        ({"train_images": images(20) / 255, "val_images": images(6) * np.nan, "test_images": images(8) / 255},
         "^val_images of .* must be finite numbers; 384 of 384 values are NaN or infinite: replace or remove them"),
        ({"train_images": images(20) / 255, "val_images": images(6) / 255, "test_images": images(8).astype("float64")},
         r"test_images of .* must have values in the range of the training images \(0\.\.1\); they have .*: scale all"),
        ({"train_images": np.array([object()] * 20)}, "contains Python objects, which could run code"),
        ({"images": images(3)}, "must have arrays of only one kind: train_images"),
        ({"class_names": np.array(["a"])}, "must have at least 2 classes"),
        ({"class_names": np.array(["a", "b", "c"])}, "'c' has none in .*: add images .* renumber the labels"),
        ({"train_labels": np.array(["a", "b"] * 10), "val_images": None, "val_labels": None, "test_images": None,
          "test_labels": None, "class_names": np.array(["a", "b", "c"])}, "'c' has none in .*, or remove the name$"),
        ({"class_names": np.array(["a", "a"])}, "every class must have a name of its own; 'a' is there twice"),
        ({"class_names": np.array([1, 2])}, "class_names of .* must be a row of texts"),
    ],
)  # fmt: skip
def test_arrays_that_are_no_data_set_are_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, medmnist(**changes))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_archive_is_refused_in_one_line(tmp_path: Path) -> None:
    path = save(tmp_path, medmnist())
    whole = path.read_bytes()
    for content, reason in (
        (whole[:-50], "is not a zip file"),
        (whole[:40] + b"\0" * 60 + whole[100:], ""),
        (b"", "No data left"),
        (b"text", "it is no zip archive"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"must be a whole archive of arrays; .*set\.npz is not \(.*{reason}"):
            load_development(make_spec(path, tmp_path))
    single = tmp_path / "single.npz"
    with single.open("wb") as file:
        np.save(file, images(3))
    with pytest.raises(DataError, match="it is a single array: store images and labels"):
        load_development(make_spec(single, tmp_path))
    np.savez(path, data=images(3))
    with pytest.raises(DataError, match=r"must have arrays named train_images and .*set\.npz has 'data'"):
        load_development(make_spec(path, tmp_path))
    with pytest.raises(DataError, match=r"there is no file .*gone\.npz"):
        load_development(make_spec("gone.npz", tmp_path))


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    first = load(tmp_path, medmnist())
    assert load(tmp_path, medmnist(train_labels=1 - labels(20))).digest != first.digest
    scaled = load(tmp_path, medmnist(), image_size=(4, 6))
    assert scaled.images_NCHW.shape[2:] == (4, 6)
    assert "images of 8x8 pixels are resized to cover 4x6" in scaled.notes[0]
