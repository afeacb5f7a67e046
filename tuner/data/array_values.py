"""Turn image arrays of any layout and type into uint8 (N, C, H, W), by one written rule.

Layout: (N, H, W) is grey. Of 4 axes, the channels are the one of axis 1 and the last axis that has 1, 3 or 4 entries: 1
is grey, 3 is RGB, and 4 is RGB with opacity. If both have, the layout is ambiguous and rejected.

Values: uint8 is kept, and so are other whole numbers within 0..255, whatever their type. Booleans become 0 and 255.
Floats within 0..1 are multiplied by 255. All other values are scaled linearly, so that the range of the training and
validation images becomes 0..255; values of test images outside this range are clipped. For grey images with whole
numbers within 0..65535, this is the rule of 16-bit image files (reading.py), and the range is stored with a network.
Values that are not finite are rejected.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.data.reading import WIDEST, Levels, Reading, scale_levels
from tuner.errors import DataError

_CHANNELS = (1, 3, 4)
_CHUNK = 1024


@dataclass(frozen=True)
class ValueRule:
    """How values become 0..255: (value - low) * scale, rounded, or by `levels` as in `Reading`.

    dtype: type of the values that it was made for. note: for the user, if the images were rescaled.
    """

    dtype: np.dtype[Any]
    low: float
    scale: float
    note: str = ""
    levels: Levels | None = None


def array_from(value: Any, what: str) -> NDArray[Any]:
    """Return an array, a tensor on any device, or nested lists as an array. Raises DataError for anything else."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()  # NumPy has no such type, and float32 has all its values
    try:
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{what} must be an array or a tensor; got {type(value).__name__} ({error})") from error


def channels_first(images: NDArray[Any], what: str) -> NDArray[Any]:
    """Return a view with the axes (N, C, H, W). Raises DataError if there is no image, or no unambiguous layout."""
    shape = images.shape
    if images.dtype.kind not in "buif":
        raise DataError(f"{what} must be numbers; they have type {images.dtype}: convert them to uint8")
    if images.ndim not in (3, 4):
        raise DataError(f"{what} must have shape (N, H, W), (N, H, W, C) or (N, C, H, W); they have {shape}")
    if 0 in shape:
        raise DataError(f"{what} must have an image with at least one pixel; they have shape {shape}")
    if images.ndim == 3:
        return images[:, np.newaxis]
    is_first, is_last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
    if is_first == is_last:
        found = "both" if is_first else "neither"
        raise DataError(
            f"of {what}, either axis 1 or the last axis must be the channels (1, 3 or 4); with shape {shape}, {found} "
            "can be: reshape the array"
        )
    return images if is_first else images.transpose(0, 3, 1, 2)


def refuse_not_finite(images: NDArray[Any], what: str) -> None:
    """Raise DataError for images with NaN or infinite values. what: the array, for errors."""
    if images.dtype.kind != "f":
        return
    num_others = sum(int((~np.isfinite(chunk)).sum()) for chunk in _chunks(images))
    if num_others:
        are = "is" if num_others == 1 else "are"
        raise DataError(
            f"{what} must be finite numbers; {num_others:,} of {images.size:,} values {are} NaN or infinite: "
            "replace or remove them"
        )


def value_rule(parts: Sequence[NDArray[Any]], what: str, reading: Reading | None = None) -> ValueRule:
    """Return the rule for the finite values of the training and validation images (N, C, H, W).

    reading: as in Decoding. Raises DataError for parts whose values differ in type.
    """
    dtype = parts[0].dtype
    if any(images.dtype != dtype for images in parts):
        types = ", ".join(sorted({str(images.dtype) for images in parts}))
        raise DataError(f"all parts of {what} must have the same type of values; they have {types}")
    if dtype == np.uint8:
        return ValueRule(dtype, 0, 1)
    if dtype.kind == "b":
        return ValueRule(dtype, 0, 255)
    ranges = [_range(chunk) for images in parts for chunk in _chunks(images)]
    low, high = min(one[0] for one in ranges), max(one[1] for one in ranges)
    if dtype.kind == "f" and low >= 0 and high <= 1:
        return ValueRule(dtype, 0, 255)
    are_whole = all(is_whole for *_, is_whole in ranges)
    if low >= 0 and high <= 255 and are_whole:
        return ValueRule(dtype, 0, 1)
    scale = 255 / (high - low) if high > low else 1.0
    note = f"pixel values of {what} are in {low:g}..{high:g}, and are scaled to 0..255"
    if not are_whole or low < WIDEST[0] or high > WIDEST[1] or parts[0].shape[1] > 1:
        return ValueRule(dtype, low, scale, note)
    if reading is not None:
        return ValueRule(dtype, low, scale, levels=reading.levels)
    return ValueRule(dtype, low, scale, note, levels=(int(low), int(high)))


def bytes_from(images: NDArray[Any], rule: ValueRule, what: str) -> NDArray[np.uint8]:
    """Apply a rule to finite values. Raises DataError for values of another type or range. what: for errors."""
    if images.dtype != rule.dtype:
        raise DataError(
            f"all parts must have the same type of values; {what} have {images.dtype}, and the training images have "
            f"{rule.dtype}"
        )
    if images.dtype == np.uint8:
        return images
    scaled = np.empty(images.shape, dtype=np.uint8)
    for start, chunk in zip(range(0, len(images), _CHUNK), _chunks(images), strict=True):
        low, high, _ = _range(chunk)
        if rule.levels is not None:
            whole = np.rint(chunk.clip(*rule.levels)).astype(np.int64)
            scaled[start : start + len(chunk)] = scale_levels(whole, rule.levels)
            continue
        values = (chunk.astype(np.float64) - rule.low) * rule.scale
        if not rule.note and not (values.min() >= 0 and values.max() <= 255):
            raise DataError(
                f"{what} must have values in the range of the training images (0..{255 / rule.scale:g}); they have "
                f"{low:g}..{high:g}: scale all parts alike"
            )
        scaled[start : start + len(chunk)] = np.rint(values).clip(0, 255)
    return scaled


def _chunks(images: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (images[start : start + _CHUNK] for start in range(0, len(images), _CHUNK))


def _range(chunk: NDArray[Any]) -> tuple[float, float, bool]:
    """Return the smallest and largest value, and whether all values are whole."""
    if chunk.dtype.kind != "f":
        return float(chunk.min()), float(chunk.max()), True
    return float(chunk.min()), float(chunk.max()), bool((chunk == np.rint(chunk)).all())
