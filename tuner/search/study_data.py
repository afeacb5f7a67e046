"""What the trials of a study are trained on again: its images and its device as they were, or a refusal."""

from __future__ import annotations

from pathlib import Path

import torch

from tuner.data.dataset import DataSpec, ImageDataset, Report
from tuner.data.development_part import load_development
from tuner.errors import DeviceError, StudyError
from tuner.search.record import StudyRecord
from tuner.training.device import choose_device


def load_study_images(
    record: StudyRecord, *, studies: Path, report: Report | None = None
) -> tuple[DataSpec, ImageDataset]:
    """Where the images of a study come from, and its development part.

    Raises StudyError when they are not those that it was run with, DataError when they are gone.
    """
    spec = record.data_spec(studies / ".cache")
    dataset = load_development(spec, report=report)
    refuse_other_images(record, spec, dataset)
    return spec, dataset


def refuse_other_images(record: StudyRecord, spec: DataSpec, dataset: ImageDataset) -> None:
    """Raise StudyError unless a development part is the one that the study was run with."""
    if not are_images_of(record, dataset):
        raise StudyError(
            f"the images of {spec.dataset} are not those that study {record.name!r} was run with: put the old ones back"
        )


def are_images_of(record: StudyRecord, dataset: ImageDataset) -> bool:
    """Whether a development part is the one that a study was run with, at the same image size."""
    settings = record.settings
    return (dataset.digest, dataset.image_size) == (settings.dataset_digest, settings.image_size)


def device_of(record: StudyRecord) -> torch.device:
    """The device that a study's trials are trained on. Raises DeviceError when it is not here."""
    try:
        return choose_device(record.engine.device)
    except DeviceError as error:
        raise DeviceError(
            f"study {record.name!r} trains on {record.engine.device}, as its search did, "
            "and torch finds no such device here"
        ) from error


def refuse_other_device(record: StudyRecord, device: torch.device) -> None:
    """Raise DeviceError where a study would resume on another kind of device than the one it was measured for."""
    begun = torch.device(record.engine.device).type
    if begun != device.type:
        raise DeviceError(
            f"study {record.name!r} trains on {begun}, as it began, and this run would on {device.type}: "
            f"give --device {begun} where there is one, or start another study with --study NAME"
        )
