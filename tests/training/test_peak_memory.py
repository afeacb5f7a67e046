import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tuner.architecture.backbone_cost import tail_cost
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.blocks import InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.cost import network_cost
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import trace
from tuner.training.candidate import Candidate, Recipe, resolve_candidate
from tuner.training.engine import Engine
from tuner.training.unused_memory import MAX_MMAP_THRESHOLD

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is Linux's to tell")

MIB = 2**20
WIDE = (
    PlainBlock(64, kernel_size=5, normalization="batch", activation="tanh", pooling="average", pool_size=3),
    PlainBlock(48, padding="valid", normalization="batch", activation="elu", dropout=0.2),
)
MOSTLY = {
    "activations": (Architecture(InputSpec(3, 32, 32, num_classes=10), WIDE, Head()), 64),
    "scoring": (Architecture(InputSpec(3, 32, 32, num_classes=10), WIDE, Head()), 8),
    "images": (
        Architecture(
            InputSpec(3, 96, 96, num_classes=10),
            (PlainBlock(8, kernel_size=8, stride=8, padding="valid"),),
            Head("average"),
        ),
        512,
    ),
    "logits": (Architecture(InputSpec(1, 8, 8, num_classes=10_000), (PlainBlock(4),), Head("average")), 1_024),
    "shortcuts": (
        Architecture(
            InputSpec(3, 32, 32, num_classes=10),
            (
                PlainBlock(32, normalization="batch"),
                ResidualBlock(32),
                ResidualBlock(64, normalization="group", order="pre"),
            ),
            Head("average"),
        ),
        64,
    ),
    "expansion": (
        Architecture(
            InputSpec(3, 32, 32, num_classes=10),
            (
                PlainBlock(16, normalization="batch"),
                InvertedResidualBlock(16, squeeze=4),
                InvertedResidualBlock(24, stride=2),
            ),
            Head("average"),
        ),
        64,
    ),
    "parameters": (
        Architecture(InputSpec(1, 28, 28, num_classes=10), (PlainBlock(16),), Head(hidden_features=3_072)),
        64,
    ),
}
"""Networks, and sizes of their batches, by what takes most of the memory."""
FAST = Engine(channels_last=True, blocks="fused", early_pooling=True, byte_dropout=True, optimizer="fused")


def learn_in_turn(engine: Engine, candidates: list[Candidate]) -> list[tuple[int, int]]:
    """Of each, trained one after another in a process: bytes at the peak, and bytes kept when all is over."""
    asked = {"engine": engine.to_json(), "candidates": [candidate.to_json() for candidate in candidates]}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("peak_memory.py"))],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    return [(peak, kept) for peak, kept in json.loads(done.stdout)]


@pytest.mark.slow
@pytest.mark.parametrize("engine", [Engine(), replace(FAST, keep_freed_memory=True)], ids=["plain", "fast"])
def test_training_and_scoring_take_what_is_estimated_at_most_and_give_it_back(engine: Engine) -> None:
    """The layout of the heap differs from run to run, hence a margin: what glibc keeps at its end."""
    candidates = [
        resolve_candidate(Candidate(architecture, Recipe(batch_size=size, epochs=1)))
        for architecture, size in MOSTLY.values()
    ]
    learned = learn_in_turn(engine, candidates)
    for name, candidate, (peak, kept) in zip(MOSTLY, candidates, learned, strict=True):
        estimate = network_cost(trace(candidate.architecture)).training_bytes(candidate.recipe.batch_size)
        assert estimate / 5 < peak < estimate + 2 * MAX_MMAP_THRESHOLD, name
        assert kept < 24 * MIB, name


@pytest.mark.slow
def test_training_a_whole_backbone_takes_what_is_estimated_at_most() -> None:
    engine = Engine(channels_last=True, optimizer="fused", keep_freed_memory=True)
    candidates = [
        resolve_candidate(
            Candidate(
                BackboneNetwork(InputSpec(3, side, side, num_classes=10), name, "0" * 16, trained_stages=100),
                Recipe(optimizer="adamw", batch_size=32, epochs=1),
            )
        )
        for name, side in (("resnet18", 64), ("mobilenet_v3_small", 96), ("efficientnet_b0", 64))
    ]
    for candidate, (peak, _) in zip(candidates, learn_in_turn(engine, candidates), strict=True):
        assert isinstance(candidate.architecture, BackboneNetwork)
        cost = tail_cost(candidate.architecture, is_on_features=False)
        estimate = cost.training_bytes(candidate.recipe.batch_size)
        assert estimate / 5 < peak < estimate + 2 * MAX_MMAP_THRESHOLD, (
            candidate.architecture.backbone,
            peak,
            estimate,
        )
