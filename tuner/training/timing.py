"""Time the training steps of one network of each block family with different engines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import geometric_mean, median

import torch

from tuner.architecture.shapes import Shape
from tuner.architecture.spec import Architecture
from tuner.training.candidate import Recipe
from tuner.training.engine import Engine
from tuner.training.family_networks import timed_architectures
from tuner.training.process_settings import prepare_process
from tuner.training.synthetic_step import SEEDS_TOGETHER, rehearse

BATCH_SIZE = 64
MIN_ROUNDS, MAX_ROUNDS, TIMED_SECONDS = 2, 4, 0.1
"""Two engines are timed in turn on each network, for this many rounds and until their steps have taken this many
seconds in total."""
STEPS_IN_ROUND = 2
"""Timed steps of each engine in a round, after one step that refills the caches."""
HOPELESS = 3.0
"""An engine whose first step takes this many times as long as the plain one is not timed further."""
MAX_SIDE = 64
"""Larger images are timed at this size, where a step takes long enough to be timed precisely."""


@dataclass(frozen=True)
class NetworkTimes:
    """Seconds of a training step of one network: medians with a plain and a fast engine, and the fast one's minimum."""

    plain: float
    fast: float
    fast_at_best: float


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a training step with a plain and a fast engine, on the timed network of each family.

    Every family counts equally, whatever the duration of its step: the seconds of an engine are the geometric mean over
    the networks, so that the ratio of two engines is the geometric mean of their ratios on each network.
    """

    by_family: Mapping[str, NetworkTimes]

    @property
    def seconds_plain(self) -> float:
        """The mean of the plain engine."""
        return geometric_mean(times.plain for times in self.by_family.values())

    @property
    def seconds_fast(self) -> float:
        """The mean of the fast engine."""
        return geometric_mean(times.fast for times in self.by_family.values())

    def families_slower_by(self, factor: float) -> list[str]:
        """The families on whose network even the fastest step of the fast engine takes this many times as long."""
        return [name for name, times in self.by_family.items() if times.fast_at_best > factor * times.plain]


def time_in_turn(plain: Engine, fast: Engine, shape: Shape) -> StepTimes:
    """Time a training step with two engines on each network, in turn under the same conditions.

    Networks after one on which the fast engine is hopeless are not timed.
    """
    by_family: dict[str, NetworkTimes] = {}
    for family, architecture in timed_architectures(measured_shape(shape)).items():
        by_family[family] = _time_network(plain, fast, architecture)
        if by_family[family].fast_at_best > HOPELESS * by_family[family].plain:
            break
    return StepTimes(by_family)


def _time_network(plain: Engine, fast: Engine, architecture: Architecture) -> NetworkTimes:
    runs = [TimedRun(engine, architecture) for engine in (plain, fast)]
    first = [run.seconds() for run in runs]
    if first[1] > HOPELESS * runs[0].seconds() and runs[1].seconds() > HOPELESS * first[0]:
        return NetworkTimes(first[0], first[1], first[1])
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and sum(times[0] + times[1]) > TIMED_SECONDS:
            break
        for run, seconds in zip(runs, times, strict=True):
            run.seconds()
            seconds += [run.seconds() for _ in range(STEPS_IN_ROUND)]
    return NetworkTimes(median(times[0]), median(times[1]), min(times[1]))


def typical_run(engine: Engine, shape: Shape) -> TimedRun:
    """Return the first timed network in training, for measurements of a device rather than of choices."""
    return TimedRun(engine, next(iter(timed_architectures(measured_shape(shape)).values())))


def measured_shape(shape: Shape) -> Shape:
    """Return the shape (C, H, W) at which images of a given shape are timed."""
    channels, height, width = shape
    return channels, min(height, MAX_SIDE), min(width, MAX_SIDE)


class TimedRun:
    """A network in training, to be timed one step at a time."""

    def __init__(self, engine: Engine, architecture: Architecture) -> None:
        self._engine = engine
        prepare_process(engine)
        self.num_seeds = SEEDS_TOGETHER if engine.seeds_together else 1
        recipe = Recipe(batch_size=BATCH_SIZE)
        self._rehearsal = rehearse(engine, architecture, recipe, seeds=range(self.num_seeds))

    def seconds(self) -> float:
        """Return the seconds of one step, until the device has finished.

        For seeds that train together, this is one seed's share.
        """
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
