"""All trials of a study with the same backbone and image size show one latency."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rehearsal import DIGITS, Rehearsal

from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.search.latencies import BackboneLatencies
from tuner.search.tasks import TrialTask
from tuner.space.toml_file import parse_space
from tuner.training.results import EpochResult

NAMES = ["shufflenet_v2_x0_5", "mobilenet_v3_small"]
SPACE = parse_space(
    {
        "name": "tiny",
        "backbone": {"name": NAMES, "image_size": 32},
        "weights": dict.fromkeys(NAMES, "0" * 16),
        "recipe": {"learning_rate": {"low": 1e-4, "high": 1e-1}},
    },
    origin="tiny",
)


def slower_and_slower(task: TrialTask) -> Iterator[EpochResult]:
    """A trainer that measures another latency in each trial."""
    for epoch in range(1, task.candidate.recipe.epochs + 1):
        is_last = epoch == task.candidate.recipe.epochs
        yield EpochResult(epoch, 0.5, 0.5, 0.5, 0.1, latency_ms=1.0 + task.number if is_last else None)


def test_the_trials_of_a_backbone_show_one_latency_also_after_a_study_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.search.sampler_and_pruner.rungs", lambda epochs: ())
    study = Rehearsal(tmp_path, space=SPACE)
    study.run(6, trainer=slower_and_slower)
    study.run(12, trainer=slower_and_slower)
    trials = study.record().trials()
    found: dict[str, list[float | None]] = {}
    for trial in trials:
        network = trial.candidate.architecture
        assert isinstance(network, BackboneNetwork)
        found.setdefault(network.backbone, []).append(trial.latency_ms)
    assert set(found) == set(NAMES)
    assert all(len(latencies) > 1 and len(set(latencies)) == 1 for latencies in found.values())
    assert len({latencies[0] for latencies in found.values()}) == 2


def test_another_size_or_a_network_without_a_backbone_has_a_latency_of_its_own() -> None:
    latencies = BackboneLatencies()
    network = BackboneNetwork(InputSpec(3, 32, 32, 10), NAMES[0], "0" * 16)
    larger = BackboneNetwork(InputSpec(3, 64, 64, 10), NAMES[0], "0" * 16, 1)
    assert latencies.shared(network, None) is None
    assert [latencies.shared(one, 2.0 + at) for at, one in enumerate([network, larger, network])] == [2.0, 3.0, 2.0]
    traced = Architecture(DIGITS, (PlainBlock(4),), Head())
    assert [latencies.shared(traced, value) for value in (1.0, 2.0)] == [1.0, 2.0]
