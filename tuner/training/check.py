"""Hold a way of computing steps against the plain PyTorch step, on the device where it is to be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isnan

import torch
from torch import Tensor, nn

from tuner.architecture.blocks import PlainBlock
from tuner.architecture.factory import build_model, initialise
from tuner.architecture.layers import Dropout
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.stacked import stack_images, unstack_states
from tuner.architecture.trace import resolve
from tuner.training.candidate import Recipe
from tuner.training.engine import Engine, Step, build_optimizer, input_dtype, place, prepare_process, prepare_step
from tuner.training.graph import WARM_UP_STEPS
from tuner.training.stacked import stack_models

CHECK_STEPS = WARM_UP_STEPS + 3
"""Enough that a captured graph is replayed."""
SEEDS_TOGETHER = 3
"""With which training together is timed and checked: as many as a confirmation has."""
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


def check_engine(engine: Engine) -> Check:
    """Hold an engine against the plain step of the same device: losses and weights after a few steps, and dropout.

    Seeds that train together are each held against their own plain steps, while a stray one beside them has weights
    that are not numbers: it must not reach the others.
    """
    plain = Engine(device=engine.device, num_threads=engine.num_threads)
    seeds = range(SEEDS_TOGETHER) if engine.seeds_together else range(1)
    differences = [
        _difference(one, _learned(plain, architecture, [seed])[0])
        for architecture in check_architectures()
        for seed, one in zip(seeds, _learned(engine, architecture, seeds), strict=True)
    ]
    loss_difference = _largest(loss for loss, _ in differences)
    weight_difference = _largest(weight for _, weight in differences)
    problem = ""
    precision = "bf16" if engine.tf32 else engine.precision
    if not loss_difference <= LOSS_TOLERANCE[precision]:
        problem = f"its losses differ by {loss_difference:.2g}, more than {LOSS_TOLERANCE[precision]:.2g}"
    elif not weight_difference <= WEIGHT_TOLERANCE[precision]:
        problem = f"its weights differ by {weight_difference:.2g}, more than {WEIGHT_TOLERANCE[precision]:.2g}"
    elif engine.byte_dropout:
        problem = _dropout_problem(torch.device(engine.device))
    prepare_process(engine)
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


@dataclass(frozen=True)
class Batch:
    """A training step and a batch to run it on; `weights` looks at the parameters of each seed's model."""

    step: Step
    images_NCHW: Tensor
    labels_N: Tensor
    weights: Callable[[], list[list[Tensor]]]

    def losses(self, learning_rate: float) -> list[float]:
        """Take the step; the loss of each seed."""
        losses: list[float] = self.step(self.images_NCHW, self.labels_N, learning_rate).view(-1).tolist()
        return losses


def prepare_batch(
    engine: Engine, architecture: Architecture, recipe: Recipe, *, seeds: Sequence[int] = (0,), with_stray: bool = False
) -> Batch:
    """A model and a batch of noise from the seed, or from each seed where the engine trains them together.

    `with_stray` adds a model whose weights are not numbers to those that train together.
    """
    models = [_fresh_model(engine, architecture, seed) for seed in seeds]
    noise = [_noise(engine, architecture, recipe.batch_size, seed) for seed in seeds]
    if not engine.seeds_together:
        ((images_NCHW, labels_N),) = noise
        (model,) = models
    else:
        if with_stray:
            models.append(_fresh_model(engine, architecture, 0))
            for weight in models[-1].parameters():
                weight.detach().fill_(torch.nan)
            noise.append(noise[0])
        images, labels = zip(*noise, strict=True)
        images_NCHW, labels_N = stack_images(images, channels_last=engine.channels_last), torch.stack(labels)
        model = stack_models(models, architecture, engine=engine)
    optimizer = build_optimizer(model.parameters(), recipe, engine=engine)
    step = prepare_step(model, architecture, recipe, engine=engine, optimizer=optimizer)

    def weights() -> list[list[Tensor]]:
        named = {name: weight.detach().cpu() for name, weight in model.named_parameters()}
        return [list(one.values()) for one in unstack_states(named, len(models))[: len(seeds)]]

    return Batch(step, images_NCHW, labels_N, weights)


def _fresh_model(engine: Engine, architecture: Architecture, seed: int) -> nn.Sequential:
    model = build_model(architecture)
    initialise(model, seed=seed)
    place(model, engine)
    return model.train()


def _noise(engine: Engine, architecture: Architecture, batch_size: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images_NCHW = torch.randn(batch_size, *architecture.input_shape, generator=generator)
    labels_N = torch.randint(architecture.num_classes, (batch_size,), generator=generator)
    layout = torch.channels_last if engine.channels_last else torch.contiguous_format
    images_NCHW = images_NCHW.to(engine.device, dtype=input_dtype(engine)).contiguous(memory_format=layout)
    return images_NCHW, labels_N.to(engine.device)


Learned = tuple[list[float], list[Tensor], list[Tensor]]
"""Of one seed: the losses of a few steps, and the weights before and after."""


def _learned(engine: Engine, architecture: Architecture, seeds: Sequence[int]) -> list[Learned]:
    """What each seed learns in a few steps with SGD, whose steps are as long as the gradients."""
    prepare_process(engine)
    recipe = Recipe(optimizer="sgd", learning_rate=0.05, momentum=0.9, batch_size=16)
    batch = prepare_batch(engine, architecture, recipe, seeds=seeds, with_stray=True)
    before = [[weight.clone() for weight in weights] for weights in batch.weights()]
    losses = [batch.losses(0.05)[: len(seeds)] for _ in range(CHECK_STEPS)]
    return [([step[index] for step in losses], before[index], after) for index, after in enumerate(batch.weights())]


def _difference(one: Learned, plain: Learned) -> tuple[float, float]:
    losses = _largest(abs(a - b) for a, b in zip(one[0], plain[0], strict=True))
    apart = sum(float((a - b).square().sum()) for a, b in zip(one[2], plain[2], strict=True))
    way = sum(float((after - before).square().sum()) for before, after in zip(plain[1], plain[2], strict=True))
    return losses, (apart / way) ** 0.5


def _largest(differences: Iterable[float]) -> float:
    """NaN, which `max` may pass over, if there is one."""
    return max(differences, key=lambda value: (isnan(value), value))


def _dropout_problem(device: torch.device, *, rate: float = 0.3, num_values: int = 1_000_000) -> str:
    """What is wrong with byte dropout on a device: its rate, or what it multiplies with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kept = Dropout(rate).train()(torch.ones(num_values, device=device))
    share = float((kept == 0).float().mean())
    if abs(share - rate) > 1 / 256 + 5 * (rate * (1 - rate) / num_values) ** 0.5:
        return f"it drops {share:.2%} where {rate:.0%} is asked for"
    mean = float(kept.mean())
    return "" if abs(mean - 1) < 0.01 else f"it multiplies the mean by {mean:.3f}"
