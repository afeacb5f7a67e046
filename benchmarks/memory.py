"""What a runner adds to the one shared copy of the images: its private memory at the peak of its first epoch."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.peak import train_watched
from benchmarks.put_off import interrupts_put_off
from benchmarks.subset import SubsetTrainer, choose_rows
from benchmarks.throughput import load_list, networks
from tuner.architecture.any_architecture import cost_of
from tuner.data.dataset import DataSpec
from tuner.data.development_part import load_development
from tuner.errors import RunnerError
from tuner.search.processes import import_ahead, start
from tuner.search.study_runners import input_spec_of
from tuner.training.candidate import Candidate
from tuner.training.device import choose_device
from tuner.training.engine_measurement import load_or_measure

MIB = 2**20
Say = Callable[[str], None]


def measure(data_dir: Path, *, dataset: str, num_images: int, say: Say) -> dict[str, Any]:
    """Train each network of the throughput list for an epoch in a process of its own, and give what it added there.

    The process is made as a runner's is, and has opened the images and trained a network of one channel, for which
    torch sets itself up: `base_mib` is what it shares with no other process then, and `mib` what comes on top.
    `kept_mib` is what is still there when all of them have been trained one after another in one process.

    Raises TunerError for a data set that this cannot be measured with, and if a process dies.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        images = load_development(DataSpec(dataset, data_dir, work / "cache"))
        input_spec = input_spec_of(images)
        space = load_list("plain")
        measured = load_or_measure(choose_device("auto"), input_spec.shape, num_threads=1, cache_dir=work)
        engine = replace(measured.engine, num_threads=1)
        say(f"engine {engine}")
        chosen = choose_rows(len(images.labels_N), num_images)
        trainer = SubsetTrainer(images.folder, "memory", work / "checkpoints", 0, engine, rows=chosen)
        rows: list[dict[str, Any]] = []
        for candidate in networks(space, input_spec):
            base, added, _ = train_in_a_process(trainer, [candidate])
            allowed = cost_of(candidate.architecture).training_bytes(candidate.recipe.batch_size)
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
    """Bytes of its own before these networks, and what came on top of them: at the peak, and when all was over.

    Raises RunnerError if the process dies.
    """
    import_ahead()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with ExitStack() as started:
        with interrupts_put_off():
            process = start(train_watched, sender, trainer, candidates, name="memory")
            started.callback(process.join)
            started.callback(process.kill)  # first: it has said all, or, if this one was interrupted, would train on
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
        return measured
