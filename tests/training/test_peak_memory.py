import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tuner.architecture.blocks import PlainBlock
from tuner.architecture.cost import network_cost
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import trace
from tuner.training.candidate import Candidate, Recipe, resolve_candidate
from tuner.training.engine import Engine

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is Linux's to tell")

MIB = 2**20
WIDE = (
    PlainBlock(64, kernel_size=5, normalization="batch", activation="tanh", pooling="average", pool_size=3),
    PlainBlock(48, padding="valid", normalization="batch", activation="elu", dropout=0.2),
)
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


@pytest.mark.parametrize("keep", [False, True], ids=["given back", "kept"])
@pytest.mark.parametrize("engine", [Engine(), FAST], ids=["plain", "fast"])
def test_training_and_scoring_take_about_what_is_estimated_at_most_and_give_it_back(engine: Engine, keep: bool) -> None:
    """Of small batches scoring takes the most. How the heap comes to lie differs from run to run, hence a margin."""
    architecture = Architecture(InputSpec(3, 32, 32, num_classes=10), WIDE, Head())
    candidates = [resolve_candidate(Candidate(architecture, Recipe(batch_size=size, epochs=1))) for size in (8, 64)]
    estimates = [network_cost(trace(one.architecture)).training_bytes(one.recipe.batch_size) for one in candidates]
    learned = learn_in_turn(replace(engine, keep_freed_memory=keep), candidates)
    for estimate, (peak, kept) in zip(estimates, learned, strict=True):
        assert estimate / 5 < peak < 1.4 * estimate
        assert kept < 24 * MIB
