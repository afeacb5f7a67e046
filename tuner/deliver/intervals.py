"""95 % intervals for test accuracies: over seeds, over images, and of the paired difference of two networks."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import mean, stdev

from torch import Tensor

Interval = tuple[float, float]
Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


def accuracy_interval(accuracies: Sequence[float], num_images: int) -> Interval:
    """Of the mean accuracy (0..1) of networks trained with different seeds and scored on the same images.

    Two sources of chance, the seeds (Student's t) and the choice of test images (Wilson's score), are combined side by
    side as the method of variance estimates recovery does. Source: Newcombe, Interval estimation for the difference
    between independent proportions, 1998; Zou and Donner, 2008. With one seed, the images' part alone.
    """
    centre = mean(accuracies)
    low, high = wilson(centre, num_images)
    by_seed = seed_half_width(accuracies)
    return (
        max(0.0, centre - sqrt(by_seed**2 + (centre - low) ** 2)),
        min(1.0, centre + sqrt(by_seed**2 + (high - centre) ** 2)),
    )


def difference_interval(correct_SN: Tensor, other_correct_SN: Tensor) -> Interval:
    """Of the mean accuracy of one network less that of another, paired by seed and by image.

    correct_SN: bool, whether seed S was right on image N; likewise the other's. Both sources of chance as above, the
    images' by the variance of the difference image by image.
    """
    difference_SN = correct_SN.double() - other_correct_SN.double()
    by_seed = seed_half_width(difference_SN.mean(1).tolist())
    by_image_N = difference_SN.mean(0)
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


def seed_half_width(values: Sequence[float]) -> float:
    """Half of Student's 95 % interval of a mean; 0 for a single value, of which nothing can be said."""
    if len(values) < 2:
        return 0.0
    from scipy.special import stdtrit

    return float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / sqrt(len(values))
