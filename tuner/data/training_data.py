"""How a data set is held while networks train on it: in memory, or streamed from disk; chosen by its size."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from tuner.data.dataset import ImageDataset
from tuner.data.resident import ResidentData, Statistics, load_resident
from tuner.data.splits import Split, channel_statistics
from tuner.data.stream_limit import StreamLimit, memory_in_words
from tuner.data.streamed import StreamedData, find_images, load_streamed, streamed_statistics
from tuner.hardware import memory_bytes as memory_of

IMAGES_SHARE = 0.4
"""Share of a machine's memory, or of a device's free memory, that images may take; larger sets are streamed."""
STREAM_BYTES = 512 * 2**20
"""Most memory for the images of a pass over a streamed set; each runner makes its own passes."""
LARGEST_ON_MPS = 2**32
"""Bytes of the largest set that is held on an MPS device, whatever its memory: MPS indexes a tensor with 32 bits."""


class TrainingData(Protocol):
    """What training needs to know of a data set, however it is held."""

    @property
    def name(self) -> str:
        """As the user calls it."""

    @property
    def digest(self) -> str:
        """Over the source of the images, labels, class names and the validation part."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels."""

    @property
    def labels_N(self) -> Tensor:
        """int64, indices into class_names."""

    @property
    def train_indices_N(self) -> Tensor:
        """int64 rows, ascending."""

    @property
    def validation_indices_N(self) -> Tensor:
        """int64 rows, ascending."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Per channel, of pixel / 255, over the train rows."""

    @property
    def std(self) -> tuple[float, ...]:
        """Per channel, of pixel / 255, over the train rows."""

    def train_batches(
        self, batch_size: int, *, generator: torch.Generator, dtype: torch.dtype, channels_last: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images_BCHW, labels_B) of one epoch, every train row once, in an order the CPU generator decides."""

    def validation_batches(
        self, batch_size: int, *, dtype: torch.dtype, channels_last: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images_BCHW, labels_B) of the validation rows in their order, at most so many at a time."""


def open_data(
    dataset: ImageDataset,
    split: Split,
    *,
    device: torch.device,
    memory_bytes: int,
    stream_bytes: int = STREAM_BYTES,
    statistics: Statistics | None = None,
) -> ResidentData | StreamedData:
    """Hold a development set on a device if its pixels fit into `memory_bytes`; otherwise stream it from disk.

    On MPS, a set of more than LARGEST_ON_MPS is streamed as well.
    A stream takes at most `stream_bytes`, and never more than `memory_bytes`. The order of training images differs
    between the two, so the same results need the same allowed memory. Raises DataError when the file is
    gone.
    """
    if fits_in_memory(dataset, memory_bytes, device=device):
        return load_resident(dataset, split, device=device, statistics=statistics)
    stream_bytes = min(stream_bytes, memory_bytes)
    return load_streamed(dataset, split, device=device, memory_bytes=stream_bytes, statistics=statistics)


def stream_limit(
    dataset: ImageDataset, *, device: torch.device, memory_bytes: int, stream_bytes: int = STREAM_BYTES
) -> StreamLimit | None:
    """What batches may take where open_data streams with the same arguments; None where it holds all images."""
    if fits_in_memory(dataset, memory_bytes, device=device):
        return None
    return StreamLimit(min(stream_bytes, memory_bytes), dataset.images_NCHW[0].numel(), device)


def measure_statistics(dataset: ImageDataset, split: Split, *, memory_bytes: int) -> Statistics:
    """Mean and std of the train images, read as open_data would, to be handed to it: once for all runners."""
    if fits_in_memory(dataset, memory_bytes, device=torch.device("cpu")):  # whatever the device, the CPU reads them
        return channel_statistics(dataset.images_NCHW, split.train_indices_N)
    return streamed_statistics(find_images(dataset), split.train_indices_N)


def how_it_is_held(
    dataset: ImageDataset, *, device: torch.device, memory_bytes: int, stream_bytes: int = STREAM_BYTES
) -> str:
    """What open_data does with the same arguments, in words for the user."""
    size = memory_in_words(dataset.images_NCHW.numel())
    limit = stream_limit(dataset, device=device, memory_bytes=memory_bytes, stream_bytes=stream_bytes)
    if limit is None:
        return f"{size} of images: held in memory" if device.type == "cpu" else f"{size} of images: held on {device}"
    most = memory_in_words(_largest_held(device, memory_bytes))
    return (
        f"{size} of images, more than the {most} allowed: streamed from disk with at most "
        f"{memory_in_words(limit.memory_bytes)} in memory for each runner"
    )


def memory_for_images(device: torch.device) -> int:
    """Bytes that the images of one data set may take on a device: a share of what the machine has, or the device free.

    What is free changes, so it is asked for once, and the answer handed to every runner.
    """
    if device.type == "cuda":
        available = torch.cuda.mem_get_info(device)[0]
    elif device.type == "mps":
        available = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    else:
        available = memory_of(device)
    return int(IMAGES_SHARE * available)


def fits_in_memory(dataset: ImageDataset, memory_bytes: int, *, device: torch.device) -> bool:
    """Whether open_data holds the images on `device` in `memory_bytes`, and does not stream them."""
    return dataset.images_NCHW.numel() <= _largest_held(device, memory_bytes)


def _largest_held(device: torch.device, memory_bytes: int) -> int:
    """Bytes of the largest set that is held as one tensor on a device."""
    return min(memory_bytes, LARGEST_ON_MPS) if device.type == "mps" else memory_bytes
