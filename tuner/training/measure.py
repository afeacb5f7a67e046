"""Which way is the fastest on this device: every fast way is timed there, and checked against the plain step."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from platformdirs import user_cache_dir
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from tuner.architecture.blocks import PlainBlock
from tuner.architecture.shapes import Shape
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve
from tuner.errors import DeviceError
from tuner.hardware import GPU_CONTEXT_BYTES, MAX_RUNNERS_PER_GPU, device_name, num_cores
from tuner.training.candidate import Recipe
from tuner.training.check import check_engine
from tuner.training.engine import (
    Engine,
    prepare_process,
)
from tuner.training.rehearsal import CHECK_STEPS, SEEDS_TOGETHER, rehearse
from tuner.versions import package_versions

BATCH_SIZE = 64
MIN_ROUNDS, MAX_ROUNDS, TIMED_SECONDS = 2, 4, 0.3
"""A choice's two ways are timed in turn until their steps have taken this long together, in so many rounds."""
STEPS_IN_ROUND = 3
"""Timed steps of each way in a round, after one that finds the caches as the other has left them."""
MIN_GAIN = 1.02
"""A fast way is taken when it is at least this much faster: below that, noise decides."""
TIE = 0.97
"""The same for a way that is known to pay on networks larger than the one that is timed: it must be no slower here."""
HOPELESS = 3.0
"""A way whose first step takes this many times the plain one's is not timed any further."""
MAX_SIDE = 64
MIN_BUSY = 0.1
"""Less of a GPU's time than this is not believed, nor that there were no kernels at all."""


@dataclass(frozen=True)
class Choice:
    """A field of Engine that has a plain value and one that may be faster; considered where `requires` holds.

    min_gain: how many times faster it must be to be taken.
    """

    name: str
    plain: Any
    fast: Any
    requires: Mapping[str, Any]
    min_gain: float = MIN_GAIN

    def engine(self, base: Engine) -> Engine:
        """The engine with the fast value."""
        changes: dict[str, Any] = {self.name: self.fast}
        if changes == {"blocks": "fused"}:
            # The only layout that fused blocks know, and what they are made for: each is then judged by itself.
            changes |= {"channels_last": True, "early_pooling": True, "byte_dropout": True}
        return replace(base, **changes)


CHOICES: dict[str, tuple[Choice, ...]] = {
    "cpu": (
        Choice("keep_freed_memory", False, True, {}, min_gain=TIE),
        Choice("flush_denormals", False, True, {}),
        Choice("channels_last", False, True, {}),
        Choice("blocks", "layers", "fused", {}),
        Choice("early_pooling", False, True, {"blocks": "fused"}),
        Choice("byte_dropout", False, True, {"blocks": "fused"}),
        Choice("precision", "fp32", "bf16", {}),
        Choice("optimizer", "foreach", "fused", {}, min_gain=TIE),
        Choice("seeds_together", False, True, {}),
    ),
    "cuda": (
        Choice("channels_last", False, True, {}),
        Choice("tf32", False, True, {}),
        Choice("precision", "fp32", "bf16", {}),
        Choice("optimizer", "foreach", "fused", {}, min_gain=TIE),
        Choice("graph", False, True, {"optimizer": "fused"}),
        Choice("seeds_together", False, True, {}),
    ),
    "mps": (),
}
"""By type of device, in the order in which they are tried, each on top of those already taken."""


@dataclass(frozen=True)
class Verdict:
    """What was measured of a choice: seconds of a seed's step, plain and fast, and whether the fast way is taken."""

    name: str
    plain: Any
    fast: Any
    seconds_plain: float
    seconds_fast: float
    problem: str
    is_taken: bool


@dataclass(frozen=True)
class Runners:
    """How many trials at once a device bears, and why. `num_threads` is for a runner that has the CPU to itself."""

    count: int
    num_threads: int
    why: str


