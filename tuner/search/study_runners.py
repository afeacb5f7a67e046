"""Prepare the runners of a study: the device of each, and a trainer for each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from tuner.architecture.cost import FLOAT_BYTES
from tuner.architecture.spec import InputSpec
from tuner.data.dataset import ImageDataset
from tuner.data.resident import Statistics
from tuner.data.splits import Split
from tuner.data.training_data import fits_in_memory, how_it_is_held, measure_statistics, memory_for_images
from tuner.hardware import GPU_CONTEXT_BYTES, memory_bytes, num_cores
from tuner.search.backbone_data import DecodedFolders
from tuner.search.devices import MeasuredDevices, engine_notes, measure_devices, share_out, study_engine, study_engines
from tuner.search.image_trainer import ImageTrainer
from tuner.search.record import StudyRecord
from tuner.search.turns import PROGRESS_SECONDS
from tuner.training.engine import Engine, tail_engine
from tuner.training.engine_option import NOTHING_FORCED, Forced
from tuner.training.loop import EVALUATION_LAYER_GPU

MEMORY_SHARE = 0.5
"""Share of the device's memory that all runners together may use for training."""

SCORING_BYTES_GPU = 3 * FLOAT_BYTES * EVALUATION_LAYER_GPU
"""Memory for scoring on a GPU, where more images are scored at once than the estimate of a trial counts.

It covers the input and output of a layer, and the indices of max pooling.
"""


@dataclass(frozen=True)
class RunnerPlaces:
    """The device of each runner, with the measurements of the devices.

    image_bytes: memory limit for the images of each runner.
    """

    measured: MeasuredDevices
    devices: tuple[torch.device, ...]
    image_bytes: int

    @property
    def engine(self) -> Engine:
        """The engine of a new study: the measurement of the first device, with the cores shared among runners."""
        first, num_runners = self.measured.first, len(self.devices)
        num_threads = first.runners.num_threads if num_runners == 1 else max(1, num_cores() // num_runners)
        return replace(first.engine, num_threads=num_threads)


@dataclass(frozen=True)
class StudyRunners:
    """The trainers of a study, one for each runner, and how they were made. `held` says how images are held.

    num_images: of the development part. is_validation_fixed: whether the data set has its own validation part.
    device: the device of the first runner. step_bytes: memory limit of a runner for training. together_bytes: the same
    for seeds that train together; 0 if an engine trains them separately, or if each would stream its own images.
    notes: lines for a log on the engines.
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
    notes: tuple[str, ...]


def input_spec_of(dataset: ImageDataset) -> InputSpec:
    """Return the input shape and the number of classes of networks for a data set."""
    _, channels, height, width = dataset.images_NCHW.shape
    return InputSpec(channels, height, width, len(dataset.class_names))


def place_runners(
    devices: Sequence[torch.device], dataset: ImageDataset, *, workers: int | None, forced: Forced = NOTHING_FORCED
) -> RunnerPlaces:
    """Measure the devices for a data set, if that was not done before, and distribute the runners over them.

    workers: number of runners; None for as many as the devices can have. Raises DeviceError as measure_devices does.
    """
    measured = measure_devices(devices, input_spec_of(dataset).shape, workers=workers, forced=forced)
    places = share_out(measured, workers=workers)
    return RunnerPlaces(measured, places, memory_for_runners(places))


def memory_for_runners(places: Sequence[torch.device]) -> int:
    """Bytes that the images of each runner may take, equal for all; called only once, because free memory changes.

    places: the device of each runner. On a CPU the runners share one copy of the images; on a GPU each has its own.
    """
    return min(
        memory_for_images(device) // (1 if device.type == "cpu" else num_runners)
        for device, num_runners in Counter(places).items()
    )


def prepare_runners(
    record: StudyRecord,
    dataset: ImageDataset,
    split: Split,
    folder: Path,
    *,
    places: RunnerPlaces,
    decoded: DecodedFolders | None = None,
) -> StudyRunners:
    """Make trainers for a study's runners, which save checkpoints in `folder`; new engines are stored in the study.

    decoded: the images as pretrained backbones expect them; None for a space without any.

    The memory limit of a training step is that of the runner with the least memory, since any runner may get a trial.
    """
    engines, image_bytes, devices = study_engines(record, places.measured), places.image_bytes, places.devices
    num_threads = min(record.engine.num_threads, max(1, num_cores() // len(devices)))  # it may have begun with fewer
    statistics = measure_statistics(dataset, split, memory_bytes=image_bytes)
    trainers = [
        _trainer(
            record,
            dataset,
            folder,
            engine=replace(engines[device], num_threads=num_threads),
            image_bytes=image_bytes,
            statistics=statistics,
            decoded=decoded,
        )
        for device in devices
    ]
    step_bytes = min(_step_bytes(device, num_runners) for device, num_runners in Counter(devices).items())
    # Groups make the train parts of fresh splits unequal, and seeds that train together take equally many steps.
    is_together = (
        decoded is None
        and dataset.groups_N is None
        and all(
            engines[device].seeds_together and fits_in_memory(dataset, image_bytes, device=device) for device in devices
        )
    )
    return StudyRunners(
        trainers,
        folder,
        num_validation=len(split.validation_indices_N),
        num_images=len(dataset.labels_N),
        is_validation_fixed=dataset.validation_indices_N is not None,
        device=devices[0],
        image_bytes=image_bytes,
        step_bytes=step_bytes,
        together_bytes=step_bytes if is_together else 0.0,
        held=how_it_is_held(dataset, device=torch.device(record.engine.device), memory_bytes=image_bytes),
        notes=(*engine_notes(engines, places.measured), *_notes_on_backbones(engines.values(), decoded)),
    )


def _notes_on_backbones(engines: Iterable[Engine], decoded: DecodedFolders | None) -> list[str]:
    """Say that the layers of other libraries are trained in another way than the engine has measured."""
    if decoded is None or all(tail_engine(engine) == engine for engine in engines):
        return []
    return ["pretrained networks are trained layer by layer, in fp32"]


def prepare_trainer(
    record: StudyRecord,
    dataset: ImageDataset,
    split: Split,
    folder: Path,
    *,
    device: torch.device,
    decoded: DecodedFolders | None = None,
) -> ImageTrainer:
    """Make a trainer for training a single trial of a study on one device; nothing is written to the study."""
    image_bytes = memory_for_images(device)
    return _trainer(
        record,
        dataset,
        folder,
        engine=study_engine(record, device, input_spec_of(dataset).shape),
        image_bytes=image_bytes,
        statistics=measure_statistics(dataset, split, memory_bytes=image_bytes),
        decoded=decoded,
    )


def _trainer(
    record: StudyRecord,
    dataset: ImageDataset,
    folder: Path,
    *,
    engine: Engine,
    image_bytes: int,
    statistics: Statistics,
    decoded: DecodedFolders | None,
) -> ImageTrainer:
    return ImageTrainer(
        dataset.folder,
        study=record.name,
        study_folder=folder,
        split_seed=record.settings.seed,
        engine=engine,
        image_bytes=image_bytes,
        statistics=statistics,
        reading=dataset.reading,
        resizing=dataset.resizing,
        decoded=decoded,
        progress_seconds=PROGRESS_SECONDS,
    )


def _step_bytes(device: torch.device, num_runners: int) -> float:
    """Memory for training on each of `num_runners` runners that share a device, in bytes."""
    beside = (GPU_CONTEXT_BYTES + SCORING_BYTES_GPU) * num_runners if device.type == "cuda" else 0
    return (memory_bytes(device) - beside) * MEMORY_SHARE / num_runners
