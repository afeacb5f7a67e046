"""Every form of an image set is read by one rule, described image by image, and checked."""

import json
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
from torch.utils.data import Dataset

from tuner.data.cache import load_records
from tuner.data.data_checks import DataChecks
from tuner.data.dataset import Columns, DataSpec
from tuner.data.development_part import load_development
from tuner.data.image_parts import ImageParts
from tuner.data.image_records import find_records
from tuner.data.reading import DEFAULT, WIDEST, Reading, scale_levels
from tuner.data.sealed import check_parts, fix_parts, load_test_set
from tuner.errors import DataError

Images = dict[str, list[tuple[NDArray[Any], int]]]
"""The images (H, W) or (H, W, 4) of each part, with the label of each."""
NAMES = ("ant", "bee")


class Items(Dataset[Any]):
    """A torch data set of Pillow images."""

    classes = NAMES

    def __init__(self, pairs: list[tuple[NDArray[Any], int]]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        image, label = self.pairs[index]
        return Image.fromarray(image), label


def arrays_of(pairs: list[tuple[NDArray[Any], int]]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    return np.stack([image for image, _ in pairs]), np.array([label for _, label in pairs])


def as_folder(images: Images, folder: Path) -> DataSpec:
    for part, pairs in images.items():
        for number, (image, label) in enumerate(pairs):
            path = folder / "set" / part / NAMES[label] / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return make_spec(folder / "set", folder)


def as_table(images: Images, folder: Path) -> DataSpec:
    lines = ["path,kind,split"]
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for part, pairs in images.items():
        for number, (image, label) in enumerate(pairs):
            name = f"pictures/{part}{number:03}.png"
            Image.fromarray(image).save(folder / name)
            lines.append(f"{name},{NAMES[label]},{part}")
    (folder / "set.csv").write_text("\n".join(lines), encoding="utf-8")
    return make_spec(folder / "set.csv", folder, columns=Columns(label="kind"))


def as_npz(images: Images, folder: Path) -> DataSpec:
    arrays: dict[str, Any] = {"class_names": np.array(NAMES)}
    for part, pairs in images.items():
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = arrays_of(pairs)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "set.npz", **arrays)
    return make_spec(folder / "set.npz", folder)


def as_arrays(images: Images, folder: Path) -> DataSpec:
    parts = [arrays_of(images[part]) if part in images else None for part in ("train", "val", "test")]
    return replace(make_spec("", folder), dataset=ImageParts(*parts, class_names=NAMES, name="set"))


def as_items(images: Images, folder: Path) -> DataSpec:
    parts = [Items(images[part]) if part in images else None for part in ("train", "val", "test")]
    return replace(make_spec("", folder), dataset=ImageParts(*parts, name="set"))


FORMS: list[Callable[[Images, Path], DataSpec]] = [as_folder, as_table, as_npz, as_arrays, as_items]
every_form = pytest.mark.parametrize("form", FORMS)


def noise(number: int, *, low: int = 0, high: int = 256, dtype: str = "uint8") -> NDArray[Any]:
    return np.random.default_rng(number).integers(low, high, (8, 6)).astype(dtype)


def faulty() -> Images:
    """Noise with two test images that also train, one constant image, and one image under two labels."""
    train = [(noise(number), number % 2) for number in range(24)]
    train += [(np.full((8, 6), 9, dtype=np.uint8), 0), (noise(0), 1)]
    validation = [(noise(number), number % 2) for number in range(100, 104)]
    test = [(noise(number), number % 2) for number in range(200, 208)] + [(noise(2), 0), (noise(3), 1)]
    return {"train": train, "val": validation, "test": test}


@every_form
def test_the_same_faults_are_found_in_every_form(tmp_path: Path, form: Callable[[Images, Path], DataSpec]) -> None:
    parts = fix_parts(form(faulty(), tmp_path))
    records_N = find_records(parts.development.folder, pixels_digest=parts_digest(parts.development.folder))
    assert records_N is not None, "they are written when the images are decoded"
    assert set(records_N["height"]) == {8}
    assert set(records_N["width"]) == {6}
    assert len(set(records_N["source"].tolist())) == 29
    assert check_parts(parts) == DataChecks(
        class_names=NAMES,
        num_development=(15, 15),
        num_test=(5, 5),
        num_distinct=(19, 19),
        num_validation=4,
        test_in_development=2,
        validation_in_train=0,
        repeated_development=1,
        repeated_test=0,
        two_labels=2,
        constant_images=1,
        cropped_mean=0.0,
        cropped_most=0.0,
        faint_images=0,
    )
    assert check_parts(parts).problems == ("duplicates", "labels")


def parts_digest(folder: Path) -> str:
    digest: str = json.loads((folder / "meta.json").read_text(encoding="utf-8"))["pixels_digest"]
    return digest


@every_form
def test_grey_values_of_more_than_8_bits_are_read_alike_in_every_form(
    tmp_path: Path, form: Callable[[Images, Path], DataSpec]
) -> None:
    images = {
        "train": [(noise(number, low=1000, high=1120, dtype="uint16"), number % 2) for number in range(12)],
        "test": [(noise(number, low=900, high=1300, dtype="uint16"), number % 2) for number in range(50, 54)],
    }
    images["train"][0][0][0, :2] = 1000, 1119
    spec = form(images, tmp_path)
    development, test = load_development(spec), load_test_set(spec)
    assert development.reading == test.reading == Reading((1000, 1119))
    rows = sorted(image_CHW.numpy().tobytes() for image_CHW in (*development.images_NCHW, *test.images_NCHW))
    expected = load_development(as_folder(images, tmp_path / "f")), load_test_set(as_folder(images, tmp_path / "f"))
    assert rows == sorted(image_CHW.numpy().tobytes() for part in expected for image_CHW in part.images_NCHW)
    assert sum("scaled" in note for note in development.notes) == 1
    given = load_development(replace(spec, reading=DEFAULT))
    assert given.reading == DEFAULT
    assert given.images_NCHW.unique().tolist() == [4]
    assert not any("scaled" in note for note in given.notes)


@every_form
def test_transparent_images_are_laid_over_the_same_ground_in_every_form(
    tmp_path: Path, form: Callable[[Images, Path], DataSpec]
) -> None:
    images: Images = {"train": [], "test": []}
    for number in range(16):
        pixels_HW4 = np.full((8, 6, 4), 255, dtype=np.uint8)
        pixels_HW4[..., 3] = noise(number) // 128 * 255
        images["train" if number < 12 else "test"].append((pixels_HW4, number % 2))
    spec = form(images, tmp_path)
    development, test = load_development(spec), load_test_set(spec)
    assert development.reading == test.reading == Reading(WIDEST, "black")
    assert test.images_NCHW.unique().tolist() == [0, 255]
    assert check_parts(fix_parts(spec)).constant_images == 0
    assert sum("laid over black" in note for note in development.notes) == 1


def test_files_beside_the_images_of_a_table_are_counted_if_it_does_not_list_them(tmp_path: Path) -> None:
    spec = as_table(faulty(), tmp_path)
    assert fix_parts(spec).development.unused == {}
    for name in ("pictures/more.PNG", "pictures/notes.txt", "pictures/.hidden", "pictures/Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "not-looked-at.png").write_bytes(b"x")
    assert fix_parts(spec).development.unused == {".png": 1, ".txt": 1}
    (tmp_path / "pictures" / "set.csv").write_text(
        (tmp_path / "set.csv").read_text(encoding="utf-8").replace("pictures/", "../pictures/"), encoding="utf-8"
    )
    inside = replace(spec, dataset=str(tmp_path / "pictures" / "set.csv"))
    assert fix_parts(inside).development.unused == {".png": 1, ".txt": 1}


def test_one_run_names_every_broken_image_of_a_table(tmp_path: Path) -> None:
    spec = as_table(faulty(), tmp_path)
    for name in ("train003.png", "val001.png", "test002.png"):
        (tmp_path / "pictures" / name).write_bytes(b"broken")
    with pytest.raises(DataError, match=r"3 of 40 are not: fix or remove .*test002.*train003.*val001") as caught:
        load_development(spec)
    assert "\n" not in str(caught.value)


def test_images_in_groups_have_records_too(tmp_path: Path) -> None:
    pixels = np.stack([noise(number // 2 * 2) for number in range(48)])
    parts = fix_parts(
        replace(
            make_spec("", tmp_path),
            dataset=ImageParts((pixels, np.arange(48) // 24, np.arange(48) // 2)),
        )
    )
    development = parts.development
    assert development.groups_N is not None
    checks = check_parts(parts)
    assert sum(checks.num_development) + sum(checks.num_test) == 48
    assert (checks.test_in_development, checks.problems) == (0, ())  # both images of a group are on one side
    (development.folder / "records.npz").unlink()
    again = load_records(development.folder)
    assert again.labels_N.tolist() == development.labels_N.tolist()
    assert check_parts(parts) == replace(checks, cropped_mean=None, cropped_most=None)


def test_a_wider_range_moves_no_image_between_the_parts(tmp_path: Path) -> None:
    pixels = np.stack([noise(number, high=4000, dtype="uint16") for number in range(60)])
    pixels[0, 0, 0] = 4095
    sides = []
    for count in (60, 59):
        spec = replace(
            make_spec("", tmp_path), dataset=ImageParts((pixels[60 - count :], np.arange(60)[60 - count :] % 2))
        )
        test = load_test_set(spec)
        rows = [
            row
            for row in range(60)
            if any(torch.equal(scaled(pixels[row], test.reading), image_CHW[0]) for image_CHW in test.images_NCHW)
        ]
        sides.append({row for row in rows if row})
        assert 4 < len(rows) < 25
    assert sides[0] == sides[1]


def scaled(pixels_HW: NDArray[Any], reading: Reading) -> torch.Tensor:
    return torch.from_numpy(scale_levels(pixels_HW.astype(np.int64), reading.levels))


def test_items_whose_values_have_no_range_are_refused_in_one_line(tmp_path: Path) -> None:
    floats = [(noise(number).astype("float32") / 255, number % 2) for number in range(12)]
    wide = [(noise(number, high=200_000, dtype="int32"), number % 2) for number in range(12)]
    for pairs, reason in ((floats, "a floating-point image has no known range"), (wide, "must have at most 16 bits")):
        with pytest.raises(DataError, match=rf"that of item \d+ of the \w+ part of set is not \(.*{reason}") as caught:
            load_development(as_items({"train": pairs}, tmp_path))
        assert "\n" not in str(caught.value)
