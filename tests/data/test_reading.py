"""16-bit grey images are scaled by their own range, and transparent ones laid over a ground on which they are seen."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sample_data import make_spec

from tuner.data.development_part import load_development
from tuner.data.images import Preprocessing, inspect_image, read_image
from tuner.data.reading import DEFAULT, WIDEST, Reading, choose_reading, reading_in_words, scale_levels, vanishes_over
from tuner.data.sealed import check_parts, fix_parts, load_test_set
from tuner.errors import CheckpointError


def save_sixteen_bits(path: Path, levels_HW: NDArray[np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(levels_HW).save(path)


def make_depth(root: Path, *, low: int = 1000, high: int = 1119) -> Path:
    """A set whose 16-bit values are low to high in train/, with test values that are partly outside."""
    for part, beyond in (("train", 0), ("test", 500)):
        for label, name in enumerate(("far", "near")):
            for number in range(6):
                random = np.random.default_rng(100 * label + number + beyond)
                levels_HW = random.integers(low, high + 1, (8, 8)).astype(np.uint16)
                levels_HW[0, :2] = low - min(beyond, low), high + beyond
                save_sixteen_bits(root / part / name / f"{number}.png", levels_HW)
    return root


def make_glyphs(root: Path, colours: Sequence[int]) -> Path:
    """Shapes that only the opacity shows: every pixel of an image has one colour."""
    number = 0
    for part in ("train", "test"):
        for name in ("bar", "ring"):
            for colour in colours:
                opacity_HW = np.zeros((8, 8), dtype=np.uint8)
                opacity_HW[1 + number % 5 : 4 + number % 5, number % 7] = 255
                opacity_HW[7, : 1 + number // 7] = 255
                pixels_HW4 = np.full((8, 8, 4), colour, dtype=np.uint8)
                pixels_HW4[..., 3] = opacity_HW
                (root / part / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels_HW4).save(root / part / name / f"{number:03}.png")
                number += 1
    return root


def test_sixteen_bit_images_are_scaled_by_the_range_of_the_development_part(tmp_path: Path) -> None:
    root = make_depth(tmp_path / "depth")
    spec = make_spec(root, tmp_path)
    parts = fix_parts(spec)
    development, test = parts.development, load_test_set(spec)
    assert development.reading == test.reading == Reading((1000, 1119), "white")
    assert (development.images_NCHW.min(), development.images_NCHW.max()) == (0, 255)
    assert len(development.images_NCHW.unique()) > 100
    assert test.images_NCHW[:, 0, 0, 0].unique().tolist() == [0]
    assert test.images_NCHW[:, 0, 0, 1].unique().tolist() == [255]
    assert development.notes[0] == (
        "grey values of more than 8 bits are scaled from 1,000..1,119, the range of 12 training and validation images, "
        "to 0..255; other values are clipped"
    )
    assert check_parts(parts).problems == ()
    own = Preprocessing(1, 8, 8, (0.5,), (0.5,), development.reading)
    assert torch.equal(read_image(root / "train" / "far" / "0.png", own), development.images_NCHW[0])


def test_a_set_over_the_whole_range_has_the_default_and_another_reading_can_be_given(tmp_path: Path) -> None:
    root = make_depth(tmp_path / "whole", low=0, high=65535 - 500)
    save_sixteen_bits(root / "train" / "far" / "0.png", np.array([[0, 65535]] * 2, dtype=np.uint16))
    assert load_development(make_spec(root, tmp_path)).reading == DEFAULT
    narrow = load_development(make_spec(make_depth(tmp_path / "depth"), tmp_path, reading=DEFAULT))
    assert narrow.reading == DEFAULT
    assert narrow.images_NCHW.unique().tolist() == [4]
    assert not any("scaled from" in note for note in narrow.notes)


def test_the_whole_range_is_scaled_as_before_and_every_range_reaches_both_ends() -> None:
    every = np.arange(65536, dtype=np.int64)
    assert np.array_equal(scale_levels(every, WIDEST), (every + 128) // 257)
    for low, high in ((1000, 1119), (0, 1023), (65534, 65535), (7, 300)):
        scaled = scale_levels(every, (low, high))
        exact = (every.clip(low, high) - low) * 255 / (high - low)
        assert np.abs(scaled - exact).max() <= 0.5
        assert (scaled[low], scaled[high], scaled[0], scaled[-1]) == (0, 255, 0, 255)
    assert scale_levels(np.array([5, 6, 7]), (6, 6)).tolist() == [0, 0, 0]


def test_a_transparent_value_of_a_sixteen_bit_image_is_not_in_its_range_and_gets_the_ground(tmp_path: Path) -> None:
    levels_HW = np.array([[1000, 1100], [65000, 1000]], dtype=np.uint16)
    Image.fromarray(levels_HW).save(tmp_path / "depth.png", transparency=65000)
    assert inspect_image(tmp_path / "depth.png").levels == (1000, 1100)
    black = Preprocessing(1, 2, 2, (0.5,), (0.5,), Reading((1000, 1100), "black"))
    assert read_image(tmp_path / "depth.png", black).tolist() == [[[0, 255], [0, 0]]]


@pytest.mark.parametrize(
    ("colours", "ground"),
    [
        ([255] * 4, "black"),
        ([0] * 4, "white"),
        ([0, 0, 255, 255], "grey"),
        ([128] * 4, "white"),
        ([0, 255, 255, 128], "black"),
    ],
)
def test_transparent_images_are_laid_over_the_ground_on_which_the_fewest_vanish(
    tmp_path: Path, colours: list[int], ground: str
) -> None:
    root = make_glyphs(tmp_path / "glyphs", colours)
    spec = make_spec(root, tmp_path)
    development, test = load_development(spec), load_test_set(spec)
    assert development.reading == test.reading == Reading(WIDEST, ground)  # type: ignore[arg-type]
    if len(set(colours)) < 3:
        for images_NCHW in (development.images_NCHW, test.images_NCHW):
            assert len(images_NCHW.flatten(1).unique(dim=0)) == len(images_NCHW)
            assert (images_NCHW.flatten(1).max(1).values - images_NCHW.flatten(1).min(1).values).min() > 100
    said = [note for note in development.notes if "transparent" in note]
    assert len(said) == (ground != "white")
    if colours == [255] * 4:
        assert said == [
            "transparent pixels are laid over black: over white, 8 of 8 training and validation images with such "
            "pixels would vanish, and over black 0"
        ]


def test_opaque_images_have_no_say_in_the_ground() -> None:
    opaque_HW4 = np.full((4, 4, 4), 255, dtype=np.uint8)
    assert vanishes_over(opaque_HW4) is None
    opaque_HW4[0, 0, 3] = 0
    assert vanishes_over(opaque_HW4) == (True, False, False)
    assert choose_reading([None, None], [None, None]) == (DEFAULT, ())


@pytest.mark.parametrize("reading", [DEFAULT, Reading((1000, 1119)), Reading(WIDEST, "black"), Reading((0, 1), "grey")])
def test_a_reading_survives_json_and_a_default_is_omitted(reading: Reading) -> None:
    preprocessing = Preprocessing(1, 4, 4, (0.5,), (0.25,), reading)
    stored = json.loads(json.dumps(preprocessing.to_json()))
    assert Preprocessing.from_json(stored) == preprocessing
    assert ("levels" in stored, "ground" in stored) == (reading.levels != WIDEST, reading.ground != "white")
    assert (reading_in_words(reading) == "") == (reading == DEFAULT)


@pytest.mark.parametrize("change", [{"levels": [5, 1]}, {"levels": [0, 70_000]}, {"levels": 3}, {"ground": "pink"}])
def test_a_reading_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="preprocessing must have"):
        Preprocessing.from_json({**Preprocessing(1, 4, 4, (0.5,), (0.25,)).to_json(), **change})
