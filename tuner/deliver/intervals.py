"""95 % intervals for test accuracies: over seeds, over images, and of the paired difference of two networks.

Two things are random: the seeds that networks train with, and the images that they are scored on. With two or three
seeds, a network's own spread is hardly known (Student's quantile for one degree of freedom is 12.7), so it is
estimated from everything that was trained again, networks and splits together, with all their degrees of freedom.
Source: the pooled estimate of variance, and the residual of a randomized block design, in Box, Hunter and Hunter,
Statistics for Experimenters, 2005, chapters 3 and 4.

An accuracy differs from seed to seed for two reasons: the network is another one, and it is correct on other images.
The second part is known from the table of which network was correct on which image, and is subtracted. Otherwise it
would be counted twice or, on a small validation part, be mistaken for a large spread of the seeds. Source: modified
large-sample intervals for sums and differences of mean squares, Burdick and Graybill, Confidence Intervals on Variance
Components, 1992, chapter 3.

A network that is constant, such as one that always answers the same class, has no spread. It is not pooled with the
others, whose spread it would dilute. The intervals rest on one spread for all other networks: a winner that spreads
more than they do gets an interval that is too narrow. `python -m benchmarks verdicts` prints how often they are right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

# Shape suffixes: S seeds, N images, K networks.

Interval = tuple[float, float]
Correct = NDArray[np.bool_]
"""Whether each image was classified correctly."""
Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Spread:
    """How much accuracies differ from seed to seed: a sum of squares, which gives a variance per degree of freedom.

    by_images: the part of `squares` that is expected from the images alone, even if all seeds are equally good.
    """

    squares: float = 0.0
    freedom: int = 0
    by_images: float = 0.0

    def __add__(self, other: Spread) -> Spread:
        return Spread(self.squares + other.squares, self.freedom + other.freedom, self.by_images + other.by_images)


@dataclass(frozen=True)
class RaceRow:
    """One network in the race. accuracies: by seed, in 0..1. correct_SN: on the validation images of each seed's split.

    correct_SN is None if the trainer does not provide it; then nothing is subtracted for the images.
    """

    accuracies: Sequence[float]
    correct_SN: Correct | None = None


def pool(spreads: Iterable[Spread]) -> Spread:
    """Pool all spreads except those that are zero; zero if all are."""
    found = list(spreads)
    return sum([one for one in found if one.squares > 0] or found, Spread())


def spread_of_seeds(correct_SN: Correct) -> Spread:
    """Spread of one network around its mean, trained with several seeds and scored on the same images."""
    accuracies = correct_SN.mean(1)
    return _spread_about_mean(accuracies, by_images=_interaction(correct_SN) / correct_SN.shape[1])


def spread_in_race(rows: Sequence[RaceRow], *, validation_share: float) -> Spread:
    """Spread of networks that were trained with the same seeds, each seed on its own split.

    Only networks with all seeds are used, and only those with any spread. The effect that a split has on all networks
    alike is removed; with a single network, it cannot be separated.

    validation_share: the validation part's share of the images that are split again for every seed; 0 if all seeds
    share one validation part.
    """
    num_seeds = max((len(row.accuracies) for row in rows), default=0)
    if num_seeds < 2:
        return Spread()
    complete = [row for row in rows if len(row.accuracies) == num_seeds]
    spreading = [row for row in complete if len(set(row.accuracies)) > 1]
    if not spreading:
        return Spread(0.0, max(1, len(complete) - 1) * (num_seeds - 1))
    if len(spreading) == 1:
        row = spreading[0]
        return _spread_about_mean(np.array(row.accuracies), by_images=_images_of_one(row, validation_share))
    table_KS = np.array([row.accuracies for row in spreading])
    freedom = (len(spreading) - 1) * (num_seeds - 1)
    by_images = _images_of_several(spreading, is_fixed=not validation_share)
    return Spread(_interaction(table_KS) * freedom, freedom, by_images * freedom)


def accuracy_interval(correct_SN: Correct, spread: Spread) -> Interval | None:
    """Interval of the mean accuracy (0..1) of a network trained with S seeds and scored on the same N images.

    spread: the spread of everything that was retrained. Without degrees of freedom there is no interval. The part for
    the images is Wilson's score interval. Its number of images is chosen so that its variance is that of the mean over
    the seeds.
    """
    if not spread.freedom:
        return None
    num_seeds, num_images = correct_SN.shape
    by_image_N = correct_SN.mean(0)
    centre = float(by_image_N.mean())
    variance = float(by_image_N.var())
    worth = num_images * centre * (1 - centre) / variance if variance else num_images
    low, high = wilson(centre, worth)
    seeds = _seeds_part(spread, num_seeds=num_seeds, num_networks=1)
    return (
        max(0.0, centre - sqrt(seeds + (centre - low) ** 2)),
        min(1.0, centre + sqrt(seeds + (high - centre) ** 2)),
    )


def difference_interval(correct_SN: Correct, other_correct_SN: Correct, spread: Spread) -> Interval | None:
    """Interval of the mean accuracy of one network minus that of another, paired by image.

    Both are trained with the same number of seeds and scored on the same images. A network that is correct on the same
    images with every seed adds no spread. Without degrees of freedom there is no interval. The interval is
    clipped to -1..1, the range of differences between accuracies.
    """
    if not spread.freedom:
        return None
    by_image_N = correct_SN.mean(0) - other_correct_SN.mean(0)
    num_seeds, num_images = correct_SN.shape
    num_constant = sum(bool((one_SN == one_SN[0]).all()) for one_SN in (correct_SN, other_correct_SN))
    num_networks = 2 - num_constant if num_seeds > 1 else 2
    # One image more on either side keeps the width from vanishing where the two agree on every image.
    images = Z**2 * (float(by_image_N.var()) + 2 / (num_images + 2) ** 2) / num_images
    half = sqrt(images + _seeds_part(spread, num_seeds=num_seeds, num_networks=num_networks))
    centre = float(by_image_N.mean())
    return max(-1.0, centre - half), min(1.0, centre + half)


def wilson(share: float, num_images: float) -> Interval:
    """Wilson's score interval of a proportion. Source: Wilson, Probable inference, 1927."""
    scale = 1 + Z**2 / num_images
    centre = (share + Z**2 / (2 * num_images)) / scale
    half = Z / scale * sqrt(share * (1 - share) / num_images + Z**2 / (4 * num_images**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def _seeds_part(spread: Spread, *, num_seeds: int, num_networks: int) -> float:
    """Square of the seeds' half width: for a mean over seeds, or for the sum or difference of several such means."""
    from scipy.special import stdtrit

    student = float(stdtrit(spread.freedom, 0.975))
    per_freedom = max(0.0, student**2 * spread.squares - Z**2 * spread.by_images) / spread.freedom
    return per_freedom * num_networks / num_seeds


def _spread_about_mean(accuracies: NDArray[np.float64], *, by_images: float) -> Spread:
    freedom = len(accuracies) - 1
    if len(set(accuracies.tolist())) < 2:
        return Spread(0.0, freedom)
    return Spread(float(((accuracies - accuracies.mean()) ** 2).sum()), freedom, by_images * freedom)


def _interaction(table: NDArray[np.float64] | Correct) -> float:
    """Mean square of a table after the effects of its rows and columns are removed; 0 for a single row."""
    if len(table) < 2:
        return 0.0
    values = table.astype(np.float64)
    left = values - values.mean(1, keepdims=True) - values.mean(0, keepdims=True) + values.mean()
    freedom = (len(values) - 1) * (int(values.shape[1]) - 1)
    return float((left**2).sum()) / freedom


def _images_of_one(row: RaceRow, validation_share: float) -> float:
    """What the images add to the variance of one network's accuracy from seed to seed.

    Splits of the same images overlap by chance, so the variance is smaller than for independent samples. Source: the
    finite population correction in Cochran, Sampling Techniques, 1977, section 2.6.
    """
    if row.correct_SN is None:
        return 0.0
    num_images = int(row.correct_SN.shape[1])
    if not validation_share:
        return _interaction(row.correct_SN) / float(num_images)
    accuracy = float(row.correct_SN.mean())
    return (1 - validation_share) * accuracy * (1 - accuracy) / num_images


def _images_of_several(rows: Sequence[RaceRow], *, is_fixed: bool) -> float:
    """What the images add to the variance between networks and seeds, apart from the effects of each (interaction)."""
    known = [row.correct_SN for row in rows if row.correct_SN is not None]
    if len(known) < len(rows):
        return 0.0
    correct_KSN = np.stack(known)
    # On one validation part a network's own difficult images are the same with every seed.
    tables = list(correct_KSN) if is_fixed else list(correct_KSN.swapaxes(0, 1))
    return float(np.mean([_interaction(table) for table in tables])) / int(correct_KSN.shape[2])
