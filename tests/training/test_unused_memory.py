import os
import subprocess
import sys
from collections.abc import Mapping

import pytest
import torch

from tests.training.peak_memory import private_bytes
from tuner.training.engine import Engine
from tuner.training.process_settings import give_back_memory
from tuner.training.unused_memory import KERNELS_KEPT, keep_freed_memory

MIB = 2**20

CONVOLVE = """
import sys
import torch
from tuner.training.engine import Engine
from tuner.training.process_settings import prepare_process

def convolve(num_channels):
    torch.conv2d(torch.ones(16, 8, 16, 16), torch.ones(num_channels, 8, 3, 3))

prepare_process(Engine())
convolve(1)
print("others", flush=True)
for number in range(int(sys.argv[1])):
    convolve(2 + number)
print("again", flush=True)
convolve(1)
"""
LEARN = """
import torch
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.training.candidate import Candidate, Recipe, resolve_candidate
from tuner.training.engine import Engine
from tuner.training.process_settings import prepare_process
from tuner.training.optimizers import build_optimizer
from tuner.training.step import prepare_step
from tuner.training.loop import fresh_model

engine = Engine()
prepare_process(engine)
blocks = tuple(PlainBlock(8 + number % 61, kernel_size=(3, 5, 1, 7)[number % 4]) for number in range(64))
architecture = Architecture(InputSpec(3, 8, 8, 10), blocks, Head(hidden_features=64))
candidate = resolve_candidate(Candidate(architecture, Recipe()))
model = fresh_model(candidate.architecture, 0, engine=engine).train()
optimizer = build_optimizer(model, candidate.recipe, engine=engine)
step = prepare_step(model, candidate.recipe, engine=engine, optimizer=optimizer)
for number in range(2):
    print("step", flush=True)
    step(torch.zeros(2, 3, 8, 8), torch.zeros(2, dtype=torch.long), 1e-3)
"""
FREE = """
import torch
from tests.training.peak_memory import private_bytes
from tuner.training.unused_memory import give_back_freed_memory, keep_freed_memory

for keep in (True, False):
    assert keep_freed_memory(keep)
    give_back_freed_memory()
    block = torch.ones(16 * 2**20)  # 64 MiB, more than glibc keeps by itself
    held, _ = private_bytes()
    del block
    print(held - private_bytes()[0])
"""
MULTIPLY = """
import torch
from tuner.training.engine import Engine
from tuner.training.process_settings import prepare_process
from tests.training.peak_memory import private_bytes

def multiply(size):
    torch.mm(torch.ones(32, 64, dtype=torch.bfloat16), torch.ones(64, size, dtype=torch.bfloat16))

prepare_process(Engine())
kept = []
for number in range(1, 401):
    multiply(8 * number)
    kept.append(private_bytes()[0])
print(kept[-1] - kept[100])
"""


def output_of(script: str, *arguments: str, environment: Mapping[str, str]) -> str:
    ours = {name: value for name, value in os.environ.items() if name not in KERNELS_KEPT}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**ours, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
    )
    return done.stdout


def kernels_asked_for(num_others: int, **environment: str) -> tuple[list[str], list[str]]:
    """Whether oneDNN has the kernels of so many convolutions, and then those of one that came before: hit or miss."""
    said = output_of(CONVOLVE, str(num_others), environment={"ONEDNN_VERBOSE": "profile_create", **environment})
    parts = said.partition("others\n")[2].split("again\n")
    others, again = ([line.split(",create:cache_")[1] for line in part.splitlines()] for part in parts)
    return [word[:3] for word in others], [word[:3] for word in again]


@pytest.mark.slow
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")
def test_onednn_forgets_kernels_of_earlier_networks_unless_the_user_has_it_keep_more() -> None:
    of_one, again = kernels_asked_for(1)
    assert "mis" in of_one
    assert set(again) == {"hit"}
    num_others = 900 // len(of_one)  # between the 768 that are kept and oneDNN's own 1,024
    assert set(kernels_asked_for(num_others)[1]) == {"mis"}
    assert set(kernels_asked_for(num_others, ONEDNN_PRIMITIVE_CACHE_CAPACITY="1024")[1]) == {"hit"}


@pytest.mark.slow
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch has no oneDNN here")
def test_a_step_of_the_deepest_network_finds_its_kernels_again() -> None:
    said = output_of(LEARN, environment={"ONEDNN_VERBOSE": "profile_create"})
    first, second = said.split("step\n")[1:]
    assert first.count("create:cache_miss") > 64
    assert second.count("create:cache_miss") == 0


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform != "linux" or not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no products of oneDNN in bf16"
)
def test_torch_forgets_products_of_earlier_networks() -> None:
    grown = int(output_of(MULTIPLY, environment={"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8"}))
    assert grown < 25 * MIB  # 300 products take about four times as much


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told what to keep")
def test_glibc_keeps_freed_blocks_of_any_size_while_it_is_told_to() -> None:
    back_while_kept, back = map(int, output_of(FREE, environment={}).split())
    assert back_while_kept < 5 * MIB
    assert back > 60 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told what to keep")
def test_what_glibc_was_told_to_keep_is_given_back_when_a_training_is_over() -> None:
    assert keep_freed_memory(True)
    try:
        tensors = [torch.ones(MIB // 4) for _ in range(100)]
        held, _ = private_bytes()
        del tensors[:-1]  # the last one is above the freed memory
        kept, _ = private_bytes()
        give_back_memory(Engine())
        left, _ = private_bytes()
    finally:
        keep_freed_memory(False)
    assert held - kept < 5 * MIB
    assert kept - left > 90 * MIB
