"""Data sets that come as arrays, prepared by the same image rule as image files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.data.dataset import DecodablePart, DecodableSource, Decoding, Report
from tuner.data.digests import hash_array
from tuner.data.images import pixels_from
from tuner.data.threads import map_in_threads
from tuner.errors import DataError


@dataclass(frozen=True, eq=False)
class ArrayPart:
    """images_NCHW: uint8 with 1 or 3 channels; labels_N: int64."""

    images_NCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    notes: tuple[str, ...] = ()


def source_from_arrays(
    name: str,
    class_names: Sequence[str],
    *,
    development: ArrayPart,
    test: ArrayPart,
    decoding: Decoding,
) -> DecodableSource:
    """Make a source from arrays, which are resized if another (height, width) is requested.

    Raises DataError if images, labels and classes do not match.
    """
    _, channels, *own_size = development.images_NCHW.shape
    height, width = decoding.image_size or own_size
    shape_CHW = (channels, height, width)
    parts = (
        _decodable(part, name=name, num_classes=len(class_names), shape_CHW=shape_CHW) for part in (development, test)
    )
    return DecodableSource(name, tuple(class_names), shape_CHW, *parts)


def _decodable(part: ArrayPart, *, name: str, num_classes: int, shape_CHW: tuple[int, int, int]) -> DecodablePart:
    images_NCHW, labels_N = part.images_NCHW, part.labels_N
    if len(images_NCHW) != len(labels_N) or not len(labels_N):
        raise DataError(
            f"every image must have a label; {name} has {len(images_NCHW):,} images and {len(labels_N):,} labels: "
            "its files are damaged, fetch them again"
        )
    if labels_N.min() < 0 or labels_N.max() >= num_classes:
        raise DataError(
            f"the labels of {name} must be between 0 and {num_classes - 1}; "
            f"they are between {labels_N.min()} and {labels_N.max()}: "
            "its files are damaged, fetch them again"
        )
    channels, height, width = shape_CHW
    if images_NCHW.shape[1:] == shape_CHW:

        def copy_into(target_NCHW: NDArray[np.uint8], _: Report | None) -> str:
            np.copyto(target_NCHW, images_NCHW)
            return hash_array(images_NCHW)

        return DecodablePart(labels_N, copy_into, None, part.notes)

    def resize(index: int) -> NDArray[np.uint8]:
        from PIL import Image

        image_CHW = images_NCHW[index]
        picture = Image.fromarray(np.ascontiguousarray(image_CHW[0] if channels == 1 else image_CHW.transpose(1, 2, 0)))
        return pixels_from(picture, channels=channels, height=height, width=width)

    def decode_into(target_NCHW: NDArray[np.uint8], report: Report | None) -> str:
        resized = map_in_threads(resize, range(len(images_NCHW)), what=f"resizing {name}", report=report)
        for index, image_CHW in enumerate(resized):
            target_NCHW[index] = image_CHW
        return hash_array(images_NCHW)

    own = f"{images_NCHW.shape[2]}x{images_NCHW.shape[3]}"
    note = f"images of {own} pixels are resized to cover {height}x{width} (height x width) and centre-cropped"
    return DecodablePart(labels_N, decode_into, None, (*part.notes, note))
