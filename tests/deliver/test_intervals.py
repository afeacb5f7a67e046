"""Formulas against hand-computed values; how often intervals cover the truth is printed by `benchmarks verdicts`."""

from math import sqrt
from statistics import mean, variance

import numpy as np
import pytest

from benchmarks.verdicts import SCENARIOS, Nature, measure
from tuner.deliver.intervals import (
    Correct,
    RaceRow,
    Spread,
    Z,
    accuracy_interval,
    difference_interval,
    pool,
    spread_in_race,
    spread_of_seeds,
    wilson,
)

NO_SPREAD = Spread(0.0, 4)
STUDENT_2 = 4.302653
"""97.5 % quantile of Student's distribution with two degrees of freedom."""


def drawn(*accuracies: float, num_images: int, seed: int = 0) -> Correct:
    """A row for each seed, of images that are right by chance."""
    random = np.random.default_rng(seed)
    return np.stack([random.random(num_images) < accuracy for accuracy in accuracies])


@pytest.mark.parametrize(
    ("share", "num_images", "low", "high"),
    [(0.9, 100, 0.82563, 0.94477), (0.5, 10, 0.23659, 0.76341), (1.0, 100, 0.96301, 1.0), (0.0, 100, 0.0, 0.03699)],
)
def test_wilsons_interval_is_the_one_in_the_tables(share: float, num_images: int, low: float, high: float) -> None:
    assert wilson(share, num_images) == pytest.approx((low, high), abs=1e-5)


def test_the_spread_of_one_network_is_its_sum_of_squares_and_what_the_images_give_is_known() -> None:
    """Three seeds on four images, worked out by hand."""
    correct_SN = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], dtype=bool)
    spread = spread_of_seeds(correct_SN)
    assert spread.squares == pytest.approx(2 * 0.25**2)
    assert spread.freedom == 2
    left = np.array([[0.25, 0.25, -5 / 12, -1 / 12], [0, 0, 1 / 3, -1 / 3], [-0.25, -0.25, 1 / 12, 5 / 12]])
    assert spread.by_images == pytest.approx(2 * (left**2).sum() / 6 / 4)


def test_seeds_that_only_differ_by_chance_have_no_spread_beyond_that_of_their_images() -> None:
    spreads = [spread_of_seeds(drawn(0.9, 0.9, 0.9, num_images=400, seed=seed)) for seed in range(500)]
    squares, by_images = (mean(getattr(one, name) for one in spreads) for name in ("squares", "by_images"))
    assert squares == pytest.approx(by_images, rel=0.1)
    assert squares == pytest.approx(2 * 0.9 * 0.1 / 400, rel=0.1)


def test_what_a_split_does_to_all_networks_alike_is_not_in_their_spread_in_the_race() -> None:
    one, other = [0.9, 0.93, 0.91], [0.8, 0.84, 0.83]
    differences = [a - b for a, b in zip(one, other, strict=True)]
    apart = spread_in_race([RaceRow(one), RaceRow(other)], validation_share=0.2)
    assert apart.freedom == 2
    assert apart.squares == pytest.approx(variance(differences))  # of half of the two degrees of freedom each
    shifted = [
        RaceRow([value + shift for value, shift in zip(row, (0.0, 0.3, -0.2), strict=True)]) for row in (one, other)
    ]
    assert spread_in_race(shifted, validation_share=0.2).squares == pytest.approx(apart.squares)
    incomplete = [RaceRow(one), RaceRow(other), RaceRow([0.7]), RaceRow([])]
    assert spread_in_race(incomplete, validation_share=0.2) == apart


def test_a_single_network_in_the_race_has_all_its_spread_less_that_of_its_images() -> None:
    correct_SN = drawn(0.7, 0.9, num_images=1_000)
    accuracies = correct_SN.mean(1).tolist()
    row = RaceRow(accuracies, correct_SN)
    spread = spread_in_race([row, RaceRow([0.7])], validation_share=0.2)
    assert spread.squares == pytest.approx((accuracies[0] - accuracies[1]) ** 2 / 2)
    assert spread.by_images == pytest.approx(0.8 * mean(accuracies) * (1 - mean(accuracies)) / 1_000)
    unknown = spread_in_race([RaceRow(accuracies)], validation_share=0.2)
    assert (unknown.squares, unknown.by_images) == (spread.squares, 0.0)


