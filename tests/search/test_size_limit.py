"""A space's limit of parameters: candidates above it are stored with the reason, not trained, and not counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.search.rehearsal import Rehearsal, ended, rehearse
from tests.strategies import BUNDLED
from tuner.architecture.cost import Cost, network_cost
from tuner.architecture.trace import trace
from tuner.search.size_limit import size_excess
from tuner.search.tasks import TrialTask
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

    space = BUNDLED["resnet"].model_copy(update={"max_parameters": 300_000})
    study = Rehearsal(tmp_path, space=space)
    rejected = [event for event in ended(study.run(8, trainer=measure)) if event.outcome == "rejected"]
    assert rejected
    assert len(sizes) == 8
    assert sizes[0] == 77_850 - 2 * 9 * 16  # ResNet-8, over one channel instead of three
    assert max(sizes) <= 300_000
    assert all(event.reason.endswith("parameters, more than the 300,000 that its space allows") for event in rejected)
    assert not any(event.counts for event in rejected)
    trials = {trial.number: trial for trial in study.record().trials()}
    assert all(trials[event.number].num_parameters > 300_000 for event in rejected)
