"""What a data set is: as asked for, as found, ready to decode, and open in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

# Shape suffixes: N images, C channels, H height, W width.

Report = Callable[[str, int, int], None]
"""Progress for a screen: what is being done, how much is done, how much there is (bytes or images)."""


@dataclass(frozen=True)
class DataSpec:
    """What the user asked for. `image_size` is (height, width) in pixels; None applies the rule of images.py."""

    dataset: str
    data_dir: Path
    cache_dir: Path
    image_size: tuple[int, int] | None = None
    download: bool = True


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """One part of a data set, open from the cache.

    images_NCHW: uint8, memory-mapped copy-on-write: every process that opens it shares one copy.
    labels_N: int64, indices into class_names.
    digest: over images, labels, class names and the validation part; neither paths nor times enter.
    validation_indices_N: int64 rows of the source's own validation part, None when it brings none.
    folder: its folder in the cache; load_cached(folder) opens it in another process.
    notes: what was decided for the user and is worth telling.
    repairs: what was damaged in the cache and has been decoded again.
    """

    name: str
    images_NCHW: Tensor
    labels_N: Tensor
    class_names: tuple[str, ...]
    digest: str
    validation_indices_N: Tensor | None
    folder: Path
    notes: tuple[str, ...]
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DecodablePart:
    """The development or the test part, before its pixels are read.

    decode_into(images_NCHW, report) fills a uint8 array; rows from validation_start on are the validation part.
    """

    labels_N: NDArray[np.int64]
    decode_into: Callable[[NDArray[np.uint8], Report | None], None]
    validation_start: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class DecodableSource:
    """Both parts of a data set, with one class order and one image shape (C, H, W)."""

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    development: DecodablePart
    test: DecodablePart


@dataclass(frozen=True, eq=False)
class ListedSource:
    """A data set that was found, not read: `listing` changes whenever its files do; `read` does the work."""

    listing: tuple[str, ...]
    read: Callable[[Report | None], DecodableSource]
