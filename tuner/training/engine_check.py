"""Check an engine against the plain PyTorch step, on the device that will use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isnan

import torch
from torch import Tensor

from tuner.architecture.blocks import ActivationBlock, Block, InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.parts import named_layers
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve, trace
from tuner.training.candidate import Recipe
from tuner.training.engine import Engine
from tuner.training.engine_check_parts import (
    RATES,
    dropout_problem,
    frozen_problem,
    masks_from,
    optimizer_problem,
    scoring_problem,
)
from tuner.training.process_settings import prepare_process
from tuner.training.synthetic_step import CHECK_STEPS, SEEDS_TOGETHER, rehearse

LABEL_SMOOTHING = (0.0, 0.2)
"""Label smoothing of the networks that are checked; they take these values in turn."""
SOFT_NETWORK = 1
"""Number of the network that is checked with soft labels, which mixup and cutmix make; its labels are also smoothed."""
BATCH_SIZE, SHORT_BATCH = 16, 11
BATCH_SIZES = (*[BATCH_SIZE] * (CHECK_STEPS - 2), SHORT_BATCH, 1, BATCH_SIZE)
"""Number of images in each step. A captured graph is replayed before and after the short batches, but not for them.

A batch of one image is computed layer by layer in fused blocks, too.
"""
SELDOM = 1e-12
"""A dropout rate so low that nothing is dropped. Blocks with a rate below 1/256 run layer by layer, not fused."""
LOSS_TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}
"""Largest difference from the loss of the plain step, in nats. TF32 has the tolerances of bf16."""
WEIGHT_TOLERANCE = {"fp32": 1e-2, "bf16": 0.25}
"""Largest difference of a network's weights from the plain ones, relative to how far the plain weights moved.

bf16 keeps 8 bits of an activation, so the first few steps of a weight differ by several percent, and later steps even
this out. With a wrong gradient, the difference is as large as the whole movement.
"""
TENSOR_TOLERANCE = {"fp32": 1e-2, "bf16": 0.35}
"""The same tolerance for each tensor separately, including the running statistics of batch normalization.

