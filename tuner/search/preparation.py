"""What a study trains with: the engine of this machine, and a trainer for every runner."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import ceil
from pathlib import Path

import torch

from tuner.architecture.shapes import Shape
from tuner.data.dataset import ImageDataset
from tuner.data.opening import fits_in_memory, how_it_is_held, measure_statistics, memory_for_images
from tuner.data.splits import Split
from tuner.hardware import memory_bytes, num_cores
from tuner.search.processes import run_aside
from tuner.search.record import StudyRecord
from tuner.search.runner import ImageTrainer
from tuner.training.engine import choose_device
from tuner.training.measure import Measurement, call, load_or_measure, machine_cache_dir

MEMORY_SHARE = 0.5
"""Of the device's memory, that all runners together may take for their training steps."""


def measure_for(device: torch.device, shape: Shape, *, workers: int | None) -> Measurement:
    """The engine for this machine; measured, if it must be, where the processes that will train come from."""
    run = call if workers == 1 else run_aside
    return load_or_measure(device, shape, num_threads=1, cache_dir=machine_cache_dir(), run=run)


@dataclass(frozen=True)
class StudyRunners:
    """The trainers of a study, one for each runner, and what they were made from. `held` says how images are held.

    step_bytes: what the training step of a runner may take. together_bytes: that of seeds that train together, 0 where
    the engine has them apart, or where each would stream images of its own.
    """

    trainers: list[ImageTrainer]
    folder: Path
    num_validation: int
    device: torch.device
    image_bytes: int
    step_bytes: float
    together_bytes: float
    held: str


def runners_for(
    record: StudyRecord,
    dataset: ImageDataset,
    split: Split,
    folder: Path,
    *,
    devices: tuple[torch.device, ...],
    num_runners: int,
) -> StudyRunners:
    """Trainers for so many runners of a study, whose checkpoints go to `folder`, shared out among the devices."""
    num_threads = max(1, num_cores() // num_runners)  # the study may have begun with fewer runners
    engine = replace(record.engine, num_threads=min(record.engine.num_threads, num_threads))
    device = choose_device(engine.device)
    # On a CPU the runners share one copy of the images; on a GPU each has its own.
    num_copies = 1 if device.type == "cpu" else ceil(num_runners / len(devices))
    image_bytes = min(map(memory_for_images, devices)) // num_copies
    statistics = measure_statistics(dataset, split, memory_bytes=image_bytes)
    trainers = [
        ImageTrainer(
            dataset.folder,
            study=record.name,
            study_folder=folder,
            split_seed=record.settings["seed"],
            engine=replace(engine, device=str(one)),
            image_bytes=image_bytes,
            statistics=statistics,
        )
        for one in islice(cycle(devices), num_runners)
    ]
    held = how_it_is_held(dataset, device=device, memory_bytes=image_bytes)
    step_bytes = min(map(memory_bytes, devices)) * MEMORY_SHARE * len(devices) / num_runners
    is_together = engine.seeds_together and fits_in_memory(dataset, image_bytes)
    return StudyRunners(
        trainers,
        folder,
        num_validation=len(split.validation_indices_N),
        device=device,
        image_bytes=image_bytes,
        step_bytes=step_bytes,
        together_bytes=step_bytes if is_together else 0.0,
        held=held,
    )
