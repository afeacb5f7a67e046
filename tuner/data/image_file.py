"""Read rows of the file with the decoded images of a set, while other rows are used."""

from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from itertools import islice, pairwise
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tuner.data.dataset import ImageDataset
from tuner.data.stream_limit import READ_AHEAD
from tuner.errors import DataError

# Shape suffixes: K rows of a chunk, C channels, H height, W width.

_IMAGES = "images.npy"

_GAP_BYTES = 2**16
"""Bytes between wanted rows. Reading across a smaller gap costs less than another read."""


@dataclass(frozen=True)
class ImageFile:
    """File with the uint8 images of a decoded set, in rows of image_shape (C, H, W); the first is at byte `offset`."""

    path: Path
    offset: int
    image_shape: tuple[int, ...]

    @property
    def image_bytes(self) -> int:
        """Bytes of one row."""
        return prod(self.image_shape)

    def read_ahead(self, chunks: Sequence[Tensor]) -> Generator[tuple[NDArray[np.uint8], Tensor]]:
        """Yield (pixels_KCHW, rows_K) of each chunk of ascending rows, while a thread reads the next chunks.

        Closing the iterator ends the thread. Raises DataError if the file cannot be read.
        """
        try:
            # Read, not mapped: what is mapped stays in the process's memory until others need it.
            with (
                FileIO(self.path) as file,
                ThreadPoolExecutor(max_workers=1, thread_name_prefix="read-ahead") as pool,
            ):
                ahead: deque[tuple[Future[NDArray[np.uint8]], Tensor]] = deque()
                remaining = iter(chunks)
                try:
                    for rows_K in islice(remaining, READ_AHEAD):
                        ahead.append((pool.submit(self._read, file, rows_K), rows_K))
                    while ahead:
                        future, rows_K = ahead.popleft()
                        pixels_KCHW = future.result()
                        del future
                        for next_rows in islice(remaining, 1):
                            ahead.append((pool.submit(self._read, file, next_rows), next_rows))
                        yield pixels_KCHW, rows_K
                finally:
                    pool.shutdown(cancel_futures=True)
        except OSError as error:
            raise DataError(
                f"the decoded images must be readable; {self.path} is not ({error}): load the data set again"
            ) from error

    def _read(self, file: FileIO, rows_K: Tensor) -> NDArray[np.uint8]:
        rows = rows_K.numpy()
        pixels_KCHW = np.empty((len(rows), *self.image_shape), dtype=np.uint8)
        # A run is read at once: from one row to another, with no wide gap, and no longer than a chunk.
        new_run = np.diff(rows) > 1 + _GAP_BYTES // self.image_bytes
        new_run |= np.diff(rows // len(rows)) > 0
        starts = [0, *(np.flatnonzero(new_run) + 1).tolist(), len(rows)]
        for start, end in pairwise(starts):
            first, length = int(rows[start]), int(rows[end - 1] - rows[start] + 1)
            if length == end - start:
                self._read_rows(file, first, pixels_KCHW[start:end])
            else:
                run = np.empty((length, *self.image_shape), dtype=np.uint8)
                self._read_rows(file, first, run)
                pixels_KCHW[start:end] = run[rows[start:end] - first]
        return pixels_KCHW

    def _read_rows(self, file: FileIO, first: int, pixels_KCHW: NDArray[np.uint8]) -> None:
        file.seek(self.offset + first * self.image_bytes)
        wanted = pixels_KCHW.reshape(-1).data
        while len(wanted):
            num_read = file.readinto(wanted)
            if not num_read:
                raise OSError("it ends too early")
            wanted = wanted[num_read:]


def find_images(dataset: ImageDataset) -> ImageFile:
    """Find the file and offset of the images of a cached data set. Raises DataError if the file is missing."""
    path = dataset.folder / _IMAGES
    try:
        mapped = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise DataError(
            f"the decoded images must be readable; {path} is not ({error}): load the data set again"
        ) from error
    return ImageFile(path, mapped.offset, mapped.shape[1:])
