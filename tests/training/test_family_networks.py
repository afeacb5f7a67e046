"""Every family of blocks has networks for the engine's check and for its timing."""

from __future__ import annotations

import pytest

from tests.training.measurements import step_times
from tuner.space.stages import BLOCKS, FAMILIES, Family
from tuner.training import timing
from tuner.training.engine import Engine
from tuner.training.family_networks import FAMILY_NETWORKS, timed_architectures
from tuner.training.timing import HOPELESS, NetworkTimes, StepTimes, time_in_turn


def test_every_family_of_a_search_space_has_networks() -> None:
    assert set(FAMILY_NETWORKS) == set(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_networks_of_a_family_have_its_blocks(family: Family) -> None:
    networks = FAMILY_NETWORKS[family]
    for blocks, _ in (*networks.checked, networks.timed):
        assert any(isinstance(block, BLOCKS[family]) for block in blocks)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 64, 64)])
def test_the_timed_networks_fit_images_of_any_size(shape: tuple[int, int, int]) -> None:
    assert {one.input_shape for one in timed_architectures(shape).values()} == {shape}


def test_two_engines_are_timed_on_every_family() -> None:
    times = time_in_turn(Engine(), Engine(channels_last=True), (1, 8, 8))
    assert list(times.by_family) == list(FAMILY_NETWORKS)
    assert all(one.fast >= one.fast_at_best > 0 < one.plain for one in times.by_family.values())


def test_networks_after_one_on_which_an_engine_is_hopeless_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    hopeless = NetworkTimes(plain=1.0, fast=2 * HOPELESS, fast_at_best=2 * HOPELESS)
    monkeypatch.setattr(timing, "_time_network", lambda *_: hopeless)
    assert time_in_turn(Engine(), Engine(), (1, 8, 8)).by_family == {"plain": hopeless}


def test_each_family_counts_equally_however_long_its_step_takes() -> None:
    slow, quick = NetworkTimes(8.0, 4.0, 4.0), NetworkTimes(0.01, 0.02, 0.02)
    times = StepTimes({"plain": slow, "residual": quick})
    assert times.seconds_plain == pytest.approx(times.seconds_fast)


def test_a_family_is_slower_only_if_even_its_fastest_step_is() -> None:
    noisy = NetworkTimes(plain=1.0, fast=1.5, fast_at_best=1.2)
    assert StepTimes({"plain": noisy}).families_slower_by(1.25) == []
    assert step_times(1.0, 1.3, residual=1.2).families_slower_by(1.25) == ["plain", "inverted_residual"]
