import pytest
import torch

from tuner.deliver.intervals import accuracy_interval, difference_interval, seed_half_width, wilson


@pytest.mark.parametrize(
    ("share", "num_images", "low", "high"),
    [(0.9, 100, 0.82563, 0.94477), (0.5, 10, 0.23659, 0.76341), (1.0, 100, 0.96301, 1.0), (0.0, 100, 0.0, 0.03699)],
)
def test_wilsons_interval_is_the_one_in_the_tables(share: float, num_images: int, low: float, high: float) -> None:
    assert wilson(share, num_images) == pytest.approx((low, high), abs=1e-5)


def test_the_seeds_part_is_students_and_nothing_for_one_seed() -> None:
    assert seed_half_width([0.9]) == 0.0
    assert seed_half_width([0.9, 0.92, 0.94]) == pytest.approx(4.30265 * 0.02 / 3**0.5, rel=1e-4)


def test_seeds_that_differ_widen_the_interval_and_one_seed_leaves_that_of_the_images() -> None:
    assert accuracy_interval([0.9], 100) == pytest.approx(wilson(0.9, 100))
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


def test_the_difference_of_equal_networks_is_undecided_and_changes_sign_with_their_order() -> None:
    generator = torch.Generator().manual_seed(1)
    one_SN = torch.rand(3, 500, generator=generator) < 0.95
    other_SN = torch.rand(3, 500, generator=generator) < 0.85
    low, high = difference_interval(one_SN, one_SN)
    assert low < 0 < high
    low, high = difference_interval(one_SN, other_SN)
    assert 0 < low < high
    assert difference_interval(other_SN, one_SN) == pytest.approx((-high, -low))
