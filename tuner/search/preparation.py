"""What a study trains with: the engine of this machine, and a trainer for every runner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tuner.architecture.cost import FLOAT_BYTES
from tuner.data.dataset import ImageDataset
from tuner.data.opening import fits_in_memory, how_it_is_held, measure_statistics, memory_for_images
from tuner.data.splits import Split
from tuner.hardware import GPU_CONTEXT_BYTES, memory_bytes, num_cores
from tuner.search.record import StudyRecord
from tuner.search.runner import ImageTrainer
from tuner.training.engine import Engine
from tuner.training.loop import EVALUATION_LAYER_GPU

MEMORY_SHARE = 0.5
"""Share of the device's memory that all runners together may take for training."""

SCORING_BYTES_GPU = 3 * FLOAT_BYTES * EVALUATION_LAYER_GPU
"""What scoring takes on a GPU, where more images are scored at once than a trial's estimate counts: what enters and
leaves a layer, and the places of its maxima."""


@dataclass(frozen=True)
class StudyRunners:
    """The trainers of a study, one for each runner, and what they were made from. `held` says how images are held.

    num_images: of the development part. is_validation_fixed: whether the data set brings its own validation part.
    device: of the first runner. step_bytes: what the training of a runner may take. together_bytes: that of seeds
    that train together, 0 where an engine has them apart, or where each would stream images of its own.
    """

    trainers: list[ImageTrainer]
    folder: Path
    num_validation: int
    num_images: int
    is_validation_fixed: bool
    device: torch.device
    image_bytes: int
    step_bytes: float
    together_bytes: float
    held: str


def memory_for_runners(places: Sequence[torch.device]) -> int:
    """Bytes that the images of each runner may take, the same for all; what is free changes, so it is asked for once.

    places: the device of each. On a CPU they share one copy of the images; on a GPU each has its own.
    """
    return min(
        memory_for_images(device) // (1 if device.type == "cpu" else num_runners)
        for device, num_runners in Counter(places).items()
    )


def runners_for(
    record: StudyRecord,
    dataset: ImageDataset,
    split: Split,
    folder: Path,
    *,
    places: Sequence[torch.device],
    engines: Mapping[torch.device, Engine],
    image_bytes: int,
) -> StudyRunners:
    """Trainers for the runners of a study, whose checkpoints go to `folder`.

    places: the device of each runner. engines: of each device. image_bytes: what memory_for_runners gives. A training
    step may take what the runner with the least memory bears, for a trial may come to any of them.
    """
    num_threads = min(record.engine.num_threads, max(1, num_cores() // len(places)))  # it may have begun with fewer
    statistics = measure_statistics(dataset, split, memory_bytes=image_bytes)
    trainers = [
        ImageTrainer(
            dataset.folder,
            study=record.name,
            study_folder=folder,
            split_seed=record.settings.seed,
            engine=replace(engines[device], num_threads=num_threads),
            image_bytes=image_bytes,
            statistics=statistics,
        )
        for device in places
    ]
    held = how_it_is_held(dataset, device=torch.device(record.engine.device), memory_bytes=image_bytes)
    step_bytes = min(_step_bytes(device, num_runners) for device, num_runners in Counter(places).items())
    is_together = all(
        engines[device].seeds_together and fits_in_memory(dataset, image_bytes, device=device) for device in places
    )
    return StudyRunners(
        trainers,
        folder,
        num_validation=len(split.validation_indices_N),
        num_images=len(dataset.labels_N),
        is_validation_fixed=dataset.validation_indices_N is not None,
        device=places[0],
        image_bytes=image_bytes,
        step_bytes=step_bytes,
        together_bytes=step_bytes if is_together else 0.0,
        held=held,
    )


def _step_bytes(device: torch.device, num_runners: int) -> float:
    """What the training of each runner may take, where so many share a device."""
    beside = (GPU_CONTEXT_BYTES + SCORING_BYTES_GPU) * num_runners if device.type == "cuda" else 0
    return (memory_bytes(device) - beside) * MEMORY_SHARE / num_runners
