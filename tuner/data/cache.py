"""Decoded data sets on disk: written once, checked once per run, and memory-mapped by every process."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tuner.data.dataset import DecodablePart, DecodableSource, ImageDataset, Report
from tuner.data.digests import hash_lines, hash_pixels, hash_source
from tuner.data.free_space import make_room
from tuner.data.image_records import (
    PartRecords,
    add_records,
    describe_pixels,
    find_records,
    move_records,
    write_records,
)
from tuner.data.mapped_images import map_images
from tuner.data.reading import Reading
from tuner.data.resizing import Resizing
from tuner.data.synced_files import sync_file, sync_folder
from tuner.errors import DataError

FORMAT = 3
"""Version of the format. Raised if decoded images, labels or the split of a test part may differ from before."""

# The file of labels has a second row if the images have groups.
_IMAGES, _LABELS, _META, _LISTINGS = "images.npy", "labels.npy", "meta.json", "listings"


@dataclass(frozen=True)
class CachedPart:
    """A cached part, known by its metadata; its images are not opened.

    digest: as in ImageDataset. pixels_digest: over the decoded pixels, labels, class names and the validation part.
    """

    folder: Path
    digest: str
    pixels_digest: str
    num_images: int


@dataclass(frozen=True)
class _Meta:
    format: int
    name: str
    class_names: list[str]
    num_images: int
    digest: str
    pixels_digest: str
    validation_start: int | None
    notes: list[str]
    sizes: dict[str, int]
    reading: dict[str, Any] = field(default_factory=dict)
    resizing: dict[str, Any] = field(default_factory=dict)

    def to_text(self) -> str:
        """The text of the file; it determines the folder's name, so defaults are omitted as in the past."""
        omitted = {key for key in ("reading", "resizing") if not getattr(self, key)}
        return json.dumps({key: value for key, value in asdict(self).items() if key not in omitted})


def save_part(
    cache_dir: Path, part: DecodablePart, *, source: DecodableSource, report: Report | None
) -> tuple[Path, bool]:
    """Decode a part into a new cache folder; return the folder, and whether it replaced a damaged one.

    The folder is written atomically. An existing folder with the same content is kept unless it is damaged. Raises
    DataError if the folder cannot be written.
    """
    shape_NCHW = (len(part.labels_N), *source.image_shape)
    temporary = cache_dir / f".tmp-{uuid.uuid4().hex}"
    try:
        make_room(cache_dir, num_bytes=int(np.prod(shape_NCHW)))
        temporary.mkdir()
        meta = _write_part(temporary, part, source=source, shape_NCHW=shape_NCHW, report=report)
        folder = cache_dir / _folder_name(meta)
        was_damaged = _publish(temporary, folder)
    except OSError as error:
        raise DataError(f"the cache must be writable; {cache_dir} is not ({error}): give another folder") from error
    finally:
        # A leftover does no harm, and failing to remove it must not hide why the rest failed.
        shutil.rmtree(temporary, ignore_errors=True)
    return folder, was_damaged


def load_meta(folder: Path) -> CachedPart:
    """Load the metadata of a cached part without opening its images. Raises DataError if it is missing or damaged."""
    meta = _read_meta(folder)
    return CachedPart(folder, meta.digest, meta.pixels_digest, meta.num_images)


def load_cached(folder: Path) -> ImageDataset:
    """Open a cached part without reading its images. Raises DataError if it is missing or damaged."""
    meta = _read_meta(folder)
    labels_N, groups_N = _load_labels(folder)
    start = meta.validation_start
    return ImageDataset(
        name=meta.name,
        images_NCHW=map_images(folder / _IMAGES),
        labels_N=torch.from_numpy(labels_N),
        class_names=tuple(meta.class_names),
        digest=meta.digest,
        validation_indices_N=None if start is None else torch.arange(start, len(labels_N)),
        folder=folder,
        notes=tuple(meta.notes),
        reading=Reading.from_json(meta.reading),
        groups_N=None if groups_N is None else torch.from_numpy(groups_N),
        resizing=Resizing.from_json(meta.resizing),
    )


def load_records(folder: Path) -> PartRecords:
    """Load the records and labels of a cached part; no image is read if the part was decoded with its records.

    Otherwise its images are read once, and the records are stored. Raises DataError if the part is missing or damaged.
    """
    meta = _read_meta(folder)
    labels_N, _ = _load_labels(folder)
    records_N = find_records(folder, pixels_digest=meta.pixels_digest)
    if records_N is None or len(records_N) != len(labels_N):
        described = list[NDArray[np.void]]()
        digest = _hash_pixels(folder, meta.class_names, meta.validation_start, report=None, take=described.append)
        if digest != meta.pixels_digest:
            raise DataError(f"a cached data set must be whole; {folder} is damaged: load the data set again")
        records_N = np.concatenate(described)
        with suppress(OSError):  # a cache that cannot be written serves as well; they are measured again next time
            add_records(folder, records_N, pixels_digest=digest)
    return PartRecords(records_N, labels_N)


