"""95 % intervals for test accuracies: over seeds, over images, and of the paired difference of two networks.

With two or three seeds a network's own spread is hardly known: Student's quantile for one degree of freedom is 12.7.
So the spread of the seeds is estimated from everything that was trained again, networks and splits together, with all
their degrees of freedom. Source: the pooled estimate of variance, and the residual of a randomized block design, in
Box, Hunter and Hunter, Statistics for Experimenters, 2005, chapters 3 and 4.

A fresh split is the same for all contenders, so that what it does to all of them alike, such as images that are easy to
validate, is taken out. What it does to each of them apart stays in: that adds to the spread that seeds have on the test
set and takes nothing away, as fewer images to train on do; and what does worse than the winner mostly spreads more. So
the intervals err towards being wide. They rest on one spread for all networks, and on a seed having nothing to say to
networks of different shapes alike: a winner that spreads more than the others would get too narrow an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean

from torch import Tensor

Interval = tuple[float, float]
Accuracies = Sequence[Sequence[float]]
"""A row for each network, with its accuracy (0..1) for each seed. Rows of different lengths lack the last seeds."""
Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


@dataclass(frozen=True)
class Spread:
    """How much trainings with different seeds differ: a sum of squares, over its degrees of freedom a variance."""

    squares: float = 0.0
    freedom: int = 0

    def __add__(self, other: Spread) -> Spread:
        return Spread(self.squares + other.squares, self.freedom + other.freedom)

    def half_width(self, num_seeds: int) -> float:
        """Half of Student's 95 % interval of a mean over seeds; 0 for one seed, with which only the images count."""
        if num_seeds < 2 or not self.freedom:
            return 0.0
        from scipy.special import stdtrit

        return float(stdtrit(self.freedom, 0.975)) * sqrt(self.squares / self.freedom / num_seeds)


def spread_of_seeds(accuracies: Accuracies) -> Spread:
    """The spread of each network about its own mean, of all of them together."""
    spread = Spread()
    for row in accuracies:
        if row:
            centre = mean(row)
            spread += Spread(sum((value - centre) ** 2 for value in row), len(row) - 1)
    return spread


def spread_on_splits(accuracies: Accuracies) -> Spread:
    """The spread of networks that share a split for each seed, without what a split does to all of them alike.

    Only networks with all the seeds are looked at. With a single one nothing can be told apart: all its spread counts.
    """
    num_seeds = max(map(len, accuracies), default=0)
    rows = [row for row in accuracies if len(row) == num_seeds]
    if num_seeds < 2 or len(rows) < 2:
        return spread_of_seeds(rows)
    of_network, of_seed = [mean(row) for row in rows], [mean(column) for column in zip(*rows, strict=True)]
    centre = mean(of_network)
    squares = sum(
        (value - of_network[i] - of_seed[j] + centre) ** 2 for i, row in enumerate(rows) for j, value in enumerate(row)
    )
    return Spread(squares, (len(rows) - 1) * (num_seeds - 1))


def accuracy_interval(
    accuracies: Sequence[float], num_images: int, *, other: Sequence[float] = (), on_splits: Accuracies = ()
) -> Interval:
    """Of the mean accuracy (0..1) of a network trained with different seeds and scored on the same images.

    other: those of another network on the same images. on_splits: those of all networks on fresh splits.

    Two sources of chance, the seeds (Student's t) and the choice of test images (Wilson's score), are combined side by
    side as the method of variance estimates recovery does. Source: Newcombe, Interval estimation for the difference
    between independent proportions, 1998; Zou and Donner, 2008. With one seed, the images' part alone.
    """
    centre = mean(accuracies)
    low, high = wilson(centre, num_images)
    by_seed = (spread_of_seeds([accuracies, other]) + spread_on_splits(on_splits)).half_width(len(accuracies))
    return (
        max(0.0, centre - sqrt(by_seed**2 + (centre - low) ** 2)),
        min(1.0, centre + sqrt(by_seed**2 + (high - centre) ** 2)),
    )


def difference_interval(correct_SN: Tensor, other_correct_SN: Tensor, *, on_splits: Accuracies = ()) -> Interval:
    """Of the mean accuracy of one network less that of another, paired by seed and by image.

    correct_SN: bool, whether seed S was right on image N; likewise the other's. on_splits: accuracies of all networks
    on fresh splits. Both sources of chance as above, the images' by the variance of the difference image by image.
    """
    by_image_N = (correct_SN.double() - other_correct_SN.double()).mean(0)
    both = [network_SN.double().mean(1).tolist() for network_SN in (correct_SN, other_correct_SN)]
    spread = spread_on_splits(both) + spread_on_splits(on_splits)
    by_seed = sqrt(2) * spread.half_width(len(correct_SN))  # a difference has the variance of both
    num_images = len(by_image_N)
    # One image more on either side keeps the width from vanishing where the two agree on every image.
    by_images = Z * sqrt((float(by_image_N.var(correction=0)) + 2 / (num_images + 2) ** 2) / num_images)
    half = sqrt(by_seed**2 + by_images**2)
    centre = float(by_image_N.mean())
    return centre - half, centre + half


def wilson(share: float, num_images: int) -> Interval:
    """Wilson's score interval of a proportion. Source: Wilson, Probable inference, 1927."""
    scale = 1 + Z**2 / num_images
    centre = (share + Z**2 / (2 * num_images)) / scale
    half = Z / scale * sqrt(share * (1 - share) / num_images + Z**2 / (4 * num_images**2))
    return max(0.0, centre - half), min(1.0, centre + half)
