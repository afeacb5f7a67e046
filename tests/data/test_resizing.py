"""Interpolation, crop fraction and three channels, which the weights of a pretrained network determine."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sample_data import make_classes, make_spec, write_mnist
from torchvision.transforms import InterpolationMode, v2

from tuner.data.dataset import DataSpec, Decoding, ImageDataset
from tuner.data.development_part import load_development
from tuner.data.image_parts import ImageParts
from tuner.data.image_rule import is_decoded_for, spec_for
from tuner.data.images import Preprocessing, picture_from, pixels_from, read_image
from tuner.data.reading import Reading
from tuner.data.resizing import DEFAULT_RESIZING, Interpolation, Resizing, resizing_in_words
from tuner.data.sealed import check_parts, fix_parts, fix_parts_for, load_test_set
from tuner.errors import CheckpointError, DataError

CUBIC = Resizing("bicubic", 0.875)
OF_WEIGHTS = Preprocessing(3, 28, 28, (0.5,) * 3, (0.25,) * 3, interpolation="bicubic", crop_fraction=0.875)


def photograph(height: int, width: int, *, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth areas with edges and noise, as photographs have them."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (max(2, height // 9), max(2, width // 9), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).astype(np.int64)
    smooth[height // 3 :, : width // 2] //= 3
    noisy = smooth + random.integers(-40, 41, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode)


def by_torchvision(image: Image.Image, side: int, covered: int, interpolation: Interpolation) -> NDArray[np.int64]:
    """(C, H, W) after Resize and CenterCrop."""
    method = InterpolationMode[interpolation.upper()]
    pixels = np.asarray(v2.CenterCrop(side)(v2.Resize(covered, method, antialias=True)(image))).astype(np.int64)
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def by_us(image: Image.Image, side: int, resizing: Resizing, *, channels: int = 3) -> NDArray[np.int64]:
    return pixels_from(image, channels=channels, height=side, width=side, resizing=resizing).astype(np.int64)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("height", "width"), [(300, 400), (333, 501), (255, 257), (1001, 300), (37, 50), (224, 224), (256, 256), (99, 700)]
)
def test_a_crop_fraction_gives_the_pixels_of_torchvision(
    height: int, width: int, mode: str, interpolation: Interpolation
) -> None:
    image = photograph(height, width, mode=mode)
    expected_CHW = by_torchvision(image, 224, 256, interpolation)
    found_CHW = by_us(image, 224, Resizing(interpolation, 0.875), channels=len(expected_CHW))
    differences = np.abs(found_CHW - expected_CHW)
    assert differences.max() <= 2  # Pillow rounds positions in an image to fp32, in each of two passes
    assert (differences > 0).mean() < 0.02


@pytest.mark.parametrize(("side", "covered"), [(224, 232), (224, 235), (96, 110), (49, 56), (299, 342)])
def test_sides_that_are_no_whole_multiple_are_covered_as_the_weights_say(side: int, covered: int) -> None:
    resizing = Resizing("bicubic", side / covered)
    assert resizing.covered_size((side, side)) == (covered, covered)
    image = photograph(333, 501)
    assert np.abs(by_us(image, side, resizing) - by_torchvision(image, side, covered, "bicubic")).max() <= 2


def test_without_a_crop_fraction_the_filter_is_all_that_changes() -> None:
    image = photograph(60, 60)
    assert np.array_equal(by_us(image, 28, Resizing("bicubic")), by_torchvision(image, 28, 28, "bicubic"))
    assert np.array_equal(by_us(image, 28, DEFAULT_RESIZING), by_torchvision(image, 28, 28, "bilinear"))
    assert np.array_equal(by_us(image, 60, Resizing("bicubic")), np.asarray(image).transpose(2, 0, 1))


def test_targets_that_are_no_squares_are_covered_and_cropped_on_both_sides() -> None:
    image = Image.new("L", (80, 40), 0)
    image.paste(200, (20, 10, 60, 30))
    pixels_CHW = pixels_from(image, channels=1, height=20, width=40, resizing=Resizing("bilinear", 0.5))
    assert pixels_CHW.shape == (1, 20, 40)
    assert np.unique(pixels_CHW).tolist() == [200]


@pytest.mark.parametrize(("height", "width"), [(1, 100_000), (100_000, 2), (1, 1)])
def test_a_long_and_narrow_image_is_resized_without_all_of_its_pixels(height: int, width: int) -> None:
    image = Image.new("L", (width, height), 9)
    assert np.unique(by_us(image, 224, CUBIC, channels=1)).tolist() == [9]


@pytest.mark.parametrize("resizing", [DEFAULT_RESIZING, CUBIC, Resizing("bicubic")])
def test_grey_images_become_three_equal_channels(resizing: Resizing) -> None:
    image = photograph(50, 41, mode="L")
    pixels_CHW = by_us(image, 28, resizing)
    assert np.array_equal(pixels_CHW, np.repeat(by_us(image, 28, resizing, channels=1), 3, axis=0))
    sixteen_bits = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    assert np.array_equal(by_us(sixteen_bits, 28, resizing), pixels_CHW)


@pytest.mark.parametrize("resizing", [DEFAULT_RESIZING, CUBIC, Resizing("bicubic"), Resizing("bilinear", 0.5)])
def test_a_resizing_survives_json_and_a_default_is_omitted(resizing: Resizing) -> None:
    plain = Preprocessing(1, 4, 4, (0.5,), (0.25,))
    preprocessing = replace(plain, interpolation=resizing.interpolation, crop_fraction=resizing.crop_fraction)
    stored = json.loads(json.dumps(preprocessing.to_json()))
    assert Preprocessing.from_json(stored) == preprocessing
    assert preprocessing.resizing == resizing
    changed = {"interpolation": resizing.interpolation != "bilinear", "crop_fraction": resizing.crop_fraction != 1}
    assert {key: key in stored for key in changed} == changed
    assert (resizing_in_words(resizing, (4, 4)) == "") == (resizing == DEFAULT_RESIZING)


def test_preprocessing_without_a_resizing_is_written_as_before() -> None:
    written = '{"channels": 1, "height": 4, "width": 5, "mean": [0.5], "std": [0.25], "levels": [0, 9]}'
    assert json.dumps(Preprocessing(1, 4, 5, (0.5,), (0.25,), Reading((0, 9))).to_json()) == written
    assert Preprocessing.from_json(json.loads(written)).resizing == DEFAULT_RESIZING


WRONG = [
    {"interpolation": "nearest"},
    {"interpolation": 3},
    {"interpolation": ["bicubic"]},
    {"crop_fraction": 0.0},
    {"crop_fraction": 1.5},
    {"crop_fraction": "0.875"},
    {"crop_fraction": True},
    {"crop_fraction": float("nan")},
    {"crop_fraction": None},
]


@pytest.mark.parametrize("change", WRONG)
def test_a_resizing_that_cannot_be_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessing must have .* valid resizing"):
        Preprocessing.from_json({**Preprocessing(1, 4, 4, (0.5,), (0.25,)).to_json(), **change})
    with pytest.raises(DataError, match=f"^{next(iter(change))} must be "):
        make_spec("digits", tmp_path, **change)


@pytest.mark.parametrize("channels", [1, 4, "3"])
def test_a_data_set_has_the_channels_of_its_images_or_three(channels: object, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="channels of a data set must be 3, or None"):
        make_spec("digits", tmp_path, channels=channels)


@pytest.mark.parametrize(
    ("decoding", "key"),
    [
        (Decoding(), '{"image_size": null}'),
        (Decoding((8, 6)), '{"image_size": [8, 6]}'),
        (Decoding((4, 4), Reading()), '{"image_size": [4, 4], "reading": {"ground": "white", "levels": [0, 65535]}}'),
        (
            Decoding(None, None, 3, "bicubic", 0.875),
            '{"channels": 3, "crop_fraction": 0.875, "image_size": null, "interpolation": "bicubic"}',
        ),
    ],
)
def test_the_key_of_a_decoding_has_only_what_is_not_the_default(decoding: Decoding, key: str) -> None:
    assert decoding.key == key


def test_caches_of_earlier_versions_are_found_under_the_same_names(tmp_path: Path) -> None:
    spec = make_spec("digits", tmp_path)
    parts = fix_parts(spec)
    folders = [parts.development.folder.name, parts.test.cached.folder.name]
    assert folders == ["2d86d4b875a482a9711242c358fccdcf", "7e2271f372922d6daff54238d1875af9"]
    load_development(replace(spec, image_size=(12, 10)))
    listings = sorted(path.stem for path in (spec.cache_dir / "listings").iterdir())
    assert listings == ["2242f49a52e544507ccc43f082987013", "c6c9512add35aa2dd6b0383e951cbdfb"]


def make_folder(tmp_path: Path) -> DataSpec:
    make_classes(tmp_path / "pets" / "train", {"cat": 6, "dog": 6}, size=(31, 40))
    make_classes(tmp_path / "pets" / "test", {"cat": 2, "dog": 2}, first=100, mode="RGB")
    return make_spec(tmp_path / "pets", tmp_path)


def make_table(tmp_path: Path) -> DataSpec:
    make_classes(tmp_path / "pets", {"cat": 8, "dog": 8}, size=(31, 40))
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    rows = [f"{name},{name.split('/')[1]}" for name in names]
    (tmp_path / "pets.csv").write_text("\n".join(["path,label", *rows]), encoding="utf-8")
    return make_spec(tmp_path / "pets.csv", tmp_path)


def make_npz(tmp_path: Path) -> DataSpec:
    images_NHW = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=images_NHW, labels=np.arange(40) % 2)
    return make_spec(tmp_path / "set.npz", tmp_path)


def make_mnist(tmp_path: Path) -> DataSpec:
    spec = make_spec("mnist", tmp_path)
    write_mnist(spec.data_dir / "MNIST" / "raw")
    return spec


def make_digits(tmp_path: Path) -> DataSpec:
    return make_spec("digits", tmp_path)


def make_arrays(tmp_path: Path) -> DataSpec:
    images_NHW = np.random.default_rng(0).integers(0, 256, (40, 20, 28), dtype=np.uint8)
    parts = ImageParts((images_NHW, np.arange(40) % 2))
    return DataSpec(parts, data_dir=tmp_path, cache_dir=tmp_path / "cache")


def make_items(tmp_path: Path) -> DataSpec:
    items = [(photograph(20 + n % 3, 28, mode="L", seed=n), n % 2) for n in range(40)]

    class Items(torch.utils.data.Dataset[tuple[Image.Image, int]]):
        def __len__(self) -> int:
            return len(items)

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            return items[index]

    return DataSpec(ImageParts(Items()), data_dir=tmp_path, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("make", [make_folder, make_table, make_npz, make_mnist, make_digits, make_arrays, make_items])
def test_the_same_images_are_decoded_for_weights_in_every_form_of_a_set(
    make: Callable[[Path], DataSpec], tmp_path: Path
) -> None:
    spec = make(tmp_path)
    theirs = spec_for(spec, OF_WEIGHTS)
    for load in (load_development, load_test_set):
        own, other = load(spec), load(theirs)
        assert other.images_NCHW.shape == (len(own.labels_N), 3, 28, 28)
        assert torch.equal(own.labels_N, other.labels_N)
        assert (own.digest, own.class_names) == (other.digest, other.class_names)
        assert (own.resizing, other.resizing) == (DEFAULT_RESIZING, CUBIC)
        assert is_decoded_for(other, OF_WEIGHTS)
        assert not is_decoded_for(own, OF_WEIGHTS)
        if own.images_NCHW.shape[1] == 1 and load is load_development:
            assert other.images_NCHW.eq(other.images_NCHW[:, :1]).all()
    assert any("resized (bicubic) to cover 32x32" in note and "28x28" in note for note in other.notes)


@pytest.mark.parametrize("make", [make_npz, make_mnist, make_digits])
def test_arrays_are_resized_by_the_rule_of_files(make: Callable[[Path], DataSpec], tmp_path: Path) -> None:
    spec = make(tmp_path)
    own, other = load_development(spec), load_development(spec_for(spec, OF_WEIGHTS))
    for row in (0, 1, len(own.labels_N) - 1):
        picture = picture_from(own.images_NCHW[row].numpy())
        assert np.array_equal(other.images_NCHW[row].numpy(), by_us(picture, 28, CUBIC))


def test_a_new_image_is_read_as_those_of_the_set(tmp_path: Path) -> None:
    spec = make_folder(tmp_path)
    for name in ("train/cat/000.png", "test/dog/001.png"):
        photograph(50, 41, mode="L" if "train" in name else "RGB").save(tmp_path / "pets" / name)
    for load, name, row in ((load_development, "train/cat/000.png", 0), (load_test_set, "test/dog/001.png", 3)):
        images_NCHW = load(spec_for(spec, OF_WEIGHTS)).images_NCHW
        assert torch.equal(read_image(tmp_path / "pets" / name, OF_WEIGHTS), images_NCHW[row])


def test_notes_name_the_channels_and_the_filter(tmp_path: Path) -> None:
    spec = make_folder(tmp_path)
    assert last_note(load_development(spec_for(spec, OF_WEIGHTS))) == (
        "images are grey (in 3 equal channels); all are resized (bicubic) to cover 32x32 pixels (height x width; "
        "--image-size changes it), and centre-cropped to 28x28"
    )
    whole = replace(spec_for(spec, OF_WEIGHTS), crop_fraction=1)
    assert last_note(load_development(whole)).startswith(
        "images are grey (in 3 equal channels); 12 of 12 have another size and are resized (bicubic) to cover 28x28 "
    )


def last_note(dataset: ImageDataset) -> str:
    return dataset.notes[-1]


def test_parts_are_decoded_for_weights_once_and_stay_sealed_together(tmp_path: Path) -> None:
    parts = fix_parts(make_folder(tmp_path))
    theirs = fix_parts_for(parts, OF_WEIGHTS)
    assert is_decoded_for(theirs.development, OF_WEIGHTS)
    assert (theirs.test.digest, theirs.test.development_digest) == (parts.test.digest, parts.development.digest)
    assert fix_parts_for(theirs, OF_WEIGHTS) is theirs


def test_the_check_of_a_set_counts_what_a_crop_fraction_takes_away(tmp_path: Path) -> None:
    spec = make_npz(tmp_path)
    assert check_parts(fix_parts(spec)).cropped_mean == 0
    cropped = check_parts(fix_parts(spec_for(spec, OF_WEIGHTS))).cropped_mean
    assert cropped == pytest.approx(1 - 0.875**2)
