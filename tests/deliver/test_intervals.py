from math import sqrt
from statistics import mean

import pytest
import torch
from torch import Tensor

from tuner.deliver.intervals import (
    accuracy_interval,
    difference_interval,
    spread_of_seeds,
    spread_on_splits,
    wilson,
)

MANY = 10**9
"""Images, so many that only the seeds are left to chance."""
ROUNDS = 2_000
NUM_CONTENDERS = 4
SPREAD, SPLIT_SPREAD = 0.006, 0.02
"""Standard deviations of an accuracy: by seed, and by the fresh split that all contenders share."""


@pytest.mark.parametrize(
    ("share", "num_images", "low", "high"),
    [(0.9, 100, 0.82563, 0.94477), (0.5, 10, 0.23659, 0.76341), (1.0, 100, 0.96301, 1.0), (0.0, 100, 0.0, 0.03699)],
)
def test_wilsons_interval_is_the_one_in_the_tables(share: float, num_images: int, low: float, high: float) -> None:
    assert wilson(share, num_images) == pytest.approx((low, high), abs=1e-5)


def test_one_networks_spread_is_students_and_nothing_for_one_seed() -> None:
    assert spread_of_seeds([[0.9]]).half_width(1) == 0.0
    assert spread_of_seeds([[0.9], [0.5, 0.7]]).half_width(1) == 0.0
    assert spread_of_seeds([[0.9, 0.92, 0.94]]).half_width(3) == pytest.approx(4.30265 * 0.02 / 3**0.5, rel=1e-4)


def test_the_spread_of_several_networks_is_pooled_with_all_their_degrees_of_freedom() -> None:
    spread = spread_of_seeds([[0.9, 0.92], [0.5, 0.5, 0.56], [0.7], []])
    assert spread.freedom == 3
    assert spread.squares == pytest.approx(0.0002 + 0.0024)
    assert spread.half_width(2) == pytest.approx(3.18245 * sqrt(0.0026 / 3 / 2), rel=1e-4)


def test_what_a_split_does_to_all_networks_alike_is_not_in_their_spread_on_splits() -> None:
    one, other = [0.9, 0.93, 0.91], [0.8, 0.84, 0.83]
    differences = [a - b for a, b in zip(one, other, strict=True)]
    apart = spread_on_splits([one, other])
    assert apart.freedom == 2
    assert 2 * apart.squares == pytest.approx(sum((value - mean(differences)) ** 2 for value in differences))
    shifted = [[value + shift for value, shift in zip(row, (0.0, 0.3, -0.2), strict=True)] for row in (one, other)]
    assert spread_on_splits(shifted).squares == pytest.approx(apart.squares)
    assert spread_on_splits([one, other, [0.7], [0.6, 0.6]]) == apart
    assert spread_on_splits([one, [0.7], []]) == spread_of_seeds([one])
    for too_few in ([], [[0.9], [0.8]]):
        assert spread_on_splits(too_few).freedom == 0


def test_seeds_that_differ_widen_the_interval_and_one_seed_leaves_that_of_the_images() -> None:
    assert accuracy_interval([0.9], 100) == pytest.approx(wilson(0.9, 100))
    assert accuracy_interval([0.9], 100, on_splits=[[0.5, 0.7]]) == pytest.approx(wilson(0.9, 100))
    low, high = accuracy_interval([0.88, 0.92], 100)
    alike = accuracy_interval([0.9, 0.9], 100)
    assert low < alike[0] < 0.9 < alike[1] < high


def test_the_interval_holds_the_true_accuracy_about_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    num_images, hits, rounds = 400, 0, 500
    for _ in range(rounds):
        # Every image has its own chance of being got right; the networks of three seeds are tried on the same images.
        chance_N = 0.9 + 0.1 * torch.rand(num_images, generator=generator)
        correct_SN = torch.rand(3, num_images, generator=generator) < chance_N
        low, high = accuracy_interval(correct_SN.double().mean(1).tolist(), num_images)
        hits += low <= 0.95 <= high
    assert hits / rounds >= 0.94


