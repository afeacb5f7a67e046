"""A data set as requested, as found, ready to decode, and open in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tuner.data.image_parts import ImageParts, may_be_images, parts_from
from tuner.data.reading import DEFAULT, Reading
from tuner.data.resizing import DEFAULT_RESIZING, Interpolation, Resizing
from tuner.data.unused_files import UnusedFiles
from tuner.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

# Shape suffixes: N images, C channels, H height, W width.

Report = Callable[[str, int, int], None]
"""Callback for progress: what is being done, how much is done, and the total (bytes or images)."""


@dataclass(frozen=True)
class Decoding:
    """How the images of a source become pixels. The pixels depend only on this and on the source.

    The digest of an image set does not cover it, so a resumed study compares its result (`image_size` of its settings).
    image_size: (height, width) in pixels; None applies the rule of images.py. reading: how values become pixels; None
    chooses it from the development part. channels: 3 gives grey images three equal channels; None applies the rule of
    images.py. interpolation, crop_fraction: as in Resizing.
    """

    image_size: tuple[int, int] | None = None
    reading: Reading | None = None
    channels: Literal[3] | None = None
    interpolation: Interpolation = "bilinear"
    crop_fraction: float = 1.0

    @property
    def resizing(self) -> Resizing:
        """How images are resized. Raises ValueError for an interpolation or a crop fraction that cannot be."""
        return Resizing(self.interpolation, self.crop_fraction)

    @property
    def key(self) -> str:
        """Text that is the same for two decodings only if they give the same pixels.

        Values with their default are omitted, except for the first one, so that keys of earlier versions stay the same.
        """
        values = {
            key: value for key, value in asdict(self).items() if key == "image_size" or value != getattr(Decoding, key)
        }
        return json.dumps(values, sort_keys=True)


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; None finds a column by its name, and no groups.

    split: train, val or test. group: images with the same value stay on one side of every split.
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None
    group: str | None = None

    def given_by_role(self) -> dict[str, str]:
        """Return the names that are given."""
        return {role: name for role, name in asdict(self).items() if name is not None}

    def given(self) -> dict[str, str]:
        """Return the names that are given, as `image_column` and so on."""
        return {f"{role}_column": name for role, name in self.given_by_role().items()}

    @classmethod
    def from_given(cls, given: Mapping[str, Any]) -> Columns:
        """Read what `given` returned, among other keys."""
        return cls(**{field.name: given.get(f"{field.name}_column") for field in fields(cls)})


@dataclass(frozen=True)
class DataSpec:
    """The data set that the user requested.

    dataset: a known name, the path of a folder or file as a text, or a data set in memory; a pair of arrays or a torch
    data set is kept as ImageParts, so that its images are read once. `image_size` is (height, width) in pixels;
    None applies the rule of images.py. reading: as in Decoding. columns: for a table (.csv). group: regular expression
    that finds the group of an image in its file name. channels, interpolation, crop_fraction: as in Decoding; other
    values than the defaults give the same images, in the same parts and with the same digest, decoded for a network
    that expects them like that.
    """

    dataset: str | ImageParts
    data_dir: Path
    cache_dir: Path
    image_size: tuple[int, int] | None = None
    download: bool = True
    reading: Reading | None = None
    columns: Columns = Columns()
    group: str | None = None
    channels: Literal[3] | None = None
    interpolation: Interpolation = "bilinear"
    crop_fraction: float = 1.0

    def __post_init__(self) -> None:
        """Convert what may be images. Raises DataError for an object that is no data set, and for other decodings."""
        if self.channels not in (None, 3):
            raise DataError(f"channels of a data set must be 3, or None for those of its images; got {self.channels!r}")
        try:
            self.decoding.resizing  # noqa: B018 - checked here, where the user gives it
        except ValueError as error:
            raise DataError(str(error)) from error
        given: object = self.dataset
        if may_be_images(given):
            object.__setattr__(self, "dataset", parts_from(given))
        elif not isinstance(given, str | ImageParts):
            raise DataError(
                "dataset must be a name or a path as a text, tuner.ImageParts, a pair of arrays (images, labels) or a "
                f"torch Dataset; it is of type {type(given).__name__}: give one of these"
            )

    @property
    def decoding(self) -> Decoding:
        """How the images are decoded."""
        return Decoding(
            self.image_size,
            self.reading,
            channels=self.channels,
            interpolation=self.interpolation,
            crop_fraction=self.crop_fraction,
        )


@dataclass(frozen=True, eq=False)
class ImageDataset:
    """One part of a data set, open from the cache.

    images_NCHW: uint8, memory-mapped copy-on-write, so all processes that open it share one copy.
    labels_N: int64, indices into class_names.
    digest: over the bytes of the source's files (or its arrays), labels, class names and the validation part. Paths,
    times and the decoding are not part of it, so it is the same at every image size.
    validation_indices_N: int64 rows of the source's own validation part; None if it has none.
    folder: its folder in the cache; load_cached(folder) opens it in another process.
    notes: decisions that were made for the user and should be reported.
    repairs: damaged parts of the cache that were decoded again.
    unused: number of files of the source that are not used, by extension; empty where the cache alone was opened.
    reading: how the values of the files became pixels. resizing: how the images were resized.
    groups_N: int64 number of each image's group, from 0; None without groups, and if the validation part is given.
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
    unused: UnusedFiles = field(default_factory=dict)
    reading: Reading = DEFAULT
    groups_N: Tensor | None = None
    resizing: Resizing = DEFAULT_RESIZING

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.images_NCHW.shape[2:]
        return height, width


@dataclass(frozen=True, eq=False)
class DecodablePart:
    """The development or the test part, before its pixels are read.

    decode_into(images_NCHW, report) fills a uint8 array and returns the digest of the source of the images: the bytes
    of the files, or the arrays, in the order of the rows. Rows from validation_start on are the validation part.
    groups_N: as in ImageDataset. sources_N: what the source says of each image (image_records.SOURCE), also filled by
    decode_into; None if it says nothing.
    """

    labels_N: NDArray[np.int64]
    decode_into: Callable[[NDArray[np.uint8], Report | None], str]
    validation_start: int | None
    notes: tuple[str, ...]
    groups_N: NDArray[np.int64] | None = None
    sources_N: NDArray[np.void] | None = None


@dataclass(frozen=True, eq=False)
class DecodableSource:
    """Both parts of a data set, with the same order of classes and the same image shape (C, H, W)."""

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    development: DecodablePart
    test: DecodablePart
    reading: Reading = DEFAULT
    resizing: Resizing = DEFAULT_RESIZING


@dataclass(frozen=True, eq=False)
class ListedSource:
    """A data set that was found but not read. `listing` changes whenever its files do, and `read` reads the data.

    unused: number of files that were found and are not used, by extension.
    """

    listing: tuple[str, ...]
    read: Callable[[Report | None], DecodableSource]
    unused: UnusedFiles = field(default_factory=dict)
