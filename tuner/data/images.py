"""Convert an image to pixels, by the rule that training and prediction share.

1. EXIF orientation is applied. Of an animation or a stack of pages, the first picture is used.
2. Transparent pixels are laid over white, or over black or grey if fewer images vanish over that. Grey images with more
   than 8 bits are scaled to 8 bits by the range of the data set's own values (reading.py).
3. Channels: 1 if every image of the data set is grey (modes 1, L, LA, 16-bit grey, or a palette of which only greys are
   used), otherwise 3 (RGB).
4. Size: the requested size. If none is requested, the common size of the images, if they have one and no side exceeds
   224 pixels. Otherwise a square whose side is the median of the shorter sides, at most 224.
5. An image of another size is resized (bilinear, antialiased) so that it covers the target, and centre-cropped.

Reading, channels and size are determined from the development part only, and applied to the test part and to new
images. A network that starts from pretrained weights gets the images that these weights expect: 3 channels, of which
grey images have equal ones; a bicubic filter; or a crop fraction below 1, with which every image is resized so that it
covers the target divided by the fraction, and then centre-cropped to the target (resizing.py).
"""

import hashlib
import re
import statistics
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.data.reading import DEFAULT, GROUNDS, WIDEST, Levels, Reading, scale_levels, vanishes_over
from tuner.data.resizing import DEFAULT_RESIZING, Interpolation, Resizing, resize
from tuner.errors import BrokenImage, CheckpointError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

MAX_AUTOMATIC_SIDE = 224
"""Side in pixels; a larger side is used only if the user requests it."""

_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
# Orientations 5 to 8 turn an image by a quarter, which swaps its sides (EXIF 2.32, tag 0x0112).
_EXIF_ORIENTATION, _QUARTER_TURNS = 0x0112, (5, 6, 7, 8)


@dataclass(frozen=True)
class Preprocessing:
    """How an image file becomes a network's input. `mean` and `std` are per channel, of pixels divided by 255.

    interpolation, crop_fraction: as in Resizing.
    """

    channels: int
    height: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    reading: Reading = DEFAULT
    interpolation: Interpolation = "bilinear"
    crop_fraction: float = 1.0

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height, self.width

    @property
    def resizing(self) -> Resizing:
        """How images are resized. Raises ValueError for an interpolation or a crop fraction that cannot be."""
        return Resizing(self.interpolation, self.crop_fraction)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for json.dumps; those of the reading and of the resizing only if not the default."""
        sides = {"channels": self.channels, "height": self.height, "width": self.width}
        values = {**sides, "mean": list(self.mean), "std": list(self.std)}
        return {**values, **self.reading.to_json(), **self.resizing.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Read what to_json returned. Raises CheckpointError for anything else."""
        try:
            channels, height, width = (int(values[key]) for key in ("channels", "height", "width"))
            mean, std = (tuple(float(value) for value in values[key]) for key in ("mean", "std"))
            reading, resizing = Reading.from_json(values), Resizing.from_json(values)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                "preprocessing must have channels, height, width, mean, std and valid levels, and valid resizing "
                f"(interpolation and crop_fraction) if it has one; got {values}"
            ) from error
        if channels not in (1, 3) or min(height, width) < 1 or {len(mean), len(std)} != {channels} or min(std) <= 0:
            raise CheckpointError(
                f"preprocessing must have 1 or 3 channels with mean and std above 0 each; got {values}"
            )
        return cls(channels, height, width, mean, std, reading, resizing.interpolation, resizing.crop_fraction)


@dataclass(frozen=True)
class ImageFacts:
    """Properties of an image that the rule needs: sides in pixels as displayed, and whether it is grey.

    levels: its smallest and largest value, if it is grey with more than 8 bits. vanishes: as vanishes_over returns it.
    """

    height: int
    width: int
    grey: bool
    levels: Levels | None = None
    vanishes: tuple[bool, ...] | None = None


def read_image(path: Path, preprocessing: Preprocessing) -> Tensor:
    """Read one file as a uint8 tensor (C, H, W), by the rule above. Raises BrokenImage if it cannot be decoded."""
    with bombs_as_errors():
        pixels_CHW = read_pixels(
            path,
            channels=preprocessing.channels,
            height=preprocessing.height,
            width=preprocessing.width,
            reading=preprocessing.reading,
            resizing=preprocessing.resizing,
        )
    return torch.from_numpy(pixels_CHW)


def read_pixels(
    path: Path,
    *,
    channels: int,
    height: int,
    width: int,
    reading: Reading = DEFAULT,
    resizing: Resizing = DEFAULT_RESIZING,
) -> NDArray[np.uint8]:
    """Read one file as uint8 (C, H, W). Raises BrokenImage for a file that cannot be decoded."""
    return read_hashed_pixels(path, channels=channels, height=height, width=width, reading=reading, resizing=resizing)[
        0
    ]


