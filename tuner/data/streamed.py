"""Stream decoded sets that do not fit into memory: read ahead from disk, and shuffle in a buffer of limited size.

Rows are read in chunks of neighbours, and the chunks are read in random order. The buffer holds many chunks, and
batches are drawn from all of it, so that neighbouring images (often of one class) are spread over different batches.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from tuner.data.augmentation import EpochAugmentation
from tuner.data.dataset import ImageDataset
from tuner.data.image_file import ImageFile, find_images
from tuner.data.resident import Statistics, as_input, pixel_scaling, scale_pixels
from tuner.data.splits import Split, _moments
from tuner.data.stream_limit import StreamLimit, chunk_rows_of

# Shape suffixes: N images, B of a batch, K of a chunk, S slots of the buffer, C channels, H height, W width, V values.

PixelBatches = Iterator[tuple[Tensor, Tensor]]
"""(pixels_BCHW, rows_B): uint8 on the CPU, and the numbers of these rows in the data set."""


@dataclass(frozen=True, eq=False)
class StreamedData:
    """A development set ready to train on, with its pixels on disk; same interface as ResidentData.

    labels_N, train_indices_N, validation_indices_N: on the CPU; batches are returned on `device`.
    memory_bytes: the most that a pass holds in pixels, including those read ahead and being sent to a device.
    """

    name: str
    digest: str
    class_names: tuple[str, ...]
    images: ImageFile
    labels_N: Tensor
    train_indices_N: Tensor
    validation_indices_N: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device
    memory_bytes: int

    @property
    def image_bytes(self) -> int:
        """Bytes of one stored image: one for each of its C * H * W values."""
        return self.images.image_bytes

    @property
    def limit(self) -> StreamLimit:
        """The memory limit for its batches."""
        return StreamLimit(self.memory_bytes, self.image_bytes, self.device)

    def train_batches(
        self,
        batch_size: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype,
        channels_last: bool,
        augmentation: EpochAugmentation | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images_BCHW, labels_B) of one epoch, shuffled, including the short last batch.

        Labels of mixed images are the shares of the classes (B, K). The generator is on the CPU. The order depends on
        the seed, `memory_bytes`, the batch size and the kind of device. Raises DataError if the memory is not
        sufficient for such batches, or if the file cannot be read.
        """
        room = self.limit.room_for(batch_size)
        chunks = torch.split(self.train_indices_N, room.chunk_rows)
        order = torch.randperm(len(chunks), generator=generator).tolist()
        # Of its own, so that what the caller draws from his while the batches come changes nothing.
        shuffler = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
        batches = self._shuffled([chunks[i] for i in order], batch_size, num_slots=room.num_slots, generator=shuffler)
        return self._delivered(batches, dtype=dtype, channels_last=channels_last, augmentation=augmentation)

    def validation_batches(
        self, batch_size: int, *, dtype: torch.dtype, channels_last: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images_BCHW, labels_B) of the validation rows in order, including the short last batch.

        Batches are smaller than requested if the memory requires it; no result depends on their size. Raises DataError
        if the memory is not sufficient for one image, or if the file cannot be read.
        """
        batch_size = min(batch_size, max(1, self.limit.largest_batch))
        room = self.limit.room_for(batch_size)
        batches = self._in_order(batch_size, chunk_rows=room.chunk_rows)
        return self._delivered(batches, dtype=dtype, channels_last=channels_last)

    def _shuffled(
        self, chunks: Sequence[Tensor], batch_size: int, *, num_slots: int, generator: torch.Generator
    ) -> PixelBatches:
        """Draw batches from a buffer that is kept full.

        Drawing proceeds in rounds. Everything in the buffer is put into a new random order, and one half of it is
        drawn. Rows that are read in the meantime fill the freed slots and take part in the next round. A row therefore
        stays for at least one round, and costs two random numbers on average, whatever the size of the buffer.
        """
        num_slots = min(num_slots, len(self.train_indices_N))
        buffer_SCHW = np.empty((num_slots, *self.images.image_shape), dtype=np.uint8)
        rows_S = torch.empty(num_slots, dtype=torch.int64)
        free = torch.arange(num_slots)
        drawable = free[:0]
        waiting: list[Tensor] = []
        with closing(self.images.read_ahead(chunks)) as arriving:
            chunk = next(arriving, None)
            while True:
                while chunk is not None and len(chunk[0]) <= len(free):
                    slots, free = free[: len(chunk[0])], free[len(chunk[0]) :]
                    # numpy copies whole rows here; torch's index_copy_ goes byte by byte, twenty times slower.
                    buffer_SCHW[slots.numpy()], rows_S[slots] = chunk
                    waiting.append(slots)
                    chunk = next(arriving, None)
                if len(drawable) < batch_size and waiting:
                    everything = torch.cat([drawable, *waiting])
                    everything = everything[torch.randperm(len(everything), generator=generator)]
                    half = max(batch_size, (len(everything) + 1) // 2)
                    drawable, waiting = everything[:half], [everything[half:]] if half < len(everything) else []
                if not len(drawable):
                    return
                drawn, drawable = drawable[:batch_size], drawable[batch_size:]
                yield torch.from_numpy(buffer_SCHW.take(drawn.numpy(), axis=0)), rows_S[drawn]
                if chunk is not None:
                    free = torch.cat([free, drawn])

    def _in_order(self, batch_size: int, *, chunk_rows: int) -> PixelBatches:
        batches = torch.split(self.validation_indices_N, batch_size)
        pieces = [torch.split(rows_B, chunk_rows) for rows_B in batches]
        with closing(self.images.read_ahead([rows_K for piece in pieces for rows_K in piece])) as arriving:
            for rows_B, piece in zip(batches, pieces, strict=True):
                pixels_BCHW = np.empty((len(rows_B), *self.images.image_shape), dtype=np.uint8)
                start = 0
                for pixels_KCHW, _ in islice(arriving, len(piece)):
                    pixels_BCHW[start : start + len(pixels_KCHW)] = pixels_KCHW
                    start += len(pixels_KCHW)
                yield torch.from_numpy(pixels_BCHW), rows_B
                del pixels_BCHW

    def _delivered(
        self,
        batches: PixelBatches,
        *,
        dtype: torch.dtype,
        channels_last: bool,
        augmentation: EpochAugmentation | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        scaling = pixel_scaling(self.mean, self.std, dtype=torch.float32, device=self.device)
        sent: deque[torch.cuda.Event] = deque()
        num_sent = 0
        for pixels_BCHW, rows_B in batches:
            labels_B = self.labels_N.index_select(0, rows_B)
            if self.device.type == "cuda":
                # Page-locked memory in flight is bounded by waiting for the batch before the last to have arrived.
                if len(sent) == 2:
                    sent.popleft().synchronize()
                there_BCHW = pixels_BCHW.pin_memory().to(self.device, non_blocking=True)
                labels_B = labels_B.pin_memory().to(self.device, non_blocking=True)
                sent.append(torch.cuda.current_stream(self.device).record_event())
            else:
                there_BCHW, labels_B = pixels_BCHW.to(self.device), labels_B.to(self.device)
            if augmentation is None:
                yield scale_pixels(there_BCHW, scaling, dtype=dtype, channels_last=channels_last), labels_B
            else:
                images_BCHW, labels_B = augmentation.apply(there_BCHW, labels_B, scaling=scaling, start=num_sent)
                num_sent += len(rows_B)
                yield as_input(images_BCHW, dtype=dtype, channels_last=channels_last), labels_B
                del images_BCHW
            del pixels_BCHW, there_BCHW  # before the next is drawn: only one is outside the buffer


def load_streamed(
    dataset: ImageDataset,
    split: Split,
    *,
    device: torch.device,
    memory_bytes: int,
    statistics: Statistics | None = None,
) -> StreamedData:
    """Make a cached development set ready to be streamed from disk, with at most `memory_bytes` in memory.

    `statistics` are mean and std if they are already known; otherwise all train images are read for them.
    """
    images = find_images(dataset)
    mean, std = statistics or streamed_statistics(images, split.train_indices_N)
    return StreamedData(
        name=dataset.name,
        digest=dataset.digest,
        class_names=dataset.class_names,
        images=images,
        labels_N=dataset.labels_N,
        train_indices_N=split.train_indices_N,
        validation_indices_N=split.validation_indices_N,
        mean=mean,
        std=std,
        device=device,
        memory_bytes=memory_bytes,
    )


def streamed_statistics(images: ImageFile, indices_N: Tensor) -> Statistics:
    """Return exactly what channel_statistics returns, with only a few chunks in memory at a time."""
    num_channels = images.image_shape[0]
    histogram_CV = torch.zeros(num_channels, 256, dtype=torch.int64)
    chunks = torch.split(indices_N, chunk_rows_of(images.image_bytes))
    with closing(images.read_ahead(chunks)) as arriving:
        for pixels_KCHW, _ in arriving:
            for channel in range(num_channels):
                values = torch.from_numpy(pixels_KCHW[:, channel].reshape(-1))
                histogram_CV[channel] += torch.bincount(values, minlength=256)
    mean, std = zip(*(_moments(histogram_V) for histogram_V in histogram_CV.tolist()), strict=True)
    return mean, std
