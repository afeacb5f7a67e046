"""Hold the whole data set on the device: batches are selected by index and normalised one at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.data.augmentation import EpochAugmentation
from tuner.data.dataset import ImageDataset
from tuner.data.splits import Split, channel_statistics

# Shape suffixes: N images, B of a batch, R of several batches, C channels, H height, W width.

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation per channel, of pixel / 255 over the train rows."""

_CPU_BLOCK_BYTES, _DEVICE_BLOCK_BYTES = 256 * 2**10, 32 * 2**20


@dataclass(frozen=True, eq=False)
class ResidentData:
    """A development set ready to train on; all tensors are on one device.

    images_NCHW: uint8; on a CPU the memory-mapped tensor itself, so that processes share it.
    mean, std: per channel of pixel / 255, over the train rows only.
    """

    name: str
    digest: str
    class_names: tuple[str, ...]
    images_NCHW: Tensor
    labels_N: Tensor
    train_indices_N: Tensor
    validation_indices_N: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]

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

        The generator is on the CPU, so one seed gives the same order on every device. Labels of mixed images are the
        shares of the classes (B, K).
        """
        order_N = torch.randperm(len(self.train_indices_N), generator=generator).to(self.train_indices_N.device)
        return self._batches(
            self.train_indices_N.index_select(0, order_N),
            batch_size,
            dtype=dtype,
            channels_last=channels_last,
            augmentation=augmentation,
        )

    def validation_batches(
        self, batch_size: int, *, dtype: torch.dtype, channels_last: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images_BCHW, labels_B) of the validation rows in order, including the short last batch."""
        return self._batches(self.validation_indices_N, batch_size, dtype=dtype, channels_last=channels_last)

    def _batches(
        self,
        indices_N: Tensor,
        batch_size: int,
        *,
        dtype: torch.dtype,
        channels_last: bool,
        augmentation: EpochAugmentation | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # Once a pass: on a GPU, sending constants to it with every batch would make the CPU wait each time.
        scaling = pixel_scaling(self.mean, self.std, dtype=torch.float32, device=self.images_NCHW.device)
        at_once = self._batches_at_once(batch_size, dtype)
        for number, indices_R in enumerate(torch.split(indices_N, batch_size * at_once)):
            pixels_RCHW = self.images_NCHW.index_select(0, indices_R)
            labels_R = self.labels_N.index_select(0, indices_R)
            if augmentation is None:
                images_RCHW = scale_pixels(pixels_RCHW, scaling, dtype=dtype, channels_last=channels_last)
            else:
                start = number * batch_size * at_once
                images_RCHW, labels_R = augmentation.apply(pixels_RCHW, labels_R, scaling=scaling, start=start)
                images_RCHW = as_input(images_RCHW, dtype=dtype, channels_last=channels_last)
            if at_once == 1:
                yield images_RCHW, labels_R
            else:
                yield from zip(torch.split(images_RCHW, batch_size), torch.split(labels_R, batch_size), strict=True)

    def _batches_at_once(self, batch_size: int, dtype: torch.dtype) -> int:
        """Number of batches to prepare at once, because one operation's call costs more than its work on a small batch.

        The batches should fit into a CPU's cache, since larger ones are slower again.
        """
        block_bytes = _CPU_BLOCK_BYTES if self.images_NCHW.device.type == "cpu" else _DEVICE_BLOCK_BYTES
        return max(1, block_bytes // (batch_size * self.images_NCHW.shape[1:].numel() * dtype.itemsize))


def pixel_scaling(
    mean: tuple[float, ...], std: tuple[float, ...], *, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return shift and scale: (pixel - shift) * scale is (pixel / 255 - mean) / std for pixels in 0..255."""
    shift_C11 = torch.tensor([255 * value for value in mean], dtype=dtype, device=device).view(-1, 1, 1)
    scale_C11 = torch.tensor([1 / (255 * value) for value in std], dtype=dtype, device=device).view(-1, 1, 1)
    return shift_C11, scale_C11


def scale_pixels(
    pixels_BCHW: Tensor, scaling: tuple[Tensor, Tensor], *, dtype: torch.dtype, channels_last: bool
) -> Tensor:
    """Convert uint8 pixels to a network's input: computed in fp32, as `scaling` is, and rounded to `dtype` once."""
    shift_C11, scale_C11 = scaling
    # Arithmetic in bf16 would be slower on a CPU, and round twice.
    images_BCHW = pixels_BCHW.to(torch.float32).sub_(shift_C11).mul_(scale_C11)
    return as_input(images_BCHW, dtype=dtype, channels_last=channels_last)


def as_input(images_BCHW: Tensor, *, dtype: torch.dtype, channels_last: bool) -> Tensor:
    """Convert normalised images (fp32) to the dtype and the memory layout of a network's input."""
    images_BCHW = images_BCHW.to(dtype)
    # Last, and in a step of its own: on a CPU arithmetic with a constant per channel is slow in this layout, and so is
    # converting to it and to bf16 at once. With one channel both layouts are the same bytes and nothing is copied.
    return images_BCHW.contiguous(memory_format=torch.channels_last) if channels_last else images_BCHW


def load_resident(
    dataset: ImageDataset, split: Split, *, device: torch.device, statistics: Statistics | None = None
) -> ResidentData:
    """Put a development set on a device. Nothing is copied on a CPU; all images are copied once to another device.

    `statistics` are mean and std if they are already known; otherwise all train images are read for them.
    """
    mean, std = statistics or channel_statistics(dataset.images_NCHW, split.train_indices_N)
    return ResidentData(
        name=dataset.name,
        digest=dataset.digest,
        class_names=dataset.class_names,
        images_NCHW=dataset.images_NCHW.to(device),
        labels_N=dataset.labels_N.to(device),
        train_indices_N=split.train_indices_N.to(device),
        validation_indices_N=split.validation_indices_N.to(device),
        mean=mean,
        std=std,
    )
