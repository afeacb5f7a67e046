"""Find the fastest engine for a device: time every fast alternative on it, and check it against the plain step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from tuner.architecture.shapes import Shape
from tuner.errors import DeviceError, UnfitDevice
from tuner.hardware import GPU_CONTEXT_BYTES, MAX_RUNNERS_PER_GPU, device_kind, device_name, memory_bytes, num_cores
from tuner.training.engine import Engine
from tuner.training.engine_check import check_engine
from tuner.training.engine_choices import (
    CHOICES,
    FAILED,
    MAX_LOSS,
    MIN_GAIN,
    SLOWER,
    Choice,
    ChoiceVerdict,
    Measurement,
    Runners,
    no_effect,
    unmet_need,
    verdicts_of,
)
from tuner.training.measurement_cache import keep_measurement, load_measurement
from tuner.training.process_settings import prepare_process
from tuner.training.synthetic_step import CHECK_STEPS
from tuner.training.timing import StepTimes, time_in_turn, typical_run

MIN_BUSY = 0.1
"""Smallest plausible busy share of a GPU's time; it replaces smaller shares, and zero if no kernel was seen."""


def call(measure: Callable[[], Measurement]) -> Measurement:
    """Measure in this process."""
    return measure()


class Spoiled(Exception):  # noqa: N818 - an outcome that callers expect, not a mistake
    """An alternative failed on a GPU, which this process may be unable to use again.

    `verdicts` end with that of this choice.
    """

    def __init__(self, verdicts: tuple[ChoiceVerdict, ...]) -> None:
        super().__init__(verdicts)
        self.verdicts = verdicts


def measure_engine(
    device: torch.device, shape: Shape, *, num_threads: int, known: Sequence[ChoiceVerdict] = ()
) -> Measurement:
    """Find the fastest engine for images of `shape` (C, H, W) on a device, which takes seconds.

    Choices are tried one after another, each on top of those already made. The plain and the fast value are timed in
    turn, and a faster one is checked against the plain step. A fast value is not used if its results differ, if it
    fails, if it is no faster, or if it has no effect here; the verdict says why. If the final combination has not been
    checked, it is checked at the end, and so is training with a single seed. If the results differ, the plain step is
    used.

    `known` are verdicts from an earlier measurement. Raises UnfitDevice if not even the plain step can be computed.
    Raises Spoiled if an alternative fails on a GPU; another process must then resume the measurement.
    """
    plain = Engine(device=str(device), num_threads=num_threads)
    if device.type != "cpu":
        _require_plain_step(plain, shape)
    engine, verdicts, checked = _choose(plain, shape, known)
    problem = forms_problem(engine, checked=checked)
    if problem:
        engine, problem = plain, f"the choices pass the check one by one, but not together: {problem}"
        left_out = "correct alone, but not together with the others"
        verdicts = [replace(one, problem=one.problem or left_out, is_taken=False) for one in verdicts]
    prepare_process(engine)
    final = verdicts_of(engine, verdicts, CHOICES[device.type])
    return Measurement(engine, final, measure_runners(engine, shape), device_kind(device), problem)


def _choose(
    plain: Engine, shape: Shape, known: Sequence[ChoiceVerdict]
) -> tuple[Engine, list[ChoiceVerdict], set[Engine]]:
    """Return the fastest engine, a verdict for every choice, and the engines that passed the check. Raises Spoiled."""
    device_type = torch.device(plain.device).type
    judged = {verdict.name: verdict for verdict in known}
    engine, checked, verdicts = plain, {plain}, []
    for choice in CHOICES[device_type]:
        if lack := unmet_need(choice, engine) or no_effect(choice):
            verdicts.append(ChoiceVerdict(choice.name, choice.plain, choice.fast, None, None, lack, False))
            continue
        form, verdict = (choice, judged[choice.name]) if choice.name in judged else judge_forms(choice, engine, shape)
        verdicts.append(verdict)
        engine = form.engine(engine) if verdict.is_taken else replace(engine, **{choice.name: choice.plain})
        if verdict.is_taken:
            checked.add(engine)
        if device_type == "cuda" and verdict.has_failed and choice.name not in judged:
            raise Spoiled(tuple(verdicts))
    return engine, verdicts, checked


def measure_with_retries(
    device: torch.device,
    shape: Shape,
    *,
    num_threads: int,
    run: Callable[[Callable[[], Measurement]], Measurement] = call,
) -> Measurement:
    """Call `measure_engine` with `run`, here or in another process; again after each alternative that fails."""
    known: tuple[ChoiceVerdict, ...] = ()
    while True:
        try:
            return run(partial(measure_engine, device, shape, num_threads=num_threads, known=known))
        except Spoiled as error:
            known = error.verdicts


def _require_plain_step(engine: Engine, shape: Shape) -> None:
    """Raise UnfitDevice if the plain step fails, as on a GPU that this build of torch does not support."""
    try:
        typical_run(engine, shape).seconds()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        device = torch.device(engine.device)
        raise UnfitDevice(f"{device} ({device_name(device)}) cannot compute a training step: {reason}") from error


def load_or_measure(
    device: torch.device,
    shape: Shape,
    *,
    num_threads: int,
    cache_dir: Path | None,
    run: Callable[[Callable[[], Measurement]], Measurement] = call,
) -> Measurement:
    """Load the cached measurement for such a device and these versions, or else make one and cache it.

    `run` makes a new measurement, in this process or in another. One that cannot be cached is still used, and contains
    the reason. Raises UnfitDevice as `measure_engine` does.
    """
    kept = load_measurement(device, shape, num_threads=num_threads, cache_dir=cache_dir)
    if kept:
        return replace(kept, engine=replace(kept.engine, device=str(device)))  # kept of any device of the kind
    measurement = measure_with_retries(device, shape, num_threads=num_threads, run=run)
    try:
        keep_measurement(measurement, shape, cache_dir=cache_dir)
    except DeviceError as error:
        return replace(measurement, not_kept=str(error))
    return measurement


