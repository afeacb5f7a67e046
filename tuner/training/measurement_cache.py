"""Cache of the measurements of a machine, so that each is made only once: one file each in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
from math import isfinite
from pathlib import Path

import torch
from platformdirs import user_cache_dir

from tuner.architecture.shapes import Shape
from tuner.errors import DeviceError, reason_of
from tuner.hardware import cpu_flags, device_kind, num_cores
from tuner.training.engine import Engine
from tuner.training.engine_choices import CHOICES, Choice, ChoiceVerdict, Measurement, Runners
from tuner.training.family_networks import FAMILY_NETWORKS
from tuner.training.timing import measured_shape
from tuner.versions import package_versions

NEXT_TIME = "this machine will be measured again next time; set TUNER_CACHE_DIR to a folder that can be written"
"""Consequence of a measurement that cannot be cached, as the end of a message."""


def machine_cache_dir() -> Path | None:
    """Return the folder of the cached measurements of this machine: in the user's cache folder, or $TUNER_CACHE_DIR.

    All folders of studies share it. None for a user without a home folder, as in some containers.
    """
    if given := os.environ.get("TUNER_CACHE_DIR"):
        return Path(given)
    try:
        folder = Path(user_cache_dir("tuner"))
    except RuntimeError:  # of platformdirs, which knows no home
        return None
    return folder if folder.is_absolute() else None  # older versions leave the `~` as it is


def kept_at(device: torch.device, shape: Shape, *, num_threads: int, cache_dir: Path) -> Path:
    """Return the file of a measurement.

    Its name is specific to the kind of device, the versions, the choices, and the networks that are checked and timed.
    A CPU is also identified by its instruction sets: its name may not reveal them, and several machines may share a
    user's cache.
    """
    known = [device.type, device_kind(device), *map(str, (measured_shape(shape), num_threads, num_cores(), CHOICES))]
    known.append(str(FAMILY_NETWORKS))
    if device.type == "cpu":
        known.append(cpu_flags())
    key = hashlib.blake2b("\n".join([*known, json.dumps(package_versions())]).encode(), digest_size=8).hexdigest()
    return cache_dir / f"engine-{key}.json"


def load_measurement(
    device: torch.device, shape: Shape, *, num_threads: int, cache_dir: Path | None
) -> Measurement | None:
    """Load the cached measurement of such a device; None if there is none, or none that can be used."""
    if cache_dir is None:
        return None
    path = kept_at(device, shape, num_threads=num_threads, cache_dir=cache_dir)
    try:
        kept = Measurement.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # none, cut short, or of another version
        return None
    return kept if _is_sound(kept, device, num_threads) else None


def keep_measurement(measurement: Measurement, shape: Shape, *, cache_dir: Path | None) -> Path:
    """Cache a measurement for later searches over images of `shape`; return the file. Raises DeviceError."""
    if cache_dir is None:
        raise DeviceError(f"this user has no home folder for a cache: {NEXT_TIME}")
    engine = measurement.engine
    path = kept_at(torch.device(engine.device), shape, num_threads=engine.num_threads, cache_dir=cache_dir)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(measurement.to_json()), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise DeviceError(f"{cache_dir}: cannot be written: {reason_of(error)}: {NEXT_TIME}") from error
    return path


def _is_sound(measurement: Measurement, device: torch.device, num_threads: int) -> bool:
    """Whether a measurement that was read belongs to this device and has only values that its choices allow."""
    engine, choices = measurement.engine, CHOICES[device.type]
    values = {choice.name: (choice.plain, choice.fast) for choice in choices}
    fixed = vars(Engine(num_threads=num_threads)).items()
    return (
        isinstance(engine.device, str)
        and engine.device.partition(":")[0] == device.type
        and measurement.kind == device_kind(device)
        and isinstance(measurement.problem, str)
        and all(
            _is_one_of(getattr(engine, name), values.get(name, (value,))) for name, value in fixed if name != "device"
        )
        and len(measurement.verdicts) == len(choices)
        and all(_is_verdict_on(choice, one, engine) for choice, one in zip(choices, measurement.verdicts, strict=True))
        and _are_runners(measurement.runners)
    )


def _is_one_of(value: object, known: tuple[object, ...]) -> bool:
    """Whether a value is among the known ones and has the same type: 1 is not True."""
    return any(type(value) is type(one) and value == one for one in known)


def _is_verdict_on(choice: Choice, verdict: ChoiceVerdict, engine: Engine) -> bool:
    seconds = (verdict.seconds_plain, verdict.seconds_fast)
    return (
        (verdict.name, verdict.plain, verdict.fast) == (choice.name, choice.plain, choice.fast)
        and verdict.is_taken is (getattr(engine, choice.name) == choice.fast)
        and isinstance(verdict.problem, str)
        and isinstance(verdict.comes_with, str)
        and all(one is None or (isinstance(one, float) and isfinite(one)) for one in seconds)
    )


def _are_runners(runners: Runners) -> bool:
    counts = (runners.count, runners.num_threads)
    return all(type(count) is int and count >= 1 for count in counts) and isinstance(runners.why, str)