@dataclass(frozen=True)
class Measurement:
    """The engine for a device and an input shape, with the evidence."""

    engine: Engine
    verdicts: tuple[Verdict, ...]
    runners: Runners

    def __str__(self) -> str:
        """Which fast ways are taken and which are left out, with the reason, as a log has it."""
        taken = [verdict.name for verdict in self.verdicts if verdict.is_taken]
        left_out = [f"{verdict.name} ({verdict.problem})" for verdict in self.verdicts if not verdict.is_taken]
        return f"engine: {', '.join(taken) or 'the plain step'}" + (
            f"; left out: {', '.join(left_out)}" if left_out else ""
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it back."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Measurement:
        """The measurement in a JSON object. Raises TypeError or KeyError for anything else."""
        verdicts = tuple(Verdict(**verdict) for verdict in data["verdicts"])
        return Measurement(Engine.from_json(data["engine"]), verdicts, Runners(**data["runners"]))


def measure_engine(device: torch.device, shape: Shape, *, num_threads: int) -> Measurement:
    """Find the fastest engine for images of `shape` (C, H, W) on a device. It takes seconds.

    Every choice is timed on top of those already taken, its two ways in turn. What is faster is then checked against
    the plain step. A way that differs, fails or is no faster is left out, and the verdict says why.
    """
    engine = Engine(device=str(device), num_threads=num_threads)
    verdicts = []
    for choice in CHOICES[device.type]:
        if all(getattr(engine, name) == value for name, value in choice.requires.items()):
            verdict = judge(choice, engine, shape)
            verdicts.append(verdict)
            engine = choice.engine(engine) if verdict.is_taken else replace(engine, **{choice.name: choice.plain})
    prepare_process(engine)
    return Measurement(engine, tuple(verdicts), measure_runners(engine, shape))


def machine_cache_dir() -> Path:
    """Where measurements are kept, for all folders of studies on a machine: the user's cache, or $TUNER_CACHE_DIR."""
    return Path(os.environ.get("TUNER_CACHE_DIR") or user_cache_dir("tuner"))


def call(measure: Callable[[], Measurement]) -> Measurement:
    """Measure in this process."""
    return measure()


def load_or_measure(
    device: torch.device,
    shape: Shape,
    *,
    num_threads: int,
    cache_dir: Path,
    run: Callable[[Callable[[], Measurement]], Measurement] = call,
) -> Measurement:
    """What was measured before on this device with these versions, or a new measurement, which is then kept.

    `run` is where a new one is made: in this process, or aside.
    """
    path = _kept_at(device, shape, num_threads=num_threads, cache_dir=cache_dir)
    if path.is_file():
        try:
            return Measurement.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError):
            path.unlink()  # cut short or of another version: measured anew
    measurement = run(partial(measure_engine, device, shape, num_threads=num_threads))
    keep_measurement(measurement, shape, cache_dir=cache_dir)
    return measurement


def keep_measurement(measurement: Measurement, shape: Shape, *, cache_dir: Path) -> None:
    """Let later searches over images of `shape` on this machine have a measurement. Raises DeviceError."""
    engine = measurement.engine
    path = _kept_at(torch.device(engine.device), shape, num_threads=engine.num_threads, cache_dir=cache_dir)
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(measurement.to_json()), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise DeviceError(
            f"{cache_dir}: cannot be written: {error.strerror}; set TUNER_CACHE_DIR to a folder"
        ) from error


def _kept_at(device: torch.device, shape: Shape, *, num_threads: int, cache_dir: Path) -> Path:
    known = [device_name(device), str(device), *map(str, (_measured_shape(shape), num_threads, num_cores(), CHOICES))]
    key = hashlib.blake2b("\n".join([*known, json.dumps(package_versions())]).encode(), digest_size=8).hexdigest()
    return cache_dir / f"engine-{key}.json"