def measure_runners(engine: Engine, shape: Shape) -> Runners:
    """Measure how many runners a device can have at once.

    CPU: one runner per core, unless a single runner with all cores speeds up in proportion, which small networks do
    not. GPU: as many runners as fill the time in which a single one leaves the GPU idle, if they fit into memory. This
    is for a search, which trains every candidate alone, whether or not seeds train together.
    """
    engine = replace(engine, seeds_together=False)
    device = torch.device(engine.device)
    if device.type == "cpu":
        cores = num_cores()
        speedup = thread_speedup(engine, shape, num_threads=cores) if cores > 1 else 1.0
        why = f"{cores} threads make one runner {speedup:.2f} times faster"
        if speedup < 1:
            why = f"a step takes {1 / speedup:.1f} times as long with {cores} threads"
        num_threads = cores if speedup > MIN_GAIN else 1
        return Runners(cores if speedup < cores else 1, num_threads, why)
    if device.type == "cuda":
        busy = busy_share(engine, shape)
        for_each = GPU_CONTEXT_BYTES + 4 * torch.cuda.max_memory_allocated(device)
        by_memory = memory_bytes(device) // for_each
        count = max(1, min(round(1 / busy), by_memory, num_cores(), MAX_RUNNERS_PER_GPU))
        return Runners(count, 1, f"one runner keeps the GPU busy {busy:.0%} of the time; its memory holds {by_memory}")
    return Runners(1, 1, "one device")


def thread_speedup(engine: Engine, shape: Shape, *, num_threads: int) -> float:
    """How many times faster a step is with `num_threads` threads than with one."""
    one, many = (replace(engine, num_threads=threads) for threads in (1, num_threads))
    times = time_in_turn(one, many, shape)
    prepare_process(engine)
    return times.seconds_plain / times.seconds_fast


def busy_share(engine: Engine, shape: Shape, *, num_steps: int = 50) -> float:
    """Share of the time in which a runner keeps its GPU busy, in 0..1, from the profiler's total over kernels."""
    run = typical_run(engine, shape)
    for _ in range(CHECK_STEPS):
        run.seconds()
    wall = sum(run.seconds() for _ in range(num_steps))  # before, for the profiler slows the CPU down
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(num_steps):
            run.seconds()
    # Of the kernels alone: an operation of the CPU has the time of those that it started, too, and so has the mark that
    # an optimizer's step leaves on the GPU.
    kernels = [
        event
        for event in profile.key_averages()
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation
    ]
    busy = sum(event.self_device_time_total for event in kernels) / 1e6
    return float(min(1.0, max(MIN_BUSY, busy / wall)))


def judge_forms(choice: Choice, base: Engine, shape: Shape) -> tuple[Choice, ChoiceVerdict]:
    """Judge a choice; if it fails the check with the choices that it is tried with, retry with fewer of them.

    Returns the form of the choice that was judged, and its verdict.
    """
    first = judge(choice, base, shape)
    if first.is_taken or first.problem.startswith(SLOWER):
        return choice, first
    for count in reversed(range(len(choice.tried_with))):
        for fewer in combinations(choice.tried_with, count):
            form = replace(choice, tried_with=fewer)
            verdict = judge(form, base, shape)
            if verdict.is_taken:
                return form, verdict
    return choice, first


def judge(choice: Choice, base: Engine, shape: Shape) -> ChoiceVerdict:
    """Time the plain and the fast value of a choice, and check the fast one if it is faster."""
    fast = choice.engine(base)
    plain = replace(base, **{choice.name: choice.plain})
    seconds_plain = seconds_fast = None
    try:
        times = time_in_turn(plain, fast, shape)
        seconds_plain, seconds_fast = times.seconds_plain, times.seconds_fast
        problem = slower_problem(times, min_gain=choice.min_gain) or engine_problem(fast)
    except Exception as error:  # noqa: BLE001 - whatever a device cannot do is not used, and that is reported
        problem = _failure(error)
    return ChoiceVerdict(choice.name, choice.plain, choice.fast, seconds_plain, seconds_fast, problem, not problem)


def slower_problem(times: StepTimes, *, min_gain: float) -> str:
    """Return why a fast value is not faster: in the mean over all networks, or on one of them; empty if it is."""
    if times.seconds_fast * min_gain > times.seconds_plain:
        return SLOWER
    slower_on = times.families_slower_by(MAX_LOSS)
    return f"{SLOWER} on {' and '.join(slower_on)} networks" if slower_on else ""


def forms_problem(engine: Engine, *, checked: Collection[Engine] = ()) -> str:
    """Return the problem of an engine with one seed alone and, if it does so, several together; skip `checked`."""
    forms = dict.fromkeys([replace(engine, seeds_together=False), engine])
    problems = (engine_problem(form) for form in forms if form not in checked)
    return next(filter(None, problems), "")


def engine_problem(engine: Engine) -> str:
    """How an engine differs from the plain step, or how it fails; empty if there is no problem."""
    try:
        return check_engine(engine).problem
    except Exception as error:  # noqa: BLE001 - whatever a device cannot do is not used, and that is reported
        return _failure(error)


def _failure(error: Exception) -> str:
    return f"{FAILED}{type(error).__name__}: {error}".splitlines()[0]
