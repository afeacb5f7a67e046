"""Time the training step of one typical network with different engines."""

from __future__ import annotations

import time
from statistics import median

import torch

from tuner.architecture.blocks import PlainBlock
from tuner.architecture.shapes import Shape
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve
from tuner.training.candidate import Recipe
from tuner.training.engine import Engine
from tuner.training.process_settings import prepare_process
from tuner.training.synthetic_step import SEEDS_TOGETHER, rehearse

BATCH_SIZE = 64
MIN_ROUNDS, MAX_ROUNDS, TIMED_SECONDS = 2, 4, 0.3
"""Two engines are timed in turn, for this many rounds and until their steps have taken this many seconds in total."""
STEPS_IN_ROUND = 3
"""Timed steps of each engine in a round, after one step that refills the caches."""
HOPELESS = 3.0
"""An engine whose first step takes this many times as long as the plain one is not timed further."""
MAX_SIDE = 64
"""Larger images are timed at this size, where a step takes long enough to be timed precisely."""


def time_in_turn(plain: Engine, fast: Engine, shape: Shape) -> tuple[float, float]:
    """Return the median seconds of a training step with each of two engines, run in turn under the same conditions."""
    runs = [TimedRun(engine, shape) for engine in (plain, fast)]
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
    """Return the network to time: two blocks that together contain what most candidates have."""
    channels, height, width = measured_shape(shape)
    blocks = (
        PlainBlock(out_channels=32, normalization="batch", activation="elu", pooling="max", dropout=0.2),
        PlainBlock(out_channels=32, activation="gelu", pooling="average", dropout=0.2),
    )
    input_spec = InputSpec(channels, height, width, num_classes=10)
    return resolve(Architecture(input_spec, blocks, Head()))


def measured_shape(shape: Shape) -> Shape:
    """Return the shape (C, H, W) at which images of a given shape are timed."""
    channels, height, width = shape
    return channels, min(height, MAX_SIDE), min(width, MAX_SIDE)


class TimedRun:
    """The typical network in training, to be timed one step at a time."""

    def __init__(self, engine: Engine, shape: Shape) -> None:
        self._engine = engine
        prepare_process(engine)
        self.num_seeds = SEEDS_TOGETHER if engine.seeds_together else 1
        recipe = Recipe(batch_size=BATCH_SIZE)
        self._rehearsal = rehearse(engine, typical_architecture(shape), recipe, seeds=range(self.num_seeds))

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