def measure_runners(engine: Engine, shape: Shape) -> Runners:
    """How many runners a device bears at once.

    A CPU: one to a core, unless one runner with all cores is as many times faster, which small networks are not. A GPU:
    as many as fill the time in which one leaves it idle, and as its memory holds.
    """
    device = torch.device(engine.device)
    if device.type == "cpu":
        cores = num_cores()
        speedup = thread_speedup(engine, shape, num_threads=cores) if cores > 1 else 1.0
        why = f"{cores} threads make one runner {speedup:.2f} times faster"
        num_threads = cores if speedup > MIN_GAIN else 1
        return Runners(cores if speedup < cores else 1, num_threads, why)
    if device.type == "cuda":
        busy = busy_share(engine, shape)
        for_each = GPU_CONTEXT_BYTES + 4 * torch.cuda.max_memory_allocated(device)
        by_memory = int(torch.cuda.mem_get_info(device)[0] // for_each)
        count = max(1, min(round(1 / busy), by_memory, num_cores(), MAX_RUNNERS_PER_GPU))
        return Runners(count, 1, f"one runner keeps the GPU busy {busy:.0%} of the time; its memory holds {by_memory}")
    return Runners(1, 1, "one device")


def thread_speedup(engine: Engine, shape: Shape, *, num_threads: int) -> float:
    """How many times faster a step is with `num_threads` threads than with one."""
    one, many = (replace(engine, num_threads=threads) for threads in (1, num_threads))
    seconds_one, seconds_many = time_in_turn(one, many, shape)
    prepare_process(engine)
    return seconds_one / seconds_many


def busy_share(engine: Engine, shape: Shape, *, num_steps: int = 50) -> float:
    """The share of a runner's time in which it keeps its GPU busy, in 0..1, from the profiler's sum over kernels."""
    run = _Run(engine, typical_architecture(shape), Recipe(batch_size=BATCH_SIZE))
    for _ in range(CHECK_STEPS):
        run.seconds()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        wall = sum(run.seconds() for _ in range(num_steps))
    # Of the kernels alone: an operation of the CPU has the time of those that it started, too.
    kernels = [event for event in profile.key_averages() if event.device_type == DeviceType.CUDA]
    busy = sum(event.self_device_time_total for event in kernels) / 1e6
    return float(min(1.0, max(MIN_BUSY, busy / wall)))


def judge(choice: Choice, base: Engine, shape: Shape) -> Verdict:
    """Time a choice's two ways, and check the fast one if it is faster."""
    fast = choice.engine(base)
    plain = replace(base, **{choice.name: choice.plain})
    try:
        seconds_plain, seconds_fast = time_in_turn(plain, fast, shape)
        problem = "no faster" if seconds_fast * choice.min_gain > seconds_plain else check_engine(fast).problem
    except Exception as error:  # noqa: BLE001 - whatever a device cannot do is left out, and said
        seconds_plain = seconds_fast = 0.0
        problem = f"failed: {type(error).__name__}: {error}".splitlines()[0]
    return Verdict(choice.name, choice.plain, choice.fast, seconds_plain, seconds_fast, problem, not problem)


def time_in_turn(plain: Engine, fast: Engine, shape: Shape) -> tuple[float, float]:
    """Median seconds of one training step with each of two engines, run in turn so that both see the same machine."""
    architecture = typical_architecture(shape)
    runs = [_Run(engine, architecture, Recipe(batch_size=BATCH_SIZE)) for engine in (plain, fast)]
    first = [run.seconds() for run in runs]
    if first[1] > HOPELESS * runs[0].seconds() and runs[1].seconds() > HOPELESS * first[0]:
        return first[0], first[1]
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and sum(times[0] + times[1]) > TIMED_SECONDS:
            break
        for run, seconds in zip(runs, times, strict=True):
            run.seconds()
            seconds += [run.seconds() for _ in range(STEPS_IN_ROUND)]
    return median(times[0]), median(times[1])


def typical_architecture(shape: Shape) -> Architecture:
    """The network that is timed: two blocks that between them have what most candidates have."""
    channels, height, width = _measured_shape(shape)
    blocks = (
        PlainBlock(out_channels=32, normalization="batch", activation="elu", pooling="max", dropout=0.2),
        PlainBlock(out_channels=32, activation="gelu", pooling="average", dropout=0.2),
    )
    input_spec = InputSpec(channels, height, width, num_classes=10)
    return resolve(Architecture(input_spec, blocks, Head()))


def _measured_shape(shape: Shape) -> Shape:
    """Larger images are timed at this size, where a step takes long enough to be timed well."""
    channels, height, width = shape
    return channels, min(height, MAX_SIDE), min(width, MAX_SIDE)


class _Run:
    """A network in training, to be timed a step at a time."""

    def __init__(self, engine: Engine, architecture: Architecture, recipe: Recipe) -> None:
        self._engine = engine
        prepare_process(engine)
        self.num_seeds = SEEDS_TOGETHER if engine.seeds_together else 1
        self._rehearsal = rehearse(engine, architecture, recipe, seeds=range(self.num_seeds))

    def seconds(self) -> float:
        """Seconds of one step, until the device has done it; of seeds that train together, the share of one."""
        prepare_process(self._engine)
        _synchronise(self._engine)
        started = time.perf_counter()
        self._rehearsal.step(*self._rehearsal.batches[0], 1e-3)
        _synchronise(self._engine)
        return (time.perf_counter() - started) / self.num_seeds


def _synchronise(engine: Engine) -> None:
    device = torch.device(engine.device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
