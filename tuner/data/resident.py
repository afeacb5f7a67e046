"""The whole set on the device: batches by index, normalised a batch at a time."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.data.dataset import ImageDataset
from tuner.data.splits import Split, channel_statistics


@dataclass(frozen=True, eq=False)
class ResidentData:
    """A development set ready to train on; all tensors lie on one device.

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
        self, batch_size: int, *, generator: torch.Generator, dtype: torch.dtype, channels_last: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images_BCHW, labels_B) of one epoch, shuffled, the short last batch included.

        The generator is a CPU's, so that one seed gives one order on every device.
        """
        order_N = torch.randperm(len(self.train_indices_N), generator=generator).to(self.train_indices_N.device)
        return self._batches(
            self.train_indices_N.index_select(0, order_N), batch_size, dtype=dtype, channels_last=channels_last
        )

    def validation_batches(
        self, batch_size: int, *, dtype: torch.dtype, channels_last: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images_BCHW, labels_B) of the validation rows in their order, the short last batch included."""
        return self._batches(self.validation_indices_N, batch_size, dtype=dtype, channels_last=channels_last)

    def _batches(
        self, indices_N: Tensor, batch_size: int, *, dtype: torch.dtype, channels_last: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # Once a pass: on a GPU, sending constants to it with every batch would make the CPU wait each time.
        shift_C11, scale_C11 = pixel_scaling(self.mean, self.std, dtype=dtype, device=self.images_NCHW.device)
        for indices_B in torch.split(indices_N, batch_size):
            pixels_BCHW = self.images_NCHW.index_select(0, indices_B)
            images_BCHW = pixels_BCHW.to(dtype).sub_(shift_C11).mul_(scale_C11)
            # Last, because arithmetic with a constant per channel is slow in this layout on a CPU. With one channel
            # both layouts are the same bytes and nothing is copied.
            if channels_last:
                images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)
            yield images_BCHW, self.labels_N.index_select(0, indices_B)


def pixel_scaling(
    mean: tuple[float, ...], std: tuple[float, ...], *, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Give shift and scale: (pixel - shift) * scale is (pixel / 255 - mean) / std for pixels in 0..255."""
    shift_C11 = torch.tensor([255 * value for value in mean], dtype=dtype, device=device).view(-1, 1, 1)
    scale_C11 = torch.tensor([1 / (255 * value) for value in std], dtype=dtype, device=device).view(-1, 1, 1)
    return shift_C11, scale_C11


def load_resident(dataset: ImageDataset, split: Split, *, device: torch.device) -> ResidentData:
    """Put a development set on a device: nothing is copied on a CPU, everything once on another."""
    mean, std = channel_statistics(dataset.images_NCHW, split.train_indices_N)
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
