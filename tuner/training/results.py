"""EpochResult: the results of one epoch of training; Preparing: what comes before; Diverged: an epoch without any."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

NOT_SCORED = math.nan
"""Validation loss and accuracy of an epoch that was not scored."""

Confusion = tuple[tuple[int, ...], ...]
"""Confusion matrix: row t, column p counts the images of class t that were classified as p."""
MAX_CONFUSION_CLASSES = 200
"""With more classes, the matrix is too large to read and to store."""


@dataclass(frozen=True)
class EpochResult:
    """Results of one epoch.

    Losses are mean cross-entropies in nats, accuracies are between 0 and 1, and `seconds` is wall time.

    `weights` is the live state dict of the model that was scored, which must be copied before the next epoch; it is
    None after it was sent to another process. `confusion` is for the validation part, and None above
    MAX_CONFUSION_CLASSES. `latency_ms` is the time for one image. `correct_N` has one entry for each validation image,
    in their order: whether it was classified correctly. `latency_ms` and `correct_N` are set in the last epoch only.
    `seed_index` is the position of the seed among those that train together, from 0.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    weights: dict[str, Tensor] | None = field(default=None, repr=False, compare=False)
    confusion: Confusion | None = field(default=None, repr=False, compare=False)
    latency_ms: float | None = field(default=None, compare=False)
    correct_N: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    seed_index: int = 0


@dataclass(frozen=True)
class Preparing:
    """What a training computes before its first epoch, and how far it is: `done` of `total` images or epochs."""

    what: str
    done: int
    total: int


class Diverged(Exception):  # noqa: N818 - an outcome that callers expect, not a mistake
    """The loss or the weights of an epoch were not finite."""
