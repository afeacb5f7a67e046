"""What the best is: the value of an epoch, the best epoch of a curve, the order of trials, and their ties."""

import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.search.objective import BELOW_ALL, best_epoch, best_value, is_better, rank_key, ranked, value_of
from tuner.training.results import EpochResult


@dataclass(frozen=True)
class Trial:
    number: int
    validation_accuracy: float | None


def test_the_value_of_an_epoch_is_its_validation_accuracy() -> None:
    assert value_of(EpochResult(1, 0.1, 0.2, 0.9, 0.3)) == 0.9


@pytest.mark.parametrize(
    ("value", "than", "better"),
    [
        (0.5, 0.4, True),
        (0.5, 0.5, False),
        (0.4, 0.5, False),
        (0.0, None, True),
        (None, 0.0, False),
        (None, None, False),
    ],
)
def test_only_a_higher_value_is_better(value: float | None, than: float | None, better: bool) -> None:
    assert is_better(value, than) is better


@pytest.mark.parametrize(
    ("curve", "epoch"),
    [({}, None), ({1: 0.0}, 1), ({1: 0.5, 2: 0.7, 3: 0.7}, 2), ({3: 0.7, 1: 0.5, 2: 0.7}, 2), ({1: 0.7, 2: 0.5}, 1)],
)
def test_the_best_epoch_is_the_first_of_the_highest_value(curve: dict[int, float], epoch: int | None) -> None:
    assert best_epoch(curve) == epoch


@given(st.dictionaries(st.integers(1, 50), st.floats(0, 1), min_size=1))
def test_the_best_value_is_that_of_the_best_epoch_and_is_above_the_value_below_all(curve: dict[int, float]) -> None:
    epoch = best_epoch(curve)
    assert epoch is not None
    assert best_value(curve.values(), default=None) == curve[epoch]
    assert is_better(curve[epoch], BELOW_ALL)
    assert best_value([], default=BELOW_ALL) == BELOW_ALL


def test_of_equal_trials_the_one_with_the_lower_number_comes_first_and_no_value_ranks_as_zero() -> None:
    trials = [Trial(4, None), Trial(3, 0.5), Trial(0, 0.1), Trial(2, 0.0), Trial(1, 0.5)]
    assert [trial.number for trial in ranked(trials)] == [1, 3, 0, 2, 4]


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5))))
def test_a_better_value_always_ranks_before_a_worse_one(pairs: list[tuple[float, int]]) -> None:
    keys = sorted(pairs, key=lambda pair: rank_key(*pair))
    assert all(not is_better(later, earlier) for (earlier, _), (later, _) in pairwise(keys))


def test_the_objective_needs_no_torch() -> None:
    code = "import sys, tuner.search.objective; raise SystemExit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
