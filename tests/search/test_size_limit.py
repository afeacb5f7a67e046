"""A space's limit of parameters: candidates above it are stored with the reason, not trained, and not counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.search.rehearsal import Rehearsal, ended, rehearse
from tests.strategies import BUNDLED, make_space
from tuner.architecture.cost import Cost, network_cost
from tuner.architecture.trace import trace
from tuner.errors import SpaceError
from tuner.search.events import SearchEnded
from tuner.search.size_limit import size_excess
from tuner.search.tasks import TrialTask
from tuner.search.uncounted_trials import MAX_TOO_LARGE, UncountedTrials
from tuner.training.loop import EpochResult


@pytest.mark.parametrize(
    ("num_parameters", "limit", "excess", "reason"),
    [
        (1_000, None, None, ""),
        (1_000, 1_000, 0.0, ""),
        (500, 1_000, -0.5, ""),
        (1_500, 1_000, 0.5, "it has 1,500 parameters, more than the 1,000 that its space allows"),
    ],
)
def test_the_excess_is_a_share_of_the_limit(
    num_parameters: int, limit: int | None, excess: float | None, reason: str
) -> None:
    assert size_excess(Cost(num_parameters, 0, 0, 0, 1), limit) == (excess, reason)


def test_a_candidate_above_the_spaces_limit_is_rejected_and_not_trained(tmp_path: Path) -> None:
    sizes: list[int] = []

    def measure(task: TrialTask) -> Iterator[EpochResult]:
        sizes.append(network_cost(trace(task.candidate.architecture)).num_parameters)
        return rehearse(task)

    space = BUNDLED["resnet"].model_copy(update={"max_parameters": 100_000})
    study = Rehearsal(tmp_path, space=space)
    rejected = [event for event in ended(study.run(8, trainer=measure)) if event.outcome == "rejected"]
    assert rejected
    assert len(sizes) == 8
    assert sizes[0] == 77_850 - 2 * 9 * 16  # ResNet-8, over one channel instead of three
    assert max(sizes) <= 100_000
    assert all(event.reason.endswith("parameters, more than the 100,000 that its space allows") for event in rejected)
    assert not any(event.counts for event in rejected)
    trials = {trial.number: trial for trial in study.record().trials()}
    assert all(trials[event.number].num_parameters > 100_000 for event in rejected)


ALL_TOO_LARGE = make_space(
    name="large", max_parameters=20, block={"out_channels": {"low": 8, "high": 64}}, head={"hidden_features": [16, 32]}
)


def test_a_search_ends_with_an_error_if_every_candidate_is_too_large(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path, space=ALL_TOO_LARGE)
    for _ in range(2):  # at once when it is resumed
        with pytest.raises(SpaceError) as raised:
            study.run(8)
        trials = study.record().trials()
        assert {trial.outcome for trial in trials} == {"rejected"}
        assert len(trials) == MAX_TOO_LARGE
        assert str(raised.value) == (
            "space 'large': the last 200 candidates all had more than max_parameters = 20 parameters, the smallest "
            f"{min(trial.num_parameters for trial in trials):,}; raise max_parameters, or make the space's networks "
            "smaller"
        )


def test_a_search_with_a_trained_baseline_ends_early_if_all_other_candidates_are_too_large(tmp_path: Path) -> None:
    space = ALL_TOO_LARGE.model_copy(update={"max_parameters": 5_000})
    events = Rehearsal(tmp_path, space=space).run(8)
    assert [event.outcome for event in ended(events)] == ["complete", *["rejected"] * MAX_TOO_LARGE]
    assert isinstance(events[-1], SearchEnded)
    assert events[-1].num_counted == 1
    assert events[-1].reason.startswith("the last 200 candidates all had more than max_parameters = 5,000 parameters")


@pytest.mark.parametrize(
    ("trials", "has_given_up"),
    [
        ([(False, 11)] * 199, False),
        ([(False, 11)] * 200, True),
        ([(False, 11)] * 200 + [(True, 5)], True),  # a trial that still ran does not change it
        ([(False, 11)] * 199 + [(True, 5)] + [(False, 11)] * 199, False),
        ([(False, 5)] + [(False, 11)] * 998, False),  # a repeated one is no fault of the limit
        ([(False, 5)] + [(False, 11)] * 999, True),
    ],
)
def test_a_search_gives_up_earlier_if_the_limit_is_the_only_reason(
    trials: list[tuple[bool, int]], *, has_given_up: bool
) -> None:
    uncounted = UncountedTrials(max_parameters=10)
    for counts, num_parameters in trials:
        uncounted.add(counts=counts, num_parameters=num_parameters)
    assert uncounted.has_given_up == has_given_up
