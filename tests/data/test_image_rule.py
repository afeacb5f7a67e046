import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sample_data import save_image

from tuner.data.images import ImageFacts, Preprocessing, choose_size, inspect_image, read_image
from tuner.errors import CheckpointError, DataError

GREY = Preprocessing(1, 4, 4, (0.5,), (0.25,))
RGB = Preprocessing(3, 4, 4, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))


@pytest.mark.parametrize(
    ("mode", "colour", "grey", "rgb"),
    [
        ("1", 1, 255, (255, 255, 255)),
        ("L", 7, 7, (7, 7, 7)),
        ("LA", (7, 255), 7, (7, 7, 7)),
        ("LA", (7, 0), 255, (255, 255, 255)),
        ("I;16", 65535, 255, (255, 255, 255)),
        ("I;16", 257 * 100, 100, (100, 100, 100)),
        ("RGB", (255, 0, 0), 76, (255, 0, 0)),
        ("RGBA", (255, 0, 0, 255), 76, (255, 0, 0)),
        ("RGBA", (255, 0, 0, 0), 255, (255, 255, 255)),
        ("RGBA", (0, 0, 0, 128), 127, (127, 127, 127)),
    ],
)
def test_every_mode_becomes_one_or_three_channels_over_white(
    tmp_path: Path, mode: str, colour: object, grey: int, rgb: tuple[int, int, int]
) -> None:
    path = save_image(tmp_path / "image.png", mode, (4, 4), colour)
    grey_CHW, rgb_CHW = read_image(path, GREY), read_image(path, RGB)
    assert grey_CHW.dtype == rgb_CHW.dtype == torch.uint8
    assert torch.equal(grey_CHW, torch.full((1, 4, 4), grey, dtype=torch.uint8))
    assert torch.equal(rgb_CHW, torch.tensor(rgb, dtype=torch.uint8).view(3, 1, 1).expand(3, 4, 4))


def test_a_cmyk_photograph_is_read_as_rgb(tmp_path: Path) -> None:
    path = save_image(tmp_path / "print.jpg", "CMYK", (4, 4), (0, 255, 255, 0))
    red, green, blue = read_image(path, RGB).float().mean(dim=(1, 2)).tolist()
    assert red > 240 > 15 > max(green, blue)


def test_a_palette_image_with_a_transparent_colour_is_laid_over_white(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "image.png", transparency=0)
    pixels_CHW = read_image(tmp_path / "image.png", RGB)
    assert pixels_CHW[:, 0, 0].tolist() == [255, 255, 255]
    assert pixels_CHW[:, 3, 3].tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    ("mode", "colour", "grey"),
    [
        ("1", 1, True),
        ("L", 7, True),
        ("LA", (7, 9), True),
        ("I;16", 700, True),
        ("RGB", (7, 7, 7), False),
        ("RGBA", (7, 7, 7, 255), False),
    ],
)
def test_the_mode_says_whether_an_image_is_grey(tmp_path: Path, mode: str, colour: object, grey: bool) -> None:
    found = inspect_image(save_image(tmp_path / "image.png", mode, (5, 3), colour))
    assert (found.height, found.width, found.grey) == (3, 5, grey)