def test_on_one_validation_part_the_images_of_a_network_are_the_same_with_every_seed() -> None:
    rows = [np.repeat(drawn(0.8, num_images=1_000, seed=seed), 2, axis=0) for seed in (0, 1)]
    for row in rows:
        row[1, :20] = ~row[1, :20]
    race = [RaceRow(row.mean(1).tolist(), row) for row in rows]
    fixed, fresh = (spread_in_race(race, validation_share=share).by_images for share in (0.0, 0.2))
    assert fixed == pytest.approx(mean(spread_of_seeds(row).by_images for row in rows))
    assert 10 * fixed < fresh


@pytest.mark.parametrize("others", [[], [RaceRow([0.91, 0.87, 0.88])]])
def test_a_constant_network_is_not_pooled_with_the_others(others: list[RaceRow]) -> None:
    constant, spreading = RaceRow([0.1, 0.1, 0.1]), RaceRow([0.8, 0.9, 0.85])
    with_it = spread_in_race([constant, spreading, *others], validation_share=0.2)
    assert with_it == spread_in_race([spreading, *others], validation_share=0.2)
    assert pool([Spread(0.0, 2), with_it]) == with_it


def test_networks_that_are_all_without_spread_are_known_to_be_so() -> None:
    assert spread_in_race([RaceRow([1.0, 1.0, 1.0]), RaceRow([0.1, 0.1, 0.1])], validation_share=0.2) == Spread(0.0, 2)
    assert pool([Spread(0.0, 2), Spread(0.0, 2)]) == Spread(0.0, 4)
    assert pool([]) == Spread()


def test_without_degrees_of_freedom_there_is_no_interval() -> None:
    one_SN, other_SN = drawn(0.9, num_images=100), drawn(0.5, num_images=100, seed=1)
    nothing = pool([spread_of_seeds(one_SN), spread_in_race([RaceRow([0.9]), RaceRow([0.5])], validation_share=0.2)])
    assert nothing.freedom == 0
    assert accuracy_interval(one_SN, nothing) is None
    assert difference_interval(one_SN, other_SN, nothing) is None


def test_one_seed_has_the_whole_spread_that_is_known_and_three_have_a_third_of_its_variance() -> None:
    """On so many images that only the seeds are left to chance."""
    spread = Spread(squares=2 * 0.01**2, freedom=2)
    for num_seeds in (1, 3):
        correct_SN = drawn(*[0.9] * num_seeds, num_images=4_000_000)
        found = accuracy_interval(correct_SN, spread)
        assert found is not None
        assert (found[1] - found[0]) / 2 == pytest.approx(STUDENT_2 * 0.01 / sqrt(num_seeds), rel=1e-3)
        between = difference_interval(correct_SN, ~correct_SN, spread)
        assert between is not None
        assert (between[1] - between[0]) / 2 == pytest.approx(STUDENT_2 * 0.01 * sqrt(2 / num_seeds), rel=1e-3)


def test_the_images_part_is_wilsons_for_one_seed_and_narrower_for_a_mean_over_seeds_that_err_apart() -> None:
    one = drawn(0.9, num_images=100)
    assert accuracy_interval(one, NO_SPREAD) == pytest.approx(wilson(float(one.mean()), 100))
    same = np.repeat(one, 3, axis=0)
    assert accuracy_interval(same, NO_SPREAD) == pytest.approx(accuracy_interval(one, NO_SPREAD))
    apart = np.stack([np.roll(one[0], shift) for shift in (0, 7, 13)])
    narrower, whole = accuracy_interval(apart, NO_SPREAD), accuracy_interval(one, NO_SPREAD)
    assert narrower is not None
    assert whole is not None
    assert whole[0] < narrower[0] < one.mean() < narrower[1] < whole[1]


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_a_network_that_is_always_right_or_always_wrong_has_wilsons_interval(accuracy: float) -> None:
    correct_SN = np.full((3, 50), bool(accuracy))
    assert accuracy_interval(correct_SN, NO_SPREAD) == pytest.approx(wilson(accuracy, 50))


