"""Divide a memory limit among the parts of an image stream, and find which batch sizes fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tuner.errors import DataError

READ_AHEAD = 5
"""Chunks that are read, or being read, before they are needed."""
_CHUNK_BYTES = 2**20
"""Large enough for a disk to read at nearly full speed. Smaller chunks would be shuffled better."""
_CHUNKS_HELD = READ_AHEAD + 3
"""Chunks in memory: those read ahead, the current one, the next one, and a buffer for reading when rows are skipped."""
_BATCHES_SENT = 6
"""Number of batches that need memory outside the buffer when batches are sent to a device.

Two are on their way, in page-locked memory that is allocated in powers of two. One is being drawn, and a short last
batch has its own block. On a CPU, there is only the batch that is being drawn.
"""
_BOOKKEEPING_BYTES = 64
"""Upper limit of the memory for each row besides its pixels: its number, and slot numbers during a shuffle."""


@dataclass(frozen=True)
class Room:
    """What a pass may hold, in rows: slots of the shuffle buffer, and rows of a chunk that is read at once."""

    num_slots: int
    chunk_rows: int


@dataclass(frozen=True)
class StreamLimit:
    """Memory limit of a pass over streamed images, which are `image_bytes` each and in one file.

    memory_bytes: the most that a pass holds in pixels, including those read ahead and being sent to `device`.
    """

    memory_bytes: int
    image_bytes: int
    device: torch.device

    def needed_bytes(self, batch_size: int) -> int:
        """Smallest memory for batches of this size: a buffer with one batch, and a waiting chunk of one row."""
        return self._row_bytes * (self._batches_held * batch_size + batch_size + _CHUNKS_HELD + 1)

    @property
    def largest_batch(self) -> int:
        """The largest batch size that fits into the memory; 0 if none fits."""
        num_rows = self.memory_bytes // self._row_bytes - _CHUNKS_HELD - 1
        return max(0, num_rows // (self._batches_held + 1))

    def reason_against(self, batch_size: int) -> str:
        """Why such batches cannot be streamed, with the figures; empty if they can."""
        if batch_size <= self.largest_batch:
            return ""
        needed, allowed = memory_in_words(self.needed_bytes(batch_size)), memory_in_words(self.memory_bytes)
        return (
            f"a batch size of {batch_size} needs {needed} of memory to stream images of "
            f"{memory_in_words(self.image_bytes)}, more than the {allowed} allowed; at most {self.largest_batch} fits"
        )

    def room_for(self, batch_size: int) -> Room:
        """Divide the memory among batches in transit, chunks read ahead, and the buffer, which gets the rest.

        Raises DataError if the memory is not sufficient.
        """
        reason = self.reason_against(batch_size)
        if reason:
            raise DataError(f"{reason}: choose a smaller batch size, or smaller images")
        num_rows = self.memory_bytes // self._row_bytes - self._batches_held * batch_size
        # The buffer holds many chunks, and a whole batch even while a chunk waits for so many free slots.
        most = min(num_rows // (4 * _CHUNKS_HELD), (num_rows - batch_size) // (_CHUNKS_HELD + 1))
        chunk_rows = max(1, min(chunk_rows_of(self.image_bytes), most))
        return Room(num_slots=num_rows - _CHUNKS_HELD * chunk_rows, chunk_rows=chunk_rows)

    @property
    def _row_bytes(self) -> int:
        return self.image_bytes + _BOOKKEEPING_BYTES

    @property
    def _batches_held(self) -> int:
        return 1 if self.device.type == "cpu" else _BATCHES_SENT


def chunk_rows_of(image_bytes: int) -> int:
    """Rows of a chunk if memory does not require fewer; at least one."""
    return max(1, _CHUNK_BYTES // image_bytes)


def memory_in_words(num_bytes: float) -> str:
    """Format a memory size as in `1.4 MiB`, in powers of 1024."""
    for unit in ("bytes", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" or num_bytes >= 100 else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.1f} GiB"
