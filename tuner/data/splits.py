"""Stratified, seeded splits into train and validation parts with exact totals, and statistics of the train part."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tuner.data.dataset import ImageDataset
from tuner.errors import DataError

DEFAULT_FRACTION = 0.2
MAX_DEFAULT_VALIDATION = 10_000
"""Number of images. A larger validation part would take images from training and hardly make the score more precise."""

TEST_FRACTION, TEST_SEED = 0.2, 20_000
"""Share and seed of the test part, for data sets that have none and never change.

The seed is fixed, so that every study seals the same images. For image folders, which do change, see carving.py.
"""

_STATISTICS_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Split:
    """Rows of a development set: int64, ascending, disjoint, and covering the whole set."""

    train_indices_N: Tensor
    validation_indices_N: Tensor


def split_development(dataset: ImageDataset, *, seed: int, validation_fraction: float | None = None) -> Split:
    """Split into train and validation rows.

    The data set's own validation part is used if it has one and no fraction is given. Otherwise the split is
    stratified. By default the validation part is the smaller of 20 % and 10,000 images, rounded up, with at least one
    of each class. Raises DataError for a fraction outside (0, 1), or if a class is too small to have an image on each
    side.
    """
    if validation_fraction is None and dataset.validation_indices_N is not None:
        return _split_at(dataset.validation_indices_N, num_images=len(dataset.labels_N))
    if validation_fraction is not None and not 0 < validation_fraction < 1:
        raise DataError(
            f"the validation fraction must be between 0 and 1, both excluded; got {validation_fraction}: try 0.2"
        )
    num_images = len(dataset.labels_N)
    total = part_size(num_images, DEFAULT_FRACTION if validation_fraction is None else validation_fraction)
    if validation_fraction is None:
        total = min(total, MAX_DEFAULT_VALIDATION)
    chosen_N = choose_stratified(dataset.labels_N.numpy(), dataset.class_names, total=total, seed=seed)
    return _split_at(torch.from_numpy(chosen_N), num_images=num_images)


def fresh_split(dataset: ImageDataset, *, seed: int, num_validation: int) -> Split:
    """Split again for a confirmation, with `num_validation` images in the validation part.

    The source's own validation part is kept. The user may have made it so that no patient or video is in both parts,
    and mixing the parts would favour networks that memorise. Without one, a new stratified split is drawn.

    This is the only place that decides on new splits. Once images have groups, both parts keep every group whole.
    """
    if dataset.validation_indices_N is not None:
        return _split_at(dataset.validation_indices_N, num_images=len(dataset.labels_N))
    labels_N = dataset.labels_N.numpy()
    chosen_N = choose_stratified(labels_N, dataset.class_names, total=num_validation, seed=seed)
    return _split_at(torch.from_numpy(chosen_N), num_images=len(labels_N))


def part_size(num_images: int, fraction: float) -> int:
    """Number of images in a fraction of them, rounded up."""
    # The small difference keeps 0.07 * 100 = 7.000000000000001 from being rounded up to 8.
    return math.ceil(num_images * fraction - 1e-9)


def choose_stratified(
    labels_N: NDArray[np.int64], class_names: Sequence[str], *, total: int, seed: int
) -> NDArray[np.int64]:
    """Choose `total` rows with the classes in proportion, and return them in ascending order.

    Every class keeps at least one row on each side; `total` is changed if it is too small or too large for that. The
    result is the same in every version, because it uses the raw stream of PCG64, which NumPy's NEP 19 keeps fixed.
    Raises DataError if a class has fewer than two rows.
    """
    counts = np.bincount(labels_N, minlength=len(class_names)).tolist()
    for name, count in zip(class_names, counts, strict=True):
        if count < 2:
            raise DataError(
                f"a class must have at least 2 images to be split; {name!r} has {count}: add images or remove the class"
            )
    order_N = np.argsort(np.random.PCG64(seed % 2**64).random_raw(len(labels_N)), kind="stable")
    chosen = [order_N[labels_N[order_N] == label][:size] for label, size in enumerate(apportion(counts, total=total))]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def apportion(counts: Sequence[int], *, total: int) -> list[int]:
    """Divide `total` among classes in proportion to their counts, by largest remainder, 1 to count - 1 each.

    Source: Hamilton's method. In a tie, the earlier class comes first.
    """
    num_images = sum(counts)
    total = min(max(total, len(counts)), num_images - len(counts))
    # In units of 1 / num_images, so that quotas and remainders stay exact.
    quotas = [total * count for count in counts]
    shares = [min(max(quota // num_images, 1), count - 1) for quota, count in zip(quotas, counts, strict=True)]
    while (missing := total - sum(shares)) != 0:
        step = 1 if missing > 0 else -1
        open_classes = [c for c, count in enumerate(counts) if 1 <= shares[c] + step <= count - 1]
        shares[max(open_classes, key=lambda c: step * (quotas[c] - shares[c] * num_images))] += step
    return shares


def channel_statistics(images_NCHW: Tensor, indices_N: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of pixel / 255 per channel over the rows given.

    The sums are exact integers, so the result depends on neither chunks nor threads. A standard deviation is at least
    1e-3, and 1 for a constant channel, so that dividing by it is safe.
    """
    num_channels = images_NCHW.shape[1]
    histogram_CV = torch.zeros(num_channels, 256, dtype=torch.int64)
    for rows in torch.split(indices_N, _STATISTICS_CHUNK):
        chunk_NCHW = images_NCHW.index_select(0, rows)
        for channel in range(num_channels):
            histogram_CV[channel] += torch.bincount(chunk_NCHW[:, channel].flatten(), minlength=256)
    mean, std = zip(*(_moments(histogram_V) for histogram_V in histogram_CV.tolist()), strict=True)
    return mean, std


def _moments(histogram_V: list[int]) -> tuple[float, float]:
    count = sum(histogram_V)
    total = sum(value * pixels for value, pixels in enumerate(histogram_V))
    squares = sum(value * value * pixels for value, pixels in enumerate(histogram_V))
    # count^2 times the variance, in integers: nothing cancels.
    spread = count * squares - total * total
    return total / (255 * count), 1.0 if spread == 0 else max(math.sqrt(spread) / (255 * count), 1e-3)


def _split_at(validation_indices_N: Tensor, *, num_images: int) -> Split:
    in_train_N = torch.ones(num_images, dtype=torch.bool)
    in_train_N[validation_indices_N] = False
    return Split(in_train_N.nonzero().flatten(), (~in_train_N).nonzero().flatten())