def test_the_spread_of_the_images_is_not_counted_twice() -> None:
    """Where the seeds differ no more than their images make them, only the images are left."""
    correct_SN = drawn(0.9, 0.9, num_images=400)
    by_images = Spread(squares=1e-6, freedom=4, by_images=1e-3)
    assert accuracy_interval(correct_SN, by_images) == accuracy_interval(correct_SN, NO_SPREAD)


def test_a_difference_is_paired_by_image_and_one_constant_network_adds_no_spread() -> None:
    one_SN = drawn(0.9, 0.9, num_images=1_000_000)
    constant_SN = np.zeros((2, 1_000_000), dtype=bool)
    spread = Spread(squares=2 * 0.01**2, freedom=2)
    found = difference_interval(one_SN, constant_SN, spread)
    assert found is not None
    assert (found[1] - found[0]) / 2 == pytest.approx(STUDENT_2 * 0.01 / sqrt(2), rel=1e-2)
    alike = difference_interval(one_SN, one_SN, NO_SPREAD)
    assert alike is not None
    assert alike == pytest.approx((-Z * sqrt(2 / 1_000_002**2 / 1_000_000), Z * sqrt(2 / 1_000_002**2 / 1_000_000)))


def test_a_difference_of_accuracies_is_never_beyond_100_points() -> None:
    right_SN, wrong_SN = np.ones((2, 5), dtype=bool), np.zeros((2, 5), dtype=bool)
    spread = Spread(squares=0.5, freedom=1)
    uncertain_SN = np.array([[True] * 5, [True, True, True, True, False]])
    assert difference_interval(uncertain_SN, wrong_SN, spread) == (-1.0, 1.0)
    certain = difference_interval(right_SN, wrong_SN, NO_SPREAD)
    assert certain is not None
    assert 0 < certain[0] < certain[1] == 1.0


def test_the_difference_of_equal_networks_holds_zero_and_changes_sign_with_their_order() -> None:
    one_SN, other_SN = drawn(0.95, 0.95, 0.95, num_images=500), drawn(0.85, 0.85, 0.85, num_images=500, seed=1)
    spread = pool([spread_of_seeds(one_SN), spread_of_seeds(other_SN)])
    forwards, backwards = (difference_interval(*pair, spread) for pair in ((one_SN, other_SN), (other_SN, one_SN)))
    assert forwards is not None
    assert backwards is not None
    assert 0 < forwards[0] < forwards[1]
    assert backwards == pytest.approx((-forwards[1], -forwards[0]))


@pytest.mark.parametrize("name", ["equal", "one final seed", "collapsed baseline", "own validation part"])
def test_intervals_hold_the_true_accuracy_about_as_often_as_they_say(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fifth of the benchmark's rounds, so that chance is wider: two standard errors are 2.2 points."""
    monkeypatch.setattr("benchmarks.verdicts.SCENARIOS", {name: SCENARIOS[name]})
    found = measure(400, say=lambda line: None)[name]
    assert 91 <= found["covers"] <= 99.5
    assert found["covers_difference"] >= 91
    assert found["wrong_yes"] <= 4.5


def test_networks_are_worth_what_they_are_said_to_be() -> None:
    """The truth that the benchmark compares with, against many drawn seeds and images."""
    natures = [Nature(SCENARIOS["heavy spread"], seed=seed) for seed in range(300)]
    drawn_accuracies = [nature._correct(0, "test", np.arange(500)).mean() for nature in natures]
    assert mean(map(float, drawn_accuracies)) == pytest.approx(natures[0].truths[0], abs=0.006)
