"""The devices of a search: the fastest engine for each, and how runners are distributed among them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from tuner.architecture.shapes import Shape
from tuner.errors import DeviceError, StudyError, UnfitDevice
from tuner.hardware import device_kind, num_cores
from tuner.search.processes import run_apart, run_aside
from tuner.search.record import StudyRecord
from tuner.training.engine import Engine
from tuner.training.engine_choices import Measurement
from tuner.training.engine_measurement import call, load_or_measure, measure_with_retries
from tuner.training.engine_option import NOTHING_FORCED, Forced, force
from tuner.training.measurement_cache import machine_cache_dir

ENGINES = "tuner:engines"
"""Study attribute: the engine for each kind of GPU, by `device_kind`."""
NUM_THREADS = 1
"""Threads of a runner when engines are timed."""


@dataclass(frozen=True)
class MeasuredDevices:
    """Measurements of all devices, in order. left_out: one line for each device that is not used, with the reason."""

    by_device: Mapping[torch.device, Measurement]
    left_out: tuple[str, ...] = ()

    @property
    def first(self) -> Measurement:
        """The measurement of the device that identifies the study."""
        return next(iter(self.by_device.values()))

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for a log: devices that are not used, and measurements that cannot be cached."""
        not_kept = {one.not_kept: None for one in self.by_device.values() if one.not_kept}
        return (*self.left_out, *not_kept)


def measure_devices(
    devices: Sequence[torch.device], shape: Shape, *, workers: int | None, forced: Forced = NOTHING_FORCED
) -> MeasuredDevices:
    """Return the engine for each device, measured if necessary; GPUs of one kind share the first one's measurement.

    GPUs that cannot compute a training step are skipped if there are others. Raises DeviceError if none can, or if a
    forced choice gives other results than plain PyTorch.
    """
    measured: dict[torch.device, Measurement] = {}
    errors: list[UnfitDevice] = []
    for device in devices:
        try:
            measured[device] = _measure(device, shape, workers=workers, forced=forced)
        except UnfitDevice as error:
            errors.append(error)
    if not measured:
        raise DeviceError(f"{errors[0]}; give another --device") from errors[0]
    return MeasuredDevices(measured, tuple(f"not used: {error}" for error in errors))


def measure_again(device: torch.device, shape: Shape) -> Measurement:
    """Measure a device again, ignoring the cache. Raises UnfitDevice."""
    return measure_with_retries(device, shape, num_threads=NUM_THREADS, run=_where(device, workers=1))


def share_out(measured: MeasuredDevices, *, workers: int | None) -> tuple[torch.device, ...]:
    """Return the device of each runner, alternating between devices: as many as fit, or `workers` in total.

    Without `workers`, there is at least one runner for each device, and otherwise no more runners than cores, because
    each runner keeps one core busy.
    """
    counts = {device: one.runners.count for device, one in measured.by_device.items()}
    if workers is not None:
        each, more = divmod(workers, len(counts))
        counts = {device: each + (number < more) for number, device in enumerate(counts)}
    turns = range(max(counts.values()))
    places = tuple(device for turn in turns for device, count in counts.items() if turn < count)
    return places[: max(len(counts), num_cores())] if workers is None else places


def refuse_other_engine(record: StudyRecord, devices: Sequence[torch.device], *, forced: Forced) -> None:
    """Raise StudyError if a study's engine differs from the forced choices; this measures nothing."""
    if not forced.values:
        return
    known = stored_engines(record)
    engines = [known.get(device_kind(device)) if device.type == "cuda" else record.engine for device in devices]
    if any(engine is not None and forced.differs_from(engine) for engine in engines):
        raise StudyError(
            f"study {record.name!r} was started with another engine than --engine {forced}, and all its trials must "
            "use the same one: omit the option, or start another study with --study NAME"
        )


def study_engines(record: StudyRecord, measured: MeasuredDevices) -> dict[torch.device, Engine]:
    """Return the engine of a study for each device.

    On a GPU, this is the study's engine for GPUs of that kind. For a kind that is new to the study, the measured engine
    is used and stored. On a CPU, it is always the study's own engine.
    """
    first, known = record.engine, stored_engines(record)
    engines: dict[torch.device, Engine] = {}
    new: dict[str, Engine] = {}
    for device, one in measured.by_device.items():
        engine = first
        if device.type == "cuda":
            engine = known.get(one.kind) or new.setdefault(one.kind, one.engine)
        engines[device] = replace(engine, device=str(device), num_threads=first.num_threads)
    if new:
        stored = {kind: engine.to_json() for kind, engine in (known | new).items()}
        record.storage.set_study_user_attr(record.study_id, ENGINES, stored)
    return engines


def stored_engines(record: StudyRecord) -> dict[str, Engine]:
    """Return the engines of a study for the GPUs on which it was run, by their kind. Raises StudyError."""
    with record.readable("how it trains"):
        stored = record.storage.get_study_user_attrs(record.study_id).get(ENGINES, {})
        return {kind: Engine.from_json(engine) for kind, engine in stored.items()}


def study_engine(record: StudyRecord, device: torch.device, shape: Shape) -> Engine:
    """Return the engine of a study for one device, without writing to the study."""
    engine = record.engine
    if device.type == "cuda":
        known = stored_engines(record).get(device_kind(device))
        engine = known or measure_devices([device], shape, workers=None).first.engine
    return replace(engine, device=str(device), num_threads=record.engine.num_threads)


def engine_notes(engines: Mapping[torch.device, Engine], measured: MeasuredDevices) -> tuple[str, ...]:
    """Lines for a log: the engine of each kind of device, then the notes."""
    kinds = {one.kind: (engines[device], one) for device, one in measured.by_device.items()}
    lines = []
    for kind, (engine, one) in kinds.items():
        is_as_measured = replace(engine, device=one.engine.device, num_threads=one.engine.num_threads) == one.engine
        how = str(one) if is_as_measured else "engine: as stored in the study"
        lines.append(f"{kind}: {how}" if len(kinds) > 1 else how)
    return (*lines, *measured.notes)


def _measure(device: torch.device, shape: Shape, *, workers: int | None, forced: Forced) -> Measurement:
    run = _where(device, workers=workers)
    measured = load_or_measure(device, shape, num_threads=NUM_THREADS, cache_dir=machine_cache_dir(), run=run)
    return run(partial(force, measured, forced)) if forced.values else measured


def _where(device: torch.device, *, workers: int | None) -> Callable[[Callable[[], Measurement]], Measurement]:
    """Return a function that runs a measurement where the runners will train: a GPU is never measured in this process.

    An error during the measurement may leave a process unable to use its GPU.
    """
    if device.type == "cuda":
        return run_apart
    return call if workers == 1 else run_aside