def _load_labels(folder: Path) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Load the labels of a cached part, and the groups of its images if it has groups."""
    stored: NDArray[np.int64] = np.load(folder / _LABELS).astype(np.int64, copy=False)
    return (stored, None) if stored.ndim == 1 else (stored[0], stored[1])


def save_listing(cache_dir: Path, key: str, folders: Sequence[Path]) -> None:
    """Store which cache folders belong to a listing of source files. Raises DataError if this cannot be written."""
    target = cache_dir / _LISTINGS / f"{key}.json"
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        target.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps([folder.name for folder in folders]), encoding="utf-8")
        sync_file(temporary)
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(f"the cache must be writable; {cache_dir} is not ({error}): give another folder") from error


def find_listing(cache_dir: Path, key: str) -> tuple[Path, ...] | None:
    """Find the cache folders of a listing, which may be missing or damaged by now; None if the listing is unknown."""
    try:
        names = json.loads((cache_dir / _LISTINGS / f"{key}.json").read_text(encoding="utf-8"))
        return tuple(cache_dir / name for name in names)
    except (OSError, ValueError, TypeError):
        # Unknown or damaged: both mean that the set is decoded again, which repairs the entry.
        return None


def is_sound(folder: Path) -> bool:
    """Whether the files of a cached part exist in their full length; none is read."""
    try:
        _read_meta(folder)
    except DataError:
        return False
    return True


def is_intact(folder: Path, *, report: Report | None) -> bool:
    """Whether the pixels and labels of a cached part have the digest that is stored with them.

    The folder's name is a digest of its metadata, and is compared too. Every byte is read once, in order, and none is
    kept, since a set may be larger than the memory.
    """
    try:
        meta = _read_meta(folder)
        found = _hash_pixels(folder, meta.class_names, meta.validation_start, report=report)
    except (DataError, OSError, ValueError):
        return False
    return found == meta.pixels_digest and folder.name == _folder_name(meta)


def _hash_pixels(
    folder: Path,
    class_names: Sequence[str],
    validation_start: int | None,
    *,
    report: Report | None,
    take: Callable[[NDArray[np.void]], None] | None = None,
) -> str:
    """Digest of a part. take: called with the records of its images, block by block."""

    def describe(rows_NB: NDArray[np.uint8]) -> None:
        assert take is not None
        take(describe_pixels(rows_NB))

    return hash_pixels(
        folder / _IMAGES,
        folder / _LABELS,
        class_names,
        validation_start,
        report=report,
        take_rows=None if take is None else describe,
    )


def _folder_name(meta: _Meta) -> str:
    return hash_lines([meta.to_text()])


def _write_part(
    folder: Path,
    part: DecodablePart,
    *,
    source: DecodableSource,
    shape_NCHW: tuple[int, ...],
    report: Report | None,
) -> _Meta:
    images_NCHW = np.lib.format.open_memmap(folder / _IMAGES, mode="w+", dtype=np.uint8, shape=shape_NCHW)
    of_images = part.decode_into(images_NCHW, report)
    images_NCHW.flush()
    del images_NCHW
    stored = part.labels_N if part.groups_N is None else np.stack([part.labels_N, part.groups_N])
    np.save(folder / _LABELS, stored.astype("<i8"))
    described = list[NDArray[np.void]]()
    pixels_digest = _hash_pixels(folder, source.class_names, part.validation_start, report=None, take=described.append)
    records_N = np.concatenate(described)
    if part.sources_N is not None:
        for name in part.sources_N.dtype.names or ():
            records_N[name] = part.sources_N[name]
    write_records(folder, records_N, pixels_digest=pixels_digest)
    meta = _Meta(
        format=FORMAT,
        name=source.name,
        class_names=list(source.class_names),
        num_images=len(part.labels_N),
        digest=hash_source(of_images, part.labels_N, source.class_names, part.validation_start, part.groups_N),
        pixels_digest=pixels_digest,
        validation_start=part.validation_start,
        notes=list(part.notes),
        sizes={name: (folder / name).stat().st_size for name in (_IMAGES, _LABELS)},
        reading=source.reading.to_json(),
        resizing=source.resizing.to_json(),
    )
    (folder / _META).write_text(meta.to_text(), encoding="utf-8")
    for name in (_IMAGES, _LABELS, _META):
        sync_file(folder / name)
    sync_folder(folder)
    return meta


def _publish(temporary: Path, folder: Path) -> bool:
    """Rename a new folder to its final name unless that exists; return whether it replaced a damaged folder."""
    was_damaged = folder.exists()  # asked first: what another process puts there from now on is whole
    if was_damaged and is_intact(folder, report=None):
        with suppress(OSError):  # records that cannot be replaced are measured where they are needed
            move_records(temporary, folder)
        return False
    try:
        if was_damaged:
            damaged = temporary.with_name(f"{temporary.name}-damaged")
            os.replace(folder, damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        os.replace(temporary, folder)
        sync_folder(folder.parent)
    except OSError:
        # Another process may have put the same content there in the meantime, and is as good.
        if not is_intact(folder, report=None):
            raise
    return was_damaged


def _read_meta(folder: Path) -> _Meta:
    try:
        meta = _Meta(**json.loads((folder / _META).read_text(encoding="utf-8")))
        sound = meta.format == FORMAT and all((folder / n).stat().st_size == size for n, size in meta.sizes.items())
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"a cached data set must be whole; {folder} is not ({error}): load the data set again"
        ) from error
    if not sound:
        raise DataError(f"a cached data set must be whole; {folder} is damaged or older: load the data set again")
    return meta
