"""Decoded data sets on disk: written once, memory-mapped by every process."""

import errno
import hashlib
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.data.dataset import DecodablePart, DecodableSource, ImageDataset, Report
from tuner.errors import DataError

FORMAT = 1
"""Raised whenever a decoded image, a label or the split of a test part could come out otherwise than before."""

_IMAGES, _LABELS, _META, _LISTINGS = "images.npy", "labels.npy", "meta.json", "listings"
_CHUNK = 1024


@dataclass(frozen=True)
class _Meta:
    format: int
    name: str
    class_names: list[str]
    digest: str
    validation_start: int | None
    notes: list[str]
    sizes: dict[str, int]


def hash_lines(lines: Iterable[str]) -> str:
    """Digest of a sequence of strings; where one ends and the next begins counts."""
    return hashlib.blake2b(json.dumps(list(lines)).encode(), digest_size=16).hexdigest()


def save_part(cache_dir: Path, part: DecodablePart, *, source: DecodableSource, report: Report | None) -> Path:
    """Decode a part straight into a new cache folder, and give that folder.

    It appears whole or not at all; a sound one of the same content stays. Raises DataError when it cannot be written.
    """
    shape_NCHW = (len(part.labels_N), *source.image_shape)
    temporary = cache_dir / f".tmp-{uuid.uuid4().hex}"
    try:
        _make_room(cache_dir, num_bytes=int(np.prod(shape_NCHW)))
        temporary.mkdir()
        meta = _write_part(temporary, part, source=source, shape_NCHW=shape_NCHW, report=report)
        folder = cache_dir / hash_lines([json.dumps(asdict(meta))])
        _publish(temporary, folder)
    except OSError as error:
        raise DataError(f"the cache must be writable; {cache_dir} is not ({error}): give another folder") from error
    finally:
        # A leftover does no harm, and failing to remove it must not hide why the rest failed.
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load_cached(folder: Path) -> ImageDataset:
    """Open a cached part without reading its images. Raises DataError if it is missing or damaged."""
    meta = _read_meta(folder)
    labels_N: NDArray[np.int64] = np.load(folder / _LABELS)
    start = meta.validation_start
    return ImageDataset(
        name=meta.name,
        images_NCHW=_map_images(folder / _IMAGES),
        labels_N=torch.from_numpy(labels_N.astype(np.int64, copy=False)),
        class_names=tuple(meta.class_names),
        digest=meta.digest,
        validation_indices_N=None if start is None else torch.arange(start, len(labels_N)),
        folder=folder,
        notes=tuple(meta.notes),
    )


def _map_images(file: Path) -> Tensor:
    """The images without reading them; who writes to them leaves the file alone.

    Linux refuses such a private map of more than the machine's memory: then it is one that nobody can write to, of
    which torch warns.
    """
    try:
        return torch.from_numpy(np.load(file, mmap_mode="c"))
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(np.load(file, mmap_mode="r"))


def save_listing(cache_dir: Path, key: str, folders: Sequence[Path]) -> None:
    """Remember which cache folders a listing of source files led to. Raises DataError when it cannot be written."""
    target = cache_dir / _LISTINGS / f"{key}.json"
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        target.parent.mkdir(exist_ok=True)
        temporary.write_text(json.dumps([folder.name for folder in folders]), encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        raise DataError(f"the cache must be writable; {cache_dir} is not ({error}): give another folder") from error


def find_listing(cache_dir: Path, key: str) -> tuple[Path, ...] | None:
    """Give the cache folders of a listing; None when it is unknown, or one of them is missing or damaged."""
    try:
        names = json.loads((cache_dir / _LISTINGS / f"{key}.json").read_text(encoding="utf-8"))
        folders = tuple(cache_dir / name for name in names)
    except (OSError, ValueError, TypeError):
        # Unknown or damaged: both mean that the set is decoded again, which mends the entry.
        return None
    return folders if all(_is_sound(folder) for folder in folders) else None


def content_digest(
    images_NCHW: NDArray[np.uint8],
    labels_N: NDArray[np.int64],
    class_names: Sequence[str],
    validation_start: int | None,
) -> str:
    """Digest of what a network can learn from; paths and times do not enter."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([images_NCHW.shape, list(class_names), validation_start]).encode())
    digest.update(labels_N.astype("<i8").tobytes())
    for start in range(0, len(images_NCHW), _CHUNK):
        digest.update(np.ascontiguousarray(images_NCHW[start : start + _CHUNK]).data)
    return digest.hexdigest()


def _write_part(
    folder: Path,
    part: DecodablePart,
    *,
    source: DecodableSource,
    shape_NCHW: tuple[int, ...],
    report: Report | None,
) -> _Meta:
    images_NCHW = np.lib.format.open_memmap(folder / _IMAGES, mode="w+", dtype=np.uint8, shape=shape_NCHW)
    part.decode_into(images_NCHW, report)
    images_NCHW.flush()
    digest = content_digest(images_NCHW, part.labels_N, source.class_names, part.validation_start)
    np.save(folder / _LABELS, part.labels_N.astype("<i8"))
    meta = _Meta(
        format=FORMAT,
        name=source.name,
        class_names=list(source.class_names),
        digest=digest,
        validation_start=part.validation_start,
        notes=list(part.notes),
        sizes={name: (folder / name).stat().st_size for name in (_IMAGES, _LABELS)},
    )
    (folder / _META).write_text(json.dumps(asdict(meta)), encoding="utf-8")
    return meta


def _publish(temporary: Path, folder: Path) -> None:
    if _is_sound(folder):
        return
    try:
        if folder.exists():
            damaged = temporary.with_name(f"{temporary.name}-damaged")
            os.replace(folder, damaged)
            shutil.rmtree(damaged, ignore_errors=True)
        os.replace(temporary, folder)
    except OSError:
        # Another process may have put the same content there in the meantime, and is as good.
        if not _is_sound(folder):
            raise


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


def _is_sound(folder: Path) -> bool:
    try:
        _read_meta(folder)
    except DataError:
        return False
    return True


def _make_room(cache_dir: Path, *, num_bytes: int) -> None:
    cache_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache_dir).free
    # Asked beforehand, because writing a memory map to a full disk kills the process instead of raising.
    if num_bytes > free:
        raise DataError(
            f"the decoded images need {num_bytes / 1e6:,.0f} MB and {cache_dir} has {free / 1e6:,.0f} MB free: "
            "choose a smaller image size or another cache folder"
        )
