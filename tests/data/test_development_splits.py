from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tuner.data.dataset import ImageDataset
from tuner.data.splits import apportion, channel_statistics, fresh_split, part_size, split_development
from tuner.errors import DataError

class_counts = st.lists(st.integers(2, 60), min_size=2, max_size=12)


def dataset_of(counts: list[int], *, validation_rows: list[int] | None = None, shuffled: bool = False) -> ImageDataset:
    labels_N = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    if shuffled:
        labels_N = labels_N[torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(0))]
    return ImageDataset(
        name="test",
        images_NCHW=torch.zeros(len(labels_N), 1, 1, 1, dtype=torch.uint8),
        labels_N=labels_N,
        class_names=tuple(f"class {index}" for index in range(len(counts))),
        digest="",
        validation_indices_N=None if validation_rows is None else torch.tensor(validation_rows),
        folder=Path(),
        notes=(),
    )


@given(class_counts, st.floats(0.01, 0.99), st.integers(0, 2**40), st.booleans())
def test_a_split_is_a_sorted_partition_with_every_class_on_both_sides(
    counts: list[int], fraction: float, seed: int, shuffled: bool
) -> None:
    dataset = dataset_of(counts, shuffled=shuffled)
    split = split_development(dataset, seed=seed, validation_fraction=fraction)
    both = torch.cat([split.train_indices_N, split.validation_indices_N])
    assert both.dtype == torch.int64
    assert sorted(both.tolist()) == list(range(sum(counts)))
    for rows in (split.train_indices_N, split.validation_indices_N):
        assert rows.tolist() == sorted(rows.tolist())
        assert dataset.labels_N[rows].bincount(minlength=len(counts)).min() >= 1


@given(class_counts, st.floats(0.01, 0.99))
def test_the_total_is_exact_wherever_it_leaves_every_class_an_image_on_each_side(
    counts: list[int], fraction: float
) -> None:
    total = part_size(sum(counts), fraction)
    assume(len(counts) <= total <= sum(counts) - len(counts))
    split = split_development(dataset_of(counts), seed=0, validation_fraction=fraction)
    assert len(split.validation_indices_N) == total


# Sizes and fractions at which every exact share leaves an image on each side, so that no bound gets in its way.
@given(st.lists(st.integers(6, 60), min_size=2, max_size=12), st.floats(0.2, 0.8))
def test_shares_are_within_one_image_of_the_exact_proportion(counts: list[int], fraction: float) -> None:
    total = part_size(sum(counts), fraction)
    shares = apportion(counts, total=total)
    assert sum(shares) == total
    assert all(abs(share - total * count / sum(counts)) < 1 for share, count in zip(shares, counts, strict=True))


def test_shares_follow_the_largest_remainders() -> None:
    # Quotas 4.7, 3.2 and 2.1 of 10: the floors give 9, and the remainder 0.7 takes the last one.
    assert apportion([47, 32, 21], total=10) == [5, 3, 2]


def test_a_class_too_small_for_a_share_of_its_own_gets_one_image() -> None:
    assert apportion([1000, 2, 2], total=100) == [98, 1, 1]


def test_the_same_seed_gives_the_same_split_and_another_seed_another() -> None:
    dataset = dataset_of([50, 50])
    first, again, other = (split_development(dataset, seed=seed).validation_indices_N for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_split_of_a_seed_never_changes_between_versions() -> None:
    split = split_development(dataset_of([10, 10]), seed=7)
    assert split.validation_indices_N.tolist() == [3, 6, 11, 12]


def test_a_fifth_is_the_default_rounded_up() -> None:
    assert len(split_development(dataset_of([17, 17]), seed=0).validation_indices_N) == 7


def test_the_default_is_never_more_than_ten_thousand_images() -> None:
    split = split_development(dataset_of([30_000, 30_000]), seed=0)
    assert len(split.validation_indices_N) == 10_000
    assert (
        len(split_development(dataset_of([30_000] * 2), seed=0, validation_fraction=0.2).validation_indices_N) == 12_000
    )


def test_a_fraction_that_floats_only_just_miss_is_not_rounded_up() -> None:
    assert part_size(100, 0.07) == 7


def test_the_own_validation_part_is_used_unless_a_fraction_is_given() -> None:
    dataset = dataset_of([5, 5], validation_rows=[0, 9])
    own = split_development(dataset, seed=3)
    assert own.validation_indices_N.tolist() == [0, 9]
    assert own.train_indices_N.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert len(split_development(dataset, seed=3, validation_fraction=0.4).validation_indices_N) == 4


@given(class_counts, st.floats(0.05, 0.9), st.integers(0, 2**40))
def test_a_fresh_split_is_the_stratified_split_of_its_seed_with_the_sizes_asked_for(
    counts: list[int], fraction: float, seed: int
) -> None:
    dataset = dataset_of(counts, shuffled=True)
    wanted = split_development(dataset, seed=seed, validation_fraction=fraction)
    fresh = fresh_split(dataset, seed=seed, num_validation=len(wanted.validation_indices_N))
    assert torch.equal(fresh.validation_indices_N, wanted.validation_indices_N)
    assert torch.equal(fresh.train_indices_N, wanted.train_indices_N)


def test_a_fresh_split_keeps_the_own_validation_part_whatever_the_seed() -> None:
    dataset = dataset_of([5, 5], validation_rows=[0, 9])
    for seed in range(5):
        fresh = fresh_split(dataset, seed=seed, num_validation=2)
        assert fresh.validation_indices_N.tolist() == [0, 9]
        assert fresh.train_indices_N.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_class_with_one_image_is_named_with_its_count() -> None:
    with pytest.raises(DataError, match=r"at least 2 images .* 'class 1' has 1: add images"):
        split_development(dataset_of([5, 1]), seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_fraction_outside_zero_and_one_is_refused(fraction: float) -> None:
    with pytest.raises(DataError, match=r"between 0 and 1.*got"):
        split_development(dataset_of([5, 5]), seed=0, validation_fraction=fraction)


def test_channel_statistics_are_those_of_the_rows_given() -> None:
    images_NCHW = torch.randint(0, 256, (2500, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(0, 2500, 2)
    mean, std = channel_statistics(images_NCHW, rows)
    expected = images_NCHW[rows].numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, expected.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, expected.std(axis=(0, 2, 3)), rtol=1e-12)


def test_a_constant_channel_has_the_standard_deviation_one_and_a_nearly_constant_one_a_floor() -> None:
    images_NCHW = torch.full((1000, 2, 10, 10), 51, dtype=torch.uint8)
    images_NCHW[0, 1, 0, 0] = 52
    mean, std = channel_statistics(images_NCHW, torch.arange(1000))
    assert mean[0] == pytest.approx(0.2)
    assert std == (1.0, 1e-3)
