"""What a runner adds to the one shared copy of the images: its private memory at the peak of its first epoch."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from benchmarks.throughput import SubsetTrainer, choose_rows, networks
from tuner.architecture.cost import network_cost
from tuner.architecture.trace import trace
from tuner.data.dataset import DataSpec
from tuner.data.sources import load_development
from tuner.errors import RunnerError
from tuner.pipeline import input_spec_of
from tuner.search.runner import TrialTask
from tuner.space.schema import load_space
from tuner.training.candidate import Candidate
from tuner.training.engine import choose_device
from tuner.training.measure import load_or_measure

MIB = 2**20
SAMPLED_EVERY = 0.005
"""Seconds."""

Say = Callable[[str], None]


def measure(data_dir: Path, *, dataset: str, num_images: int, say: Say) -> dict[str, Any]:
    """Train each network of the throughput list for an epoch in a process of its own, and give what it added there.

    The process has imported torch and opened the images, and has not yet made a network: `base_mib` is its private
    memory then, and `mib` what comes on top, with what torch sets up once for its first network. `kept_mib` is what is
    still there when all of them have been trained one after another in one process, as a runner does.

    Raises TunerError for a data set that this cannot be measured with, and if a process dies.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        images = load_development(DataSpec(dataset, data_dir, work / "cache"))
        input_spec = input_spec_of(images)
        space = load_space(str(Path(__file__).with_name("throughput.toml")))
        measured = load_or_measure(choose_device("auto"), input_spec.shape, num_threads=1, cache_dir=work)
        engine = replace(measured.engine, num_threads=1)
        say(f"engine {engine}")
        chosen = choose_rows(len(images.labels_N), num_images)
        trainer = SubsetTrainer(images.folder, "memory", work / "checkpoints", 0, engine, rows=chosen)
        rows: list[dict[str, Any]] = []
        for candidate in networks(space, input_spec):
            base, added, _ = train_in_a_process(trainer, [candidate])
            allowed = network_cost(trace(candidate.architecture)).training_bytes(candidate.recipe.batch_size)
            rows.append(
                {
                    "network": str(candidate.architecture),
                    "base_mib": base / MIB,
                    "mib": added / MIB,
                    "estimate_mib": allowed / MIB,
                }
            )
            say(
                f"{base / MIB:5.0f} MiB before, {added / MIB:5.0f} on top, estimated {allowed / MIB:5.0f}: "
                f"{candidate.architecture}"
            )
        _, _, kept = train_in_a_process(trainer, networks(space, input_spec))
    return {
        "engine": engine.to_json(),
        "images_mib": images.images_NCHW.numel() / MIB,
        "networks": rows,
        "base_mib": max(row["base_mib"] for row in rows),
        "kept_mib": kept / MIB,
        "largest_mib": max(row["mib"] for row in rows),
        "largest_share_of_estimate": max(row["mib"] / row["estimate_mib"] for row in rows),
    }


def train_in_a_process(trainer: SubsetTrainer, candidates: Sequence[Candidate]) -> tuple[int, int, int]:
    """Private bytes before the first network, and what came on top of them: at the peak, and when all was over.

    Raises RunnerError if the process dies.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(sender, trainer, candidates))
    process.start()
    sender.close()
    try:
        measured: tuple[int, int, int] = receiver.recv()
    except EOFError:
        process.join()
        raise RunnerError(
            "networks must train for an epoch in a process of their own; that of "
            f"{'; '.join(str(candidate.architecture) for candidate in candidates)} ended with "
            f"exit code {process.exitcode}: what it printed is above; if that is nothing, it was killed"
        ) from None
    process.join()
    return measured


def _train(sender: Any, trainer: SubsetTrainer, candidates: Sequence[Candidate]) -> None:
    trainer._open(TrialTask(0, candidates[0], seed=0))
    before, most, is_over = _private_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_over.wait(SAMPLED_EVERY):
            most = max(most, _private_bytes() - before)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        for number, candidate in enumerate(candidates):
            for _ in trainer(TrialTask(number, candidate, seed=0)):
                pass
    finally:
        is_over.set()
        watching.join()
    sender.send((before, most, _private_bytes() - before))


def _private_bytes() -> int:
    """Without what is mapped from files and shared with other processes, where the system tells it apart."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))
