"""How a limit of memory is shared out while images are streamed, and what batches it holds: integers, no images."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tuner.errors import DataError

READ_AHEAD = 5
"""Chunks that are read, or being read, before they are asked for."""
_CHUNK_BYTES = 2**20
"""Enough for a disk to read at nearly its full speed; the smaller, the better the shuffling."""
_CHUNKS_HELD = READ_AHEAD + 3
"""The one in use, the one that follows it, and the room into which rows are read when some are to be skipped."""
_BATCHES_SENT = 6
"""Outside the buffer, where batches go to a device: two on their way, in page-locked memory that comes in powers of
two, the one that is drawn, and a short last one's own block. On a CPU the one that is drawn is all."""
_BOOKKEEPING_BYTES = 64
"""For every row held, at most: its number, and slot numbers while they are put into a new order."""


@dataclass(frozen=True)
class Room:
    """What a pass may hold, in rows: slots of the shuffle buffer, and rows of a chunk that is read at once."""

    num_slots: int
    chunk_rows: int


@dataclass(frozen=True)
class StreamLimit:
    """What a pass over streamed images may take. The same file holds all of them, `image_bytes` each.

    memory_bytes: the most that a pass holds in pixels, read ahead and being sent to `device` included.
    """

    memory_bytes: int
    image_bytes: int
    device: torch.device

    def needed_bytes(self, batch_size: int) -> int:
        """The least memory for such batches: the buffer then holds one, and a chunk of one row that waits."""
        return self._row_bytes * (self._batches_held * batch_size + batch_size + _CHUNKS_HELD + 1)

    @property
    def largest_batch(self) -> int:
        """The largest batch size that the memory holds; 0 where it holds none."""
        num_rows = self.memory_bytes // self._row_bytes - _CHUNKS_HELD - 1
        return max(0, num_rows // (self._batches_held + 1))

    def reason_against(self, batch_size: int) -> str:
        """Why such batches cannot be streamed, with the figures; empty when they can."""
        if batch_size <= self.largest_batch:
            return ""
        needed, allowed = memory_in_words(self.needed_bytes(batch_size)), memory_in_words(self.memory_bytes)
        return (
            f"a batch size of {batch_size} needs {needed} of memory to stream images of "
            f"{memory_in_words(self.image_bytes)}, more than the {allowed} allowed; at most {self.largest_batch} fits"
        )

    def room_for(self, batch_size: int) -> Room:
        """Share the memory out among the batches on their way, the chunks read ahead, and the buffer: all the rest.

        Raises DataError when it does not suffice.
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
    """Rows of a chunk where the memory does not ask for fewer; at least one."""
    return max(1, _CHUNK_BYTES // image_bytes)


def memory_in_words(num_bytes: float) -> str:
    """`1.4 MiB`, in powers of 1024, as memory is counted."""
    for unit in ("bytes", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" or num_bytes >= 100 else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.1f} GiB"
