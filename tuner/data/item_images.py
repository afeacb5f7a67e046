"""One item of a torch data set: its image as a Pillow image, and its label.

A Pillow image is read by the rule of image files. An array or a tensor has shape (H, W), (C, H, W) or (H, W, C), and
integers in 0..255, booleans, or floats in 0..1, which are multiplied by 255. Other floats are
refused even if they are whole, so that no pixel depends on which other values its image has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuner.data.array_values import array_from, bytes_from, channels_first, refuse_not_finite, value_rule
from tuner.data.images import ImageFacts, facts_of, picture_from
from tuner.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage


@dataclass(frozen=True)
class Item:
    """What is kept of an item: its label, the digest of its pixels, and the facts that the image rule needs."""

    label: Any
    digest: bytes
    facts: ImageFacts


def name_of(index: int, what: str) -> str:
    """How errors call an item. what: the part."""
    return f"item {index} of {what}"


def read_item(data_set: Any, index: int, what: str) -> tuple[PILImage, Item]:
    """Read an item. Raises DataError if it is no pair of an image and a label. what: the part, for errors."""
    from PIL import Image, ImageOps

    where = name_of(index, what)
    # A data set is the program of somebody else, and raises whatever it likes.
    try:
        pair = data_set[index]
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        raise DataError(f"every item must be readable; {where} is not ({reason})") from error
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise DataError(f"every item must be a pair (image, label); {where} is of type {type(pair).__name__}")
    given, label = pair
    image = ImageOps.exif_transpose(given) if isinstance(given, Image.Image) else _image_from(given, where)
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    digest.update(image.tobytes())
    if image.mode == "P":
        digest.update(bytes(image.getpalette() or ()))
    with errors_naming(where):
        return image, Item(_plain_label(label, where), digest.digest(), facts_of(image))


@contextmanager
def errors_naming(where: str) -> Iterator[None]:
    """Turn the error of an image whose values have no known range into a DataError. where: the item, for errors."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"every image must be readable; that of {where} is not ({error})") from error


def _image_from(given: Any, where: str) -> PILImage:
    pixels = array_from(given, f"the image of {where}")
    if pixels.ndim not in (2, 3):
        raise DataError(f"the image of {where} must have shape (H, W), (C, H, W) or (H, W, C); it has {pixels.shape}")
    images_NCHW = channels_first(pixels[np.newaxis], f"the image of {where}")
    refuse_not_finite(images_NCHW, f"the image of {where}")
    rule = value_rule([images_NCHW], f"the image of {where}")
    are_whole_floats = pixels.dtype.kind == "f" and rule.scale == 1 and not rule.note
    if rule.note or are_whole_floats:
        raise DataError(
            f"the image of {where} must have integers in 0..255 or floats in 0..1; it has {pixels.dtype} values in "
            f"{pixels.min():g}..{pixels.max():g}: "
            + ("convert it to uint8, or divide it by 255" if are_whole_floats else "leave normalization to tuner")
        )
    image_CHW: NDArray[np.uint8] = bytes_from(images_NCHW, rule, where)[0]
    return picture_from(image_CHW)


def _plain_label(label: Any, where: str) -> Any:
    if hasattr(label, "item") and getattr(label, "size", None) is not None:
        array = array_from(label, f"the label of {where}")
        if array.size == 1:
            return array.item()
    if isinstance(label, str | int | float):
        return label
    raise DataError(f"every label must be a whole number or a text; that of {where} is of type {type(label).__name__}")