@pytest.mark.parametrize(("used", "grey"), [(0, True), (1, False)])
def test_a_palette_image_is_grey_when_the_colours_it_uses_are(tmp_path: Path, used: int, grey: bool) -> None:
    image = Image.new("P", (4, 4), used)
    image.putpalette([9, 9, 9, 200, 10, 10])
    image.save(tmp_path / "image.png")
    assert inspect_image(tmp_path / "image.png").grey is grey


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_exif_orientation_is_applied_to_pixels_and_sides(tmp_path: Path, suffix: str) -> None:
    image = Image.new("L", (16, 8), 0)
    image.paste(255, (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / f"turned.{suffix}", exif=exif)
    assert inspect_image(tmp_path / f"turned.{suffix}") == ImageFacts(16, 8, grey=True)
    pixels_CHW = read_image(tmp_path / f"turned.{suffix}", Preprocessing(1, 16, 8, (0.5,), (0.5,)))
    assert pixels_CHW[0, :8].float().mean() > 250
    assert pixels_CHW[0, 8:].float().mean() < 5


def test_an_image_of_another_size_covers_the_target_and_is_cropped_in_the_middle(tmp_path: Path) -> None:
    image = Image.new("L", (24, 8), 0)
    image.paste(200, (8, 0, 16, 8))
    image.save(tmp_path / "wide.png")
    pixels_CHW = read_image(tmp_path / "wide.png", GREY)
    # The outer columns mix with the black beside them, as they do when the whole image is resized first.
    assert pixels_CHW[:, :, 1:3].unique().tolist() == [200]
    assert pixels_CHW.min() >= 170
    assert read_image(tmp_path / "wide.png", Preprocessing(1, 2, 6, (0.5,), (0.5,))).shape == (1, 2, 6)


def test_shrinking_averages_fine_patterns_instead_of_sampling_them(tmp_path: Path) -> None:
    board = (np.indices((32, 32)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    pixels_CHW = read_image(tmp_path / "board.png", GREY).int()
    assert (pixels_CHW - 128).abs().max() <= 4


def facts(*sizes: tuple[int, int]) -> list[ImageFacts]:
    return [ImageFacts(height, width, grey=True) for height, width in sizes]


@pytest.mark.parametrize(
    ("sizes", "asked", "expected"),
    [
        ([(8, 6), (8, 6)], None, (8, 6)),
        ([(224, 10)], None, (224, 10)),
        ([(225, 10)], None, (10, 10)),
        ([(8, 6), (10, 12), (99, 20)], None, (10, 10)),
        ([(8, 6), (10, 12)], None, (6, 6)),
        ([(500, 400), (900, 800)], None, (224, 224)),
        ([(8, 6), (10, 12)], (5, 7), (5, 7)),
    ],
)
def test_the_size_follows_the_written_rule(
    sizes: list[tuple[int, int]], asked: tuple[int, int] | None, expected: tuple[int, int]
) -> None:
    assert choose_size(facts(*sizes), asked) == expected


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("not an image")
    for read in (inspect_image, lambda path: read_image(path, GREY)):
        with pytest.raises(DataError, match=r"must be readable; .*notes\.png is not .*fix or remove") as caught:
            read(tmp_path / "notes.png")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif", "webp"])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"half.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with warnings.catch_warnings():
        # Pillow says of a broken TIFF what is wrong before it raises; what counts here is the error.
        warnings.simplefilter("ignore", UserWarning)
        with pytest.raises(DataError, match=rf"half\.{suffix} is not"):
            read_image(path, RGB)


@pytest.mark.parametrize("side", [15, 30], ids=["Pillow would warn", "Pillow would raise"])
def test_a_decompression_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    path = save_image(tmp_path / "bomb.png", "L", (side, side))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    with pytest.raises(DataError, match=r"bomb\.png is not .*decompression bomb"):
        read_image(path, GREY)


def test_a_floating_point_image_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = save_image(tmp_path / "float.tif", "F", (4, 4), 0.5)
    with pytest.raises(DataError, match=r"float\.tif is not \(a floating-point image has no known range"):
        read_image(path, GREY)


@pytest.mark.parametrize("preprocessing", [GREY, RGB])
def test_preprocessing_survives_json(preprocessing: Preprocessing) -> None:
    assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json()))) == preprocessing


@pytest.mark.parametrize(
    "change", [{"channels": 2}, {"height": 0}, {"mean": [0.5, 0.5]}, {"std": [0.0]}, {"width": "wide"}, {"mean": 3}]
)
def test_preprocessing_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match="preprocessing must have"):
        Preprocessing.from_json({**GREY.to_json(), **change})
