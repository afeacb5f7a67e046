"""EpochResult: what one epoch of a training came to, and Diverged for one that came to nothing."""

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
"""Images by class: row t, column p counts those of class t that were taken for p."""
MAX_CONFUSION_CLASSES = 200
"""With more classes nobody reads the matrix, and it is no longer small."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to. Losses are mean cross-entropies in nats; accuracies lie in 0..1; `seconds` is wall time.

    `weights` is the live state dict, to be copied before the next epoch is asked for; None once sent elsewhere.
    `confusion` is of the validation part, None above MAX_CONFUSION_CLASSES. `latency_ms` is of one image; `correct_N`
    says of every validation image, in their order, whether it was classified correctly. Both come with the last epoch
    alone. `seed_index` says which of the seeds that train together it is of, from 0.
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


class Diverged(Exception):  # noqa: N818 - an outcome that callers expect, not a mistake
    """The loss of an epoch, or what it left of the weights, was not finite."""
