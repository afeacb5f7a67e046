"""Load the images of a study and find its device to train its trials again; raise an error if they have changed."""

from __future__ import annotations

from pathlib import Path

import torch

from tuner.data.dataset import DataSpec, ImageDataset, Report
from tuner.data.development_part import load_development
from tuner.data.reading import Reading
from tuner.errors import DeviceError, StudyError
from tuner.hardware import devices_for
from tuner.search.record import StudyRecord
from tuner.training.device import choose_device


def load_study_images(
    record: StudyRecord, *, studies: Path, report: Report | None = None
) -> tuple[DataSpec, ImageDataset]:
    """Load the source of a study's images and its development part.

    Raises StudyError if the images are not those of the study, and DataError if they are missing.
    """
    spec = record.data_spec(studies / ".cache")
    dataset = load_development(spec, report=report)
    refuse_other_images(record, spec, dataset)
    return spec, dataset


def refuse_other_images(record: StudyRecord, spec: DataSpec, dataset: ImageDataset) -> None:
    """Raise StudyError unless a development part is the study's own."""
    if not are_images_of(record, dataset):
        raise StudyError(
            f"the images of {spec.dataset} are not those that study {record.name!r} was run with: put the old ones back"
        )


def are_images_of(record: StudyRecord, dataset: ImageDataset) -> bool:
    """Whether a development part is a study's own, with the same image size and reading."""
    settings = record.settings
    own = (settings.dataset_digest, settings.image_size, Reading(settings.levels, settings.ground))
    return (dataset.digest, dataset.image_size, dataset.reading) == own


def device_of(record: StudyRecord) -> torch.device:
    """Return the device that a study's trials are trained on. Raises DeviceError if it does not exist here."""
    try:
        return choose_device(record.engine.device)
    except DeviceError as error:
        raise DeviceError(
            f"study {record.name!r} trains on {record.engine.device}, as its search did, "
            "and torch finds no such device here"
        ) from error


def devices_of_run(name: str, earlier: StudyRecord | None) -> tuple[torch.device, tuple[torch.device, ...]]:
    """Return the device that a run trains on, and the devices of its runners.

    earlier: the study that it resumes, whose device is taken for `auto`.
    """
    if earlier is not None and name == "auto":
        device = device_of(earlier)
        return device, devices_for(device, is_auto=False)
    device = choose_device(name)
    return device, devices_for(device, is_auto=name == "auto")


def refuse_other_device(record: StudyRecord, device: torch.device) -> None:
    """Raise DeviceError if a study would resume on a device of another type than before."""
    begun = torch.device(record.engine.device).type
    if begun != device.type:
        raise DeviceError(
            f"study {record.name!r} was started on {begun}, and this run would train on {device.type}: "
            f"give --device {begun} if there is one, or start another study with --study NAME"
        )
