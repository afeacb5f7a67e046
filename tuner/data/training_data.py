"""Hold a data set in memory or stream it from disk during training, depending on its size."""

from collections.abc import Iterator
from math import prod
from typing import Protocol

import torch
from torch import Tensor

from tuner.data.augmentation import EpochAugmentation
from tuner.data.dataset import ImageDataset
from tuner.data.image_file import find_images
from tuner.data.resident import ResidentData, Statistics, load_resident
from tuner.data.splits import Split, channel_statistics
from tuner.data.stream_limit import StreamLimit, memory_in_words
from tuner.data.streamed import StreamedData, load_streamed, streamed_statistics
from tuner.hardware import memory_bytes as memory_of

IMAGES_SHARE = 0.4
"""Share of a machine's memory, or of a device's free memory, that images may take; larger sets are streamed."""
STREAM_BYTES = 512 * 2**20
"""Most memory for the images of one pass over a streamed set. Each runner makes its own passes."""
LARGEST_ON_MPS = 2**32
"""Bytes of the largest set that is held on an MPS device, whatever its memory: MPS indexes a tensor with 32 bits."""


class TrainingData(Protocol):
    """The interface of a data set that training uses, whether it is in memory or streamed."""

    @property
    def name(self) -> str:
        """Name of the data set as the user gave it."""

    @property
    def digest(self) -> str:
        """Digest of the source of the images, labels, class names and the validation part."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""

    @property
    def labels_N(self) -> Tensor:
        """Labels: int64, indices into class_names."""

    @property
    def train_indices_N(self) -> Tensor:
        """Rows of the train part: int64, ascending."""

    @property
    def validation_indices_N(self) -> Tensor:
        """Rows of the validation part: int64, ascending."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of pixel / 255 over the train rows, per channel."""

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of pixel / 255 over the train rows, per channel."""

    def train_batches(
        self,
        batch_size: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype,
        channels_last: bool,
        augmentation: EpochAugmentation | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images_BCHW, labels_B) of one epoch: every train row once, in random order from the CPU generator.

        Labels of mixed images are the shares of the classes (B, K).
        """

    def validation_batches(
        self, batch_size: int, *, dtype: torch.dtype, channels_last: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images_BCHW, labels_B) of the validation rows in order, with at most `batch_size` rows each."""


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
    """Return the memory limit for batches if open_data would stream with these arguments; None if it would not."""
    num_images, *shape_CHW = dataset.images_NCHW.shape
    return stream_limit_of(
        num_images, tuple(shape_CHW), device=device, memory_bytes=memory_bytes, stream_bytes=stream_bytes
    )


def stream_limit_of(
    num_images: int,
    shape_CHW: tuple[int, ...],
    *,
    device: torch.device,
    memory_bytes: int,
    stream_bytes: int = STREAM_BYTES,
) -> StreamLimit | None:
    """Return what stream_limit returns for a set of images of this shape."""
    image_bytes = prod(shape_CHW)
    if num_images * image_bytes <= _largest_held(device, memory_bytes):
        return None
    return StreamLimit(min(stream_bytes, memory_bytes), image_bytes, device)


def measure_statistics(dataset: ImageDataset, split: Split, *, memory_bytes: int) -> Statistics:
    """Return mean and std of the train images, read as open_data would; measured once, to be passed to all runners."""
    if fits_in_memory(dataset, memory_bytes, device=torch.device("cpu")):  # whatever the device, the CPU reads them
        return channel_statistics(dataset.images_NCHW, split.train_indices_N)
    return streamed_statistics(find_images(dataset), split.train_indices_N)


def how_it_is_held(
    dataset: ImageDataset, *, device: torch.device, memory_bytes: int, stream_bytes: int = STREAM_BYTES
) -> str:
    """Describe for the user what open_data does with the same arguments."""
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
    """Bytes that the images of one data set may take: a share of the machine's memory, or of a device's free memory.

    Free memory changes, so this is called once and the result is passed to every runner.
    """
    if device.type == "cuda":
        available = torch.cuda.mem_get_info(device)[0]
    elif device.type == "mps":
        available = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    else:
        available = memory_of(device)
    return int(IMAGES_SHARE * available)


def fits_in_memory(dataset: ImageDataset, memory_bytes: int, *, device: torch.device) -> bool:
    """Whether open_data would hold the images on `device` in `memory_bytes` instead of streaming them."""
    return dataset.images_NCHW.numel() <= _largest_held(device, memory_bytes)


def _largest_held(device: torch.device, memory_bytes: int) -> int:
    """Bytes of the largest set that a device can hold as one tensor."""
    return min(memory_bytes, LARGEST_ON_MPS) if device.type == "mps" else memory_bytes
