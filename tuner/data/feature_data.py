"""FeatureData: the outputs of a backbone's frozen stages, as a data set to train on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.data.augmentation import EpochAugmentation

# Shape suffixes: N images, B of a batch, X the shape of one image's features: (F) or (C, H, W).


@dataclass(frozen=True, eq=False)
class FeatureData:
    """Features of a development set, ready to train on; it takes the place of the images.

    views_NX: fp32 features of every image, memory-mapped: of the images themselves, then of each augmented view. Each
    epoch trains on one of the views, and scores are computed on the images themselves. mean, std: of the backbone's
    preprocessing.
    """

    name: str
    digest: str
    class_names: tuple[str, ...]
    views_NX: Sequence[Tensor]
    labels_N: Tensor
    train_indices_N: Tensor
    validation_indices_N: Tensor
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: torch.device

    def train_batches(
        self,
        batch_size: int,
        *,
        generator: torch.Generator,
        dtype: torch.dtype,
        channels_last: bool,
        augmentation: EpochAugmentation | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (features_BX, labels_B) of one epoch, shuffled, including the short last batch.

        An epoch has one view of all images, drawn from the generator. Its augmentation was applied when the view was
        computed, so none is applied here.
        """
        view = int(torch.randint(len(self.views_NX), (), generator=generator)) if len(self.views_NX) > 1 else 0
        order_N = torch.randperm(len(self.train_indices_N), generator=generator)
        rows_N = self.train_indices_N.index_select(0, order_N)
        return self._batches(self.views_NX[view], rows_N, batch_size, dtype=dtype, channels_last=channels_last)

    def validation_batches(
        self, batch_size: int, *, dtype: torch.dtype, channels_last: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (features_BX, labels_B) of the validation rows in order, including the short last batch."""
        rows_N = self.validation_indices_N
        return self._batches(self.views_NX[0], rows_N, batch_size, dtype=dtype, channels_last=channels_last)

    def _batches(
        self, features_NX: Tensor, rows_N: Tensor, batch_size: int, *, dtype: torch.dtype, channels_last: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for rows_B in torch.split(rows_N, batch_size):
            features_BX = features_NX.index_select(0, rows_B).to(self.device, dtype)
            if channels_last and features_BX.dim() == 4:
                features_BX = features_BX.contiguous(memory_format=torch.channels_last)
            yield features_BX, self.labels_N.index_select(0, rows_B).to(self.device)
