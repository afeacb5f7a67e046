"""Records of the images of a part, kept beside its pixels: digests, extreme values, and the original size."""

import hashlib
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tuner.data.synced_files import sync_file

_SOURCE_FIELDS = [("source", "V16"), ("height", "<u4"), ("width", "<u4")]
SOURCE = np.dtype(_SOURCE_FIELDS)
"""What a source says of an image: the digest of its file or array, and its sides in pixels before it was resized.

All are zero if they are not known.
"""
RECORD = np.dtype([("pixels", "V16"), ("low", "u1"), ("high", "u1"), *_SOURCE_FIELDS])
"""What is known of an image: the digest of its decoded pixels, their smallest and largest value, and its source."""

_FILE = "records.npz"


@dataclass(frozen=True, eq=False)
class PartRecords:
    """The records and labels of a part, in the order of its rows. records_N: of type RECORD; labels_N: int64."""

    records_N: NDArray[np.void]
    labels_N: NDArray[np.int64]


def unknown_sources(num_images: int) -> NDArray[np.void]:
    """Return an array of type SOURCE in which nothing is known yet."""
    return np.zeros(num_images, dtype=SOURCE)


def describe_pixels(rows_NB: NDArray[np.uint8]) -> NDArray[np.void]:
    """Return the records of images, given as rows of bytes; nothing is known of their sources."""
    records_N = np.zeros(len(rows_NB), dtype=RECORD)
    records_N["low"], records_N["high"] = rows_NB.min(axis=1), rows_NB.max(axis=1)
    digests = b"".join(hashlib.blake2b(row_B, digest_size=16).digest() for row_B in rows_NB)
    records_N["pixels"] = np.frombuffer(digests, dtype="V16")
    return records_N


def write_records(folder: Path, records_N: NDArray[np.void], *, pixels_digest: str) -> None:
    """Write the records of a part into its new cache folder. pixels_digest: of all its images, as a check."""
    _write(folder / _FILE, records_N, pixels_digest=pixels_digest)


def add_records(folder: Path, records_N: NDArray[np.void], *, pixels_digest: str) -> None:
    """Write the records of a part into its existing cache folder atomically."""
    temporary = folder / f".tmp-{uuid.uuid4().hex}.npz"
    try:
        _write(temporary, records_N, pixels_digest=pixels_digest)
        temporary.replace(folder / _FILE)
    finally:
        temporary.unlink(missing_ok=True)


def find_records(folder: Path, *, pixels_digest: str) -> NDArray[np.void] | None:
    """Load the records in a cache folder; None if they are missing, damaged, or of other images."""
    try:
        with (folder / _FILE).open("rb") as file, np.load(file) as stored:
            records_N: NDArray[np.void] = stored["records"]
            is_of_these = stored["pixels_digest"].item() == pixels_digest and records_N.dtype == RECORD
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        # Missing or damaged: both mean that the images are described again, which repairs the file.
        return None
    return records_N if is_of_these else None


def move_records(source: Path, target: Path) -> None:
    """Move the records of a new cache folder to an older one with the same images, which may have none."""
    (source / _FILE).replace(target / _FILE)


def _write(path: Path, records_N: NDArray[np.void], *, pixels_digest: str) -> None:
    np.savez(path, records=records_N, pixels_digest=np.array(pixels_digest))
    sync_file(path)