Over twenty seeds on a CPU, the worst tensor of a correct engine differs by 1e-4 in fp32, by 0.13 in bf16 with fused
blocks and by 0.16 with layers (always the weight of a convolution). Without its gradient, or if it is never updated, a
tensor differs by about 1.
"""


@dataclass(frozen=True)
class Check:
    """How far an engine is from the plain step after a few steps; `problem` is empty if it is close enough.

    `weight_difference` is that of the worst network, and `tensor_difference` that of the worst tensor.
    """

    loss_difference: float
    weight_difference: float
    tensor_difference: float
    problem: str


def check_engine(engine: Engine, *, seed: int = 0) -> Check:
    """Compare an engine with the plain step on the same device: losses, weights and buffers after a few steps.

    Each step has another batch and another learning rate. Two batches before the last are short, as at the end of an
    epoch. The trained weights are also scored in the plain way. Optimizers and dropout are checked separately. `seed`
    is the seed for the weights, the batches and the dropout masks.

    If seeds train together, each is compared with its own plain steps. An extra model beside them has NaN weights,
    which must not affect the others. How the engine trains a single seed needs a separate check.
    """
    plain = Engine(device=engine.device, num_threads=engine.num_threads)
    seeds = range(seed, seed + (SEEDS_TOGETHER if engine.seeds_together else 1))
    apart, scored = [], []
    for number, architecture in enumerate(check_architectures()):
        smoothing = LABEL_SMOOTHING[number % len(LABEL_SMOOTHING)]
        recipe = Recipe("sgd", momentum=0.9, batch_size=BATCH_SIZE, weight_decay=0.01, label_smoothing=smoothing)
        if number == SOFT_NETWORK:
            recipe = replace(recipe, mixup=1.0)
        with masks_from(seed):
            learned = _learned(engine, architecture, recipe, seeds)
            apart += [
                _difference(one, _learned(plain, architecture, recipe, [model_seed])[0], architecture)
                for model_seed, one in zip(seeds, learned, strict=True)
            ]
        scored.append((architecture, learned[0][2]))
    loss_difference = _largest(one.losses for one in apart)
    weight_difference = _largest(one.weights for one in apart)
    tensor_difference, tensor = _furthest(one.tensor for one in apart)
    precision = "bf16" if engine.tf32 else engine.precision
    problem = ""
    if not loss_difference <= LOSS_TOLERANCE[precision]:
        problem = f"its losses differ by {loss_difference:.2g}, more than {LOSS_TOLERANCE[precision]:.2g}"
    elif not weight_difference <= WEIGHT_TOLERANCE[precision]:
        problem = f"its weights differ by {weight_difference:.2g}, more than {WEIGHT_TOLERANCE[precision]:.2g}"
    elif not tensor_difference <= TENSOR_TOLERANCE[precision]:
        problem = f"its {tensor} differs by {tensor_difference:.2g}, more than {TENSOR_TOLERANCE[precision]:.2g}"
    problem = problem or scoring_problem(engine, scored)
    prepare_process(engine)
    problem = problem or optimizer_problem(engine) or dropout_problem(engine, seed) or frozen_problem(engine, seed)
    return Check(loss_difference, weight_difference, tensor_difference, problem)


def check_architectures() -> tuple[Architecture, ...]:
    """The networks that are checked: every family, activation, pooling and normalization, over odd, non-square sides.

    Pooling windows overlap, touch and leave gaps, and one block cannot be fused. No max pooling follows another. Where
    bf16 rounds neighbouring values to the same number, different ones may become the maximum, and two poolings would
    add up these differences.
    """
    blocks = (
        PlainBlock(8, activation="relu", normalization="batch", pooling="max", pool_size=3),
        PlainBlock(12, activation="elu", pooling="average", pool_size=3),
        PlainBlock(8, activation="gelu", pooling="max", pool_size=3),
        PlainBlock(40, activation="silu", normalization="batch", pooling="average", pool_stride=3),
        PlainBlock(8, activation="tanh", padding="valid"),
        PlainBlock(16, activation="leaky_relu", normalization="batch", pooling="average"),
        PlainBlock(8, activation="sigmoid", pooling="max", kernel_size=5),
        PlainBlock(8, activation="gelu", normalization="batch", stride=2),
        PlainBlock(8, activation="relu", normalization="batch", pooling="average", pool_stride=3, dropout=SELDOM),
    )
    input_spec = InputSpec(2, 11, 14, num_classes=5)
    heads = (Head(), Head(hidden_features=16, activation="tanh"), Head(pooling="average"), Head(), Head())
    plain = [(blocks[2 * number : 2 * number + 2], head) for number, head in enumerate(heads)]
    return tuple(
        resolve(Architecture(input_spec, blocks, head)) for blocks, head in [*plain, *_blocks_with_shortcuts()]
    )


def _blocks_with_shortcuts() -> Iterator[tuple[tuple[Block, ...], Head]]:
    """Blocks of the other families, in both orders of activations, with both shortcuts and both normalizations.

    There is always an activation between two normalizations. Otherwise, the second one would remove the bias of the
    first, and the gradient of that bias would consist only of rounding errors.
    """
    stem = PlainBlock(8, normalization="group", activation="relu6", pooling="average")
    residual = ResidualBlock(8, activation="tanh")
    yield (stem, residual, ResidualBlock(12, stride=2, normalization="group", activation="silu")), Head("average")
    pre = ResidualBlock(8, activation="silu", order="pre", shortcut="projection")
    yield (replace(stem, normalization="none"), pre, ActivationBlock(activation="elu")), Head("average")
    inverted = InvertedResidualBlock(8, expansion=2, squeeze=4, activation="silu")
    strided = replace(inverted, kernel_size=5, normalization="none", squeeze=0, stride=2)
    yield (replace(stem, normalization="batch"), inverted, strided), Head()


State = dict[str, Tensor]
Learned = tuple[list[float], State, State]
"""Result for one seed: the losses of a few steps, and the state dict before and after."""


def _learned(engine: Engine, architecture: Architecture, recipe: Recipe, seeds: Sequence[int]) -> list[Learned]:
    """Train each seed for a few steps with SGD, whose steps are proportional to the gradients."""
    prepare_process(engine)
    run = rehearse(engine, architecture, recipe, seeds=seeds, with_stray=True, batch_sizes=BATCH_SIZES)
    before = run.states()
    losses = [run.losses(number, rate)[: len(seeds)] for number, rate in enumerate(RATES)]
    return [([step[index] for step in losses], before[index], after) for index, after in enumerate(run.states())]


@dataclass(frozen=True)
class _Apart:
    """How far one seed of one network is from the plain one. `tensor` is its worst tensor, with its layer's type."""

    losses: float
    weights: float
    tensor: tuple[float, str]


def _difference(one: Learned, plain: Learned, architecture: Architecture) -> _Apart:
    (losses, _, found), (plain_losses, before, wanted) = one, plain
    layers = named_layers(trace(architecture))
    apart, way = torch.zeros((), dtype=torch.double), torch.zeros((), dtype=torch.double)
    shares = []
    for name, value in wanted.items():
        place, _, tensor = name.rpartition(".")
        tensor_apart = (found[name].double() - value).square().sum()
        tensor_way = (value.double() - before[name]).square().sum()
        shares.append((float((tensor_apart / tensor_way).sqrt()), f"{layers[place].kind} {tensor}"))
        if tensor in ("weight", "bias"):
            apart += tensor_apart
            way += tensor_way
    loss_difference = _largest(abs(a - b) for a, b in zip(losses, plain_losses, strict=True))
    return _Apart(loss_difference, float((apart / way).sqrt()), _furthest(shares))


def _largest(differences: Iterable[float]) -> float:
    """Return NaN if there is one, which `max` may miss, and otherwise the largest difference."""
    return max(differences, key=lambda value: (isnan(value), value))


def _furthest(tensors: Iterable[tuple[float, str]]) -> tuple[float, str]:
    return max(tensors, key=lambda pair: (isnan(pair[0]), pair[0]))
