"""Part of a data set: which images are learned from and scored, and the real trainer on them.

Without what searches, so that a process that imports this has no more in memory than a runner's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tuner.data.dataset import ImageDataset
from tuner.data.splits import Split
from tuner.errors import DataError
from tuner.search.image_trainer import ImageTrainer
from tuner.search.tasks import TrialTask

MIN_IMAGES = 100
"""To train on: with fewer, the seconds are those of starting."""
MAX_VALIDATION = 5_000
VALIDATION_PART = 6
"""At least a sixth of a small set is left to score."""


@dataclass(frozen=True)
class Rows:
    """Which images of the training part are learned from, and which scored."""

    train: tuple[int, ...]
    validation: tuple[int, ...]


@dataclass(frozen=True)
class SubsetTrainer(ImageTrainer):
    """Ours, on given rows of the data set."""

    rows: Rows = Rows((), ())

    def _split(self, dataset: ImageDataset, task: TrialTask) -> Split:
        return Split(torch.tensor(self.rows.train), torch.tensor(self.rows.validation))


def choose_rows(num_all: int, num_images: int) -> Rows:
    """Rows drawn at random, the same at every call: to train on, at most `num_images`; of the rest, to score.

    Some are always left to score. Raises DataError if fewer than MIN_IMAGES of the set are left to train on.
    """
    num_kept = min(MAX_VALIDATION, -(-num_all // VALIDATION_PART))
    if num_all - num_kept < MIN_IMAGES:
        raise DataError(
            f"at least {MIN_IMAGES} images are needed to train on; of the {num_all} of this set {num_all - num_kept} "
            f"are, and {num_kept} to score: give a larger --dataset"
        )
    order = torch.randperm(num_all, generator=torch.Generator().manual_seed(0)).tolist()
    num_train = min(num_images, num_all - num_kept)
    return Rows(tuple(order[:num_train]), tuple(order[num_train : num_train + MAX_VALIDATION]))
