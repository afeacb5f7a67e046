"""Hold a way of computing steps against the plain PyTorch step, on the device where it is to be used."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan

from torch import Tensor

from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve
from tuner.training.candidate import Recipe
from tuner.training.check_parts import RATES, dropout_problem, frozen_problem, optimizer_problem
from tuner.training.engine import Engine, prepare_process
from tuner.training.rehearsal import CHECK_STEPS, SEEDS_TOGETHER, rehearse

LABEL_SMOOTHING = (0.0, 0.2)
"""Of the networks that are checked, in turn."""
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}
"""Largest difference of a step's loss from the plain step's, in nats."""
WEIGHT_TOLERANCE = {"fp32": 1e-2, "bf16": 0.25}
"""Largest difference of the weights after the steps from the plain ones, as a share of the way that those went.

bf16 keeps 8 bits of an activation, so that a weight's first few steps differ by several percent, which later ones even
out; a wrong gradient is off by the whole way.
"""


@dataclass(frozen=True)
class Check:
    """How far a way is from the plain one after a few steps; `problem` is empty when it is near enough."""

    loss_difference: float
    weight_difference: float
    problem: str


def check_engine(engine: Engine, *, seed: int = 0) -> Check:
    """Hold an engine against the plain step of the same device: losses and weights after a few steps.

    Each step has another batch and another learning rate. Optimizers and dropout are checked by themselves; `seed` is
    that of the dropout masks.

    Seeds that train together are each held against their own plain steps, while a stray one beside them has weights
    that are not numbers: it must not reach the others.
    """
    plain = Engine(device=engine.device, num_threads=engine.num_threads)
    seeds = range(SEEDS_TOGETHER) if engine.seeds_together else range(1)
    differences = []
    for number, architecture in enumerate(check_architectures()):
        smoothing = LABEL_SMOOTHING[number % len(LABEL_SMOOTHING)]
        recipe = Recipe("sgd", momentum=0.9, batch_size=16, weight_decay=0.01, label_smoothing=smoothing)
        learned = _learned(engine, architecture, recipe, seeds)
        differences += [
            _difference(one, _learned(plain, architecture, recipe, [model_seed])[0])
            for model_seed, one in zip(seeds, learned, strict=True)
        ]
    loss_difference = _largest(loss for loss, _ in differences)
    weight_difference = _largest(weight for _, weight in differences)
    problem = ""
    precision = "bf16" if engine.tf32 else engine.precision
    if not loss_difference <= LOSS_TOLERANCE[precision]:
        problem = f"its losses differ by {loss_difference:.2g}, more than {LOSS_TOLERANCE[precision]:.2g}"
    elif not weight_difference <= WEIGHT_TOLERANCE[precision]:
        problem = f"its weights differ by {weight_difference:.2g}, more than {WEIGHT_TOLERANCE[precision]:.2g}"
    prepare_process(engine)
    problem = problem or optimizer_problem(engine) or dropout_problem(engine, seed) or frozen_problem(engine, seed)
    return Check(loss_difference, weight_difference, problem)


def check_architectures() -> tuple[Architecture, ...]:
    """The networks that are checked: every activation, pooling and normalization, over odd and non-square sides."""
    blocks = (
        PlainBlock(8, activation="relu", normalization="batch", pooling="max"),
        PlainBlock(12, activation="gelu", pooling="max"),
        PlainBlock(8, activation="elu", pooling="average"),
        PlainBlock(40, activation="silu", normalization="batch", pooling="max"),
        PlainBlock(8, activation="tanh", padding="valid"),
        PlainBlock(16, activation="leaky_relu", normalization="batch", pooling="average"),
        PlainBlock(8, activation="sigmoid", pooling="max", kernel_size=5),
        PlainBlock(8, activation="gelu", normalization="batch", stride=2),
    )
    input_spec = InputSpec(2, 11, 14, num_classes=5)
    heads = (Head(), Head(hidden_features=16, activation="tanh"), Head(pooling="average"), Head())
    return tuple(
        resolve(Architecture(input_spec, blocks[2 * number : 2 * number + 2], head))
        for number, head in enumerate(heads)
    )


Learned = tuple[list[float], list[Tensor], list[Tensor]]
"""Of one seed: the losses of a few steps, and the weights before and after."""


def _learned(engine: Engine, architecture: Architecture, recipe: Recipe, seeds: Sequence[int]) -> list[Learned]:
    """What each seed learns in a few steps with SGD, whose steps are as long as the gradients."""
    prepare_process(engine)
    run = rehearse(engine, architecture, recipe, seeds=seeds, with_stray=True, num_batches=CHECK_STEPS)
    before = [[weight.clone() for weight in weights] for weights in run.weights()]
    losses = [run.losses(number, rate)[: len(seeds)] for number, rate in enumerate(RATES)]
    return [([step[index] for step in losses], before[index], after) for index, after in enumerate(run.weights())]


def _difference(one: Learned, plain: Learned) -> tuple[float, float]:
    losses = _largest(abs(a - b) for a, b in zip(one[0], plain[0], strict=True))
    apart = sum(float((a - b).square().sum()) for a, b in zip(one[2], plain[2], strict=True))
    way = sum(float((after - before).square().sum()) for before, after in zip(plain[1], plain[2], strict=True))
    return losses, (apart / way) ** 0.5


def _largest(differences: Iterable[float]) -> float:
    """NaN, which `max` may pass over, if there is one."""
    return max(differences, key=lambda value: (isnan(value), value))