def read_hashed_pixels(
    path: Path,
    *,
    channels: int,
    height: int,
    width: int,
    reading: Reading = DEFAULT,
    resizing: Resizing = DEFAULT_RESIZING,
) -> tuple[NDArray[np.uint8], bytes, tuple[int, int]]:
    """Read one file as uint8 (C, H, W), with a digest of its bytes (16 bytes) and its own (height, width).

    All come from one open file, so they match even if a program replaces the file at the same time. Raises BrokenImage
    for a file that cannot be decoded.
    """
    from PIL import Image, ImageOps

    with _errors_naming(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
        file.seek(0)
        with Image.open(file) as image:
            upright = ImageOps.exif_transpose(image)
            own_size = upright.height, upright.width
            pixels_CHW = pixels_from(
                upright, channels=channels, height=height, width=width, reading=reading, resizing=resizing
            )
            return pixels_CHW, digest, own_size


def inspect_image(path: Path) -> ImageFacts:
    """Read the properties that the rule needs, mostly from the file's header.

    Images with more than 8 bits or with transparent pixels are decoded. Raises BrokenImage for a file that cannot be
    decoded.
    """
    from PIL import Image

    with _errors_naming(path), Image.open(path) as image:
        facts = facts_of(image)
        # A PNG must be decoded to find its orientation; for a square the answer would change nothing.
        if facts.width != facts.height and image.getexif().get(_EXIF_ORIENTATION) in _QUARTER_TURNS:
            facts = replace(facts, height=facts.width, width=facts.height)
        return facts


def facts_of(image: "PILImage") -> ImageFacts:
    """Return the properties that the rule needs of a Pillow image; its orientation is not applied."""
    width, height = image.size
    if image.mode.startswith("I"):
        return ImageFacts(height, width, grey=True, levels=_levels_of(image))
    vanishes = vanishes_over(np.array(image.convert("RGBA"))) if image.has_transparency_data else None
    return ImageFacts(height, width, _is_grey(image), vanishes=vanishes)


def picture_from(image_CHW: NDArray[np.uint8]) -> "PILImage":
    """Convert an array to a Pillow image: grey, RGB, or RGB with opacity for 1, 3 or 4 channels."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(image_CHW[0] if len(image_CHW) == 1 else image_CHW.transpose(1, 2, 0)))


def pixels_from(
    image: "PILImage",
    *,
    channels: int,
    height: int,
    width: int,
    reading: Reading = DEFAULT,
    resizing: Resizing = DEFAULT_RESIZING,
) -> NDArray[np.uint8]:
    """Convert, resize and crop a Pillow image to uint8 (C, H, W)."""
    opaque = _opaque(image, reading).convert("L" if channels == 1 else "RGB")
    pixels = np.array(resize(opaque, (height, width), resizing), dtype=np.uint8)
    return pixels[np.newaxis] if channels == 1 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def choose_size(facts: Sequence[ImageFacts], image_size: tuple[int, int] | None) -> tuple[int, int]:
    """Apply rule 4: (height, width) in pixels."""
    if image_size is not None:
        return image_size
    sizes = {(fact.height, fact.width) for fact in facts}
    if len(sizes) == 1 and max(size := next(iter(sizes))) <= MAX_AUTOMATIC_SIDE:
        return size
    side = min(MAX_AUTOMATIC_SIDE, statistics.median_low(min(fact.height, fact.width) for fact in facts))
    return side, side


@contextmanager
def bombs_as_errors() -> Iterator[None]:
    """Turn Pillow's warning of a decompression bomb into an error, in all threads; only one thread may enter this."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def _errors_naming(path: Path) -> Iterator[None]:
    try:
        yield
    # Pillow's decoders raise nearly everything on broken input: OSError, SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        raise BrokenImage(path, _reason_in_words(error)) from error


def _reason_in_words(error: Exception) -> str:
    """Return why an image cannot be read, without what only Python's own names of objects and classes would say."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is no image that Pillow can read"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
    return re.sub(r"\s*<[^<>]*>", "", reason) or "it is damaged"


def _is_grey(image: "PILImage") -> bool:
    if image.mode not in ("P", "PA"):
        return image.mode in _GREY_MODES
    # 256 palette entries times 256 levels of opacity: getcolors never has more to list, so it never answers None.
    colours: Any = image.convert("RGBA").getcolors(256 * 256)
    return all(red == green == blue for _, (red, green, blue, opacity) in colours if opacity > 0)


def _opaque(image: "PILImage", reading: Reading) -> "PILImage":
    from PIL import Image

    if image.mode == "F":
        raise ValueError("a floating-point image has no known range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return _eight_bits(image, reading)
    if not image.has_transparency_data:
        return image if image.mode != "P" else image.convert("RGB")
    coloured = image.convert("RGBA")
    value = GROUNDS[reading.ground]
    ground = Image.new("RGBA", coloured.size, (value, value, value, 255))
    return Image.alpha_composite(ground, coloured).convert("RGB")


def _eight_bits(image: "PILImage", reading: Reading) -> "PILImage":
    from PIL import Image

    levels_HW, is_transparent_HW = _sixteen_bits(image)
    pixels_HW = scale_levels(levels_HW, reading.levels)
    pixels_HW[is_transparent_HW] = GROUNDS[reading.ground]
    return Image.fromarray(pixels_HW)


def _levels_of(image: "PILImage") -> Levels | None:
    """Return the smallest and the largest visible value; None if there is none."""
    levels_HW, is_transparent_HW = _sixteen_bits(image)
    visible_N = levels_HW[~is_transparent_HW]
    return (int(visible_N.min()), int(visible_N.max())) if len(visible_N) else None


def _sixteen_bits(image: "PILImage") -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the values of a grey image, and which pixels are transparent."""
    levels_HW = np.array(image).astype(np.int64)
    if levels_HW.min() < WIDEST[0] or levels_HW.max() > WIDEST[1]:
        raise ValueError("a grey image must have at most 16 bits; save it with 8 or 16 bits")
    transparent = image.info.get("transparency")
    return levels_HW, levels_HW == (transparent if isinstance(transparent, int) else -1)
