"""Search and confirm, from options to a finished study: what `run` does, as one function for the library's users."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from tuner.architecture.spec import InputSpec
from tuner.data.dataset import DataSpec, ImageDataset, Report
from tuner.data.opening import stream_limit
from tuner.data.sealed import FixedParts, SealedPart, fix_parts
from tuner.data.splits import Split, split_development
from tuner.deliver.confirm import TIME_SHARE, ConfirmEvent, ConfirmPlan, confirm, search_seconds
from tuner.deliver.contenders import Splits
from tuner.deliver.sealed_set import fix_test_set, open_test_set, refuse_other_test_set
from tuner.errors import DeviceError
from tuner.hardware import devices_for, num_cores
from tuner.option_rules import check_options
from tuner.search.binding import claim_folder, refuse_other_studys_folder
from tuner.search.coordinator import SearchPlan, search
from tuner.search.devices import engine_notes, measure_devices, share_out, study_engines
from tuner.search.events import SearchEvent
from tuner.search.executors import Executor, local_executor
from tuner.search.locks import hold, hold_record
from tuner.search.memory import check_batch_sizes
from tuner.search.preparation import StudyRunners, memory_for_runners, runners_for
from tuner.search.processes import end_if_unguarded, import_ahead
from tuner.search.record import StudyRecord, TrialRecord, find_study, load_study, open_study
from tuner.search.storage import Storage, open_storage
from tuner.search.study_data import device_of, refuse_other_images
from tuner.search.study_location import (
    check_study_name,
    default_study_name,
    existing_storage,
    make_studies_folder,
    storage_url,
)
from tuner.search.summary import StudySummary, best_trial, summarise
from tuner.space.schema import load_space
from tuner.training.device import choose_device
from tuner.training.engine import Engine
from tuner.training.forced import parse_forced
from tuner.training.host import generates_with_own_settings

SMALL_SET = 10_000
EPOCHS_SMALL, EPOCHS_LARGE = 20, 5
"""Epochs of a trial when none are asked for: on training parts below SMALL_SET images, and on others."""


@dataclass(frozen=True)
class RunOptions:
    """What `tuner run` takes. `None` leaves the choice to the tuner; `storage` is an Optuna URL.

    engine: choices that are forced, as `CHOICE=VALUE,...`; `tuner doctor` lists them. `auto` forces none.
    budget_seconds: of the whole run; with a confirmation, the search gets two thirds of it. confirm: train the best
    again and score the winner on the test set: in time (what is left of the budget, or else a third of the run's time),
    in full, or not at all.
    `run` and `run_events` raise OptionError for a value that an option cannot have.
    """

    dataset: str = "digits"
    data_dir: Path = Path("data")
    image_size: tuple[int, int] | None = None
    download: bool = True
    space: str = "cnn"
    study: str | None = None
    studies: Path = Path("studies")
    storage: str | None = field(default=None, repr=False)
    trials: int = 50
    epochs: int | None = None
    seed: int = 0
    device: str = "auto"
    engine: str = "auto"
    workers: int | None = None
    budget_seconds: float = float("inf")
    confirm: Literal["in time", "in full", "no"] = "in time"

    @property
    def data_spec(self) -> DataSpec:
        """Where the images come from."""
        cache_dir = self.studies / ".cache"
        return DataSpec(self.dataset, self.data_dir, cache_dir, image_size=self.image_size, download=self.download)


@dataclass(frozen=True)
class DataReady:
    """The images are there. `shape` is (C, H, W); `held` says how, in memory or streamed, and how much they are."""

    study: str
    dataset: str
    shape: tuple[int, ...]
    num_classes: int
    num_train: int
    num_validation: int
    device: str
    held: str
    notes: tuple[str, ...]


RunEvent = DataReady | SearchEvent | ConfirmEvent


@generates_with_own_settings
def run_events(options: RunOptions, *, report: Report | None = None) -> Generator[RunEvent]:
    """Run or top up a study and confirm its winner, an event at a time; a closed iterator leaves it to be resumed.

    `report` hears of downloads and decoding. With one runner on a CPU the training is done in this process, with
    settings of torch that are not the caller's; the caller's are back whenever an event is yielded.
    Raises TunerError for whatever the user can fix.
    """
    started = time.monotonic()
    end_if_unguarded()
    check_options(options)
    if options.workers != 1:
        import_ahead()
    space = load_space(options.space)
    make_studies_folder(options.studies)
    url = storage_url(options.studies, options.storage)
    device = choose_device(options.device)
    forced = parse_forced(options.engine, device)
    parts = fix_parts(options.data_spec, report=report)
    dataset = parts.development
    split = split_development(dataset, seed=options.seed)
    name = options.study or default_study_name(options.dataset, options.space)
    check_study_name(name)
    input_spec = input_spec_of(dataset)
    epochs = options.epochs or _default_epochs(split)
    settings = {
        "dataset": dataset.name,
        "dataset_digest": dataset.digest,
        "space_name": space.name,
        "space": space.model_dump(mode="json", exclude_none=True, exclude={"name", "description"}),
        "seed": options.seed,
        "epochs": epochs,
    }
    folder = options.studies / name
    storage = open_storage(url)
    with _only_writer(options, storage, name, settings, parts.test):
        devices = devices_for(device, is_auto=options.device == "auto")
        measured = measure_devices(devices, input_spec.shape, workers=options.workers, forced=forced)
        places = share_out(measured, workers=options.workers)
        num_threads = measured.first.runners.num_threads if len(places) == 1 else max(1, num_cores() // len(places))
        engine = replace(measured.first.engine, device=str(device), num_threads=num_threads)
        image_bytes = memory_for_runners(places)
        stream = stream_limit(dataset, device=device, memory_bytes=image_bytes)
        check_batch_sizes(space, stream)  # before there is a study, for the next run may begin it in another way
        record = open_study(storage, name, settings, engine=engine, data=options.data_spec)
        claim_folder(folder, record)
        fix_test_set(record, parts.test)
        _refuse_other_device(record, device)
        engines = study_engines(record, measured, forced=forced)
        record.save_data_spec(options.data_spec)
        runners = runners_for(record, dataset, split, folder, places=places, engines=engines, image_bytes=image_bytes)
        yield _data_ready(name, dataset, split, record.engine, runners.held, *engine_notes(engines, measured))
        plan = SearchPlan(
            space=space,
            input_spec=input_spec,
            epochs=epochs,
            num_trials=options.trials,
            seed=options.seed,
            study_folder=folder,
            memory_bytes=runners.step_bytes,
            stream=stream,
            budget_seconds=max(0.0, started + options.budget_seconds - time.monotonic())
            * (1 if options.confirm == "no" else 1 - TIME_SHARE),
            class_names=dataset.class_names,
        )
        with local_executor(runners.trainers, apart=runners.device.type == "cuda") as executor:
            with closing(search(record, plan, executor)) as events:
                yield from events
            trials = record.trials()
            in_full = options.confirm == "in full"
            if options.confirm != "no" and _wants_confirmation(record, trials, in_full=in_full):
                confirm_plan = ConfirmPlan()
                if not in_full:
                    seconds_left = started + options.budget_seconds - time.monotonic()
                    confirm_plan = limit_to_time(confirm_plan, record, len(places), seconds_left=seconds_left)
                yield from _confirm(record, confirm_plan, executor, runners, parts)


@generates_with_own_settings
def confirm_events(
    studies: Path,
    name: str | None,
    *,
    plan: ConfirmPlan,
    in_time: bool = False,
    storage: str | None = None,
    workers: int | None = None,
) -> Generator[RunEvent]:
    """Confirm the winner of a study that was run before, an event at a time, on the device of its search.

    in_time: it takes at most a third of the whole run's time, as at the end of `run`, whatever the plan's own seconds.
    Nothing of it is kept before its end: one that is interrupted restarts from scratch.

    Raises TunerError for whatever the user can fix, such as images that are gone or have changed.
    """
    end_if_unguarded()
    record = load_study(existing_storage(studies, storage), name)
    folder = studies / record.name
    with hold_record(record.storage.url, record.name), hold(folder, record.name):
        claim_folder(folder, record)
        spec = record.data_spec(studies / ".cache")
        parts = fix_parts(spec)
        dataset = parts.development
        refuse_other_images(record, spec, dataset)
        fix_test_set(record, parts.test)
        split = split_development(dataset, seed=record.settings["seed"])
        device = device_of(record)
        devices = devices_for(device, is_auto=False)
        measured = measure_devices(devices, input_spec_of(dataset).shape, workers=workers)
        places = share_out(measured, workers=workers)
        engines = study_engines(record, measured)
        image_bytes = memory_for_runners(places)
        runners = runners_for(record, dataset, split, folder, places=places, engines=engines, image_bytes=image_bytes)
        yield _data_ready(record.name, dataset, split, record.engine, runners.held, *measured.notes)
        if in_time:
            plan = limit_to_time(plan, record, len(places))
        with local_executor(runners.trainers, apart=runners.device.type == "cuda") as executor:
            yield from _confirm(record, plan, executor, runners, parts)


def limit_to_time(
    plan: ConfirmPlan, record: StudyRecord, num_runners: int, *, seconds_left: float = float("inf")
) -> ConfirmPlan:
    """The plan in what is left of the run's budget; without one, in a third of its whole time, on so many runners."""
    if seconds_left < float("inf"):
        return replace(plan, seconds=max(0.0, seconds_left), within="what is left of the budget")
    return replace(plan, seconds=search_seconds(record.trials(), num_runners) * TIME_SHARE / (1 - TIME_SHARE))


def _confirm(
    record: StudyRecord, plan: ConfirmPlan, executor: Executor, runners: StudyRunners, parts: FixedParts
) -> Generator[ConfirmEvent]:
    events = confirm(
        record,
        plan,
        executor,
        folder=runners.folder,
        seed=record.settings["seed"],
        epochs=record.settings["epochs"],
        splits=Splits(runners.num_validation, runners.num_images, runners.is_validation_fixed),
        load_test_set=lambda: open_test_set(record, parts.test),
        development=parts.development,
        device=runners.device,
        memory_bytes=runners.image_bytes,
        together_bytes=runners.together_bytes,
    )
    with closing(events):
        yield from events


def _wants_confirmation(record: StudyRecord, trials: list[TrialRecord], *, in_full: bool) -> bool:
    """Whether there is a winner, and no confirmation yet that knew all these trials and was as thorough."""
    if best_trial(trials) is None:
        return False
    confirmed = record.confirmed
    if confirmed is None or confirmed["num_trials"] != sum(trial.counts for trial in trials):
        return True
    return in_full and not confirmed.get("is_full", False)


@contextmanager
def _only_writer(
    options: RunOptions, storage: Storage, name: str, settings: dict[str, Any], sealed: SealedPart
) -> Iterator[None]:
    """Hold a study, its record and its folder, once it is sure that both are this study's."""
    folder = options.studies / name
    with hold_record(storage.url, name):
        known = find_study(storage, name, settings, data=options.data_spec)
        if known is not None:
            refuse_other_test_set(known, sealed)
        refuse_other_studys_folder(folder, known, name)  # before the lock, which would be a new file in that folder
        with hold(folder, name):
            refuse_other_studys_folder(folder, known, name)
            yield


def run(options: RunOptions) -> StudySummary:
    """Run or top up a study to its end, confirmation included, and say what it has come to."""
    for _ in run_events(options):
        pass
    return load_summary(options)


def load_summary(options: RunOptions) -> StudySummary:
    """What the study of these options has come to. Raises StudyError when there is none."""
    storage = existing_storage(options.studies, options.storage)
    return summarise(
        load_study(storage, options.study or default_study_name(options.dataset, options.space)),
        studies=options.studies,
    )


def _refuse_other_device(record: StudyRecord, device: torch.device) -> None:
    """Raise DeviceError where a study would resume on another kind of device than the one it was measured for."""
    begun = torch.device(record.engine.device).type
    if begun != device.type:
        raise DeviceError(
            f"study {record.name!r} trains on {begun}, as it began, and this run would on {device.type}: "
            f"give --device {begun} where there is one, or start another study with --study NAME"
        )


def _data_ready(study: str, dataset: ImageDataset, split: Split, engine: Engine, held: str, *notes: str) -> DataReady:
    return DataReady(
        study=study,
        dataset=dataset.name,
        shape=tuple(dataset.images_NCHW.shape[1:]),
        num_classes=len(dataset.class_names),
        num_train=len(split.train_indices_N),
        num_validation=len(split.validation_indices_N),
        device=engine.device,
        held=held,
        notes=(*dataset.notes, *dataset.repairs, *notes),
    )


def input_spec_of(dataset: ImageDataset) -> InputSpec:
    """What networks for a data set take and give."""
    _, channels, height, width = dataset.images_NCHW.shape
    return InputSpec(channels, height, width, len(dataset.class_names))


def _default_epochs(split: Split) -> int:
    return EPOCHS_SMALL if len(split.train_indices_N) < SMALL_SET else EPOCHS_LARGE