def on_fresh_splits(num_seeds: int, *, apart: float, generator: torch.Generator) -> list[list[float]]:
    """A race: each contender with its own mean, each seed with its own split, each training with its own luck.

    apart: standard deviation of what a split does to each contender by itself.
    """
    means_K1 = 0.9 + 0.05 * torch.rand(NUM_CONTENDERS, 1, generator=generator)
    splits_S = SPLIT_SPREAD * torch.randn(num_seeds, generator=generator)
    luck_KS = sqrt(SPREAD**2 + apart**2) * torch.randn(NUM_CONTENDERS, num_seeds, generator=generator)
    rows: list[list[float]] = (means_K1 + splits_S + luck_KS).double().tolist()
    return rows


@pytest.mark.parametrize("num_seeds", [2, 3])
@pytest.mark.parametrize(("apart", "least", "most"), [(0.0, 0.935, 0.965), (0.5 * SPREAD, 0.95, 0.99)])
def test_pooled_seeds_hold_the_true_accuracy_in_95_of_100_or_more_and_the_interval_is_far_narrower_than_of_one_network(
    num_seeds: int, apart: float, least: float, most: float
) -> None:
    generator = torch.Generator().manual_seed(num_seeds)
    hits, pooled, alone = 0, [], []
    for _ in range(ROUNDS):
        race = on_fresh_splits(num_seeds, apart=apart, generator=generator)
        own, other = (0.95 + SPREAD * torch.randn(2, num_seeds, generator=generator)).double().tolist()
        low, high = accuracy_interval(own, MANY, other=other, on_splits=race)
        hits += low <= 0.95 <= high
        pooled.append(high - low)
        low, high = accuracy_interval(own, MANY)
        alone.append(high - low)
    assert least <= hits / ROUNDS <= most
    assert mean(pooled) < mean(alone) / (2.5 if num_seeds == 2 else 1.4)


def networks(means: tuple[float, float], num_images: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two networks with two seeds each, tried on the same images; the difficult images are so for both."""
    difficulty_N = 0.04 * torch.rand(num_images, generator=generator) - 0.02
    pair = []
    for of_all in means:
        chance_S1 = of_all + SPREAD * torch.randn(2, 1, generator=generator)
        pair.append(torch.rand(2, num_images, generator=generator) < chance_S1 + difficulty_N)
    return pair[0], pair[1]


def test_pooled_differences_hold_the_true_one_in_95_of_100_with_a_narrower_interval() -> None:
    generator = torch.Generator().manual_seed(2)
    num_images, rounds, hits, widths, alone = 4_000, 800, 0, [], []
    noise = 0.94 * 0.06 / num_images  # of the two accuracies' own images, which the race's trainings have too
    for _ in range(rounds):
        one_SN, other_SN = networks((0.95, 0.93), num_images, generator)
        race = on_fresh_splits(2, apart=0.0, generator=generator)
        luck_KS = sqrt(noise) * torch.randn(NUM_CONTENDERS, 2, generator=generator)
        race = (torch.tensor(race, dtype=torch.float64) + luck_KS).tolist()
        low, high = difference_interval(one_SN, other_SN, on_splits=race)
        hits += low <= 0.02 <= high
        widths.append(high - low)
        low, high = difference_interval(one_SN, other_SN)
        alone.append(high - low)
    assert 0.94 <= hits / rounds <= 0.985
    assert mean(widths) < mean(alone) / 2.5


def test_the_difference_of_equal_networks_is_undecided_and_changes_sign_with_their_order() -> None:
    generator = torch.Generator().manual_seed(1)
    one_SN = torch.rand(3, 500, generator=generator) < 0.95
    other_SN = torch.rand(3, 500, generator=generator) < 0.85
    low, high = difference_interval(one_SN, one_SN)
    assert low < 0 < high
    low, high = difference_interval(one_SN, other_SN)
    assert 0 < low < high
    assert difference_interval(other_SN, one_SN) == pytest.approx((-high, -low))
