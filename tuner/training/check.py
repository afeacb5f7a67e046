"""Hold a way of computing steps against the plain PyTorch step, on the device where it is to be used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.architecture.blocks import PlainBlock
from tuner.architecture.factory import build_model, initialise
from tuner.architecture.layers import Dropout
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve
from tuner.training.candidate import Recipe
from tuner.training.engine import Engine, Step, build_optimizer, input_dtype, place, prepare_process, prepare_step
from tuner.training.graph import WARM_UP_STEPS

CHECK_STEPS = WARM_UP_STEPS + 3
"""Enough that a captured graph is replayed."""
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
    """Hold an engine against the plain step of the same device: losses and weights after a few steps, and dropout."""
    plain = Engine(device=engine.device, num_threads=engine.num_threads)
    differences = [
        _difference(_losses_and_weights(engine, architecture), _losses_and_weights(plain, architecture))
        for architecture in check_architectures()
    ]
    loss_difference = max(loss for loss, _ in differences)
    weight_difference = max(weight for _, weight in differences)
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


def prepare_batch(
    engine: Engine, architecture: Architecture, recipe: Recipe
) -> tuple[Step, Tensor, Tensor, Callable[[], list[Tensor]]]:
    """A step with a batch to run it on, and a look at the weights."""
    model = build_model(architecture)
    initialise(model, seed=0)
    place(model, engine)
    model.train()
    optimizer = build_optimizer(model.parameters(), recipe, engine=engine)
    step = prepare_step(model, architecture, recipe, engine=engine, optimizer=optimizer)
    generator = torch.Generator().manual_seed(0)
    images_NCHW = torch.randn(recipe.batch_size, *architecture.input_shape, generator=generator)
    labels_N = torch.randint(architecture.num_classes, (recipe.batch_size,), generator=generator)
    layout = torch.channels_last if engine.channels_last else torch.contiguous_format
    images_NCHW = images_NCHW.to(engine.device, dtype=input_dtype(engine)).contiguous(memory_format=layout)
    return (
        step,
        images_NCHW,
        labels_N.to(engine.device),
        lambda: [weight.detach().cpu() for weight in model.parameters()],
    )


def _losses_and_weights(engine: Engine, architecture: Architecture) -> tuple[list[float], list[Tensor], list[Tensor]]:
    """Losses of a few steps, and the weights before and after; SGD, whose steps are as long as the gradients."""
    prepare_process(engine)
    recipe = Recipe(optimizer="sgd", learning_rate=0.05, momentum=0.9, batch_size=16)
    step, images_NCHW, labels_N, weights = prepare_batch(engine, architecture, recipe)
    before = [weight.clone() for weight in weights()]
    losses = [float(step(images_NCHW, labels_N, 0.05)) for _ in range(CHECK_STEPS)]
    return losses, before, weights()


def _difference(
    one: tuple[list[float], list[Tensor], list[Tensor]], plain: tuple[list[float], list[Tensor], list[Tensor]]
) -> tuple[float, float]:
    losses = max(abs(a - b) for a, b in zip(one[0], plain[0], strict=True))
    apart = sum(float((a - b).square().sum()) for a, b in zip(one[2], plain[2], strict=True))
    way = sum(float((after - before).square().sum()) for before, after in zip(plain[1], plain[2], strict=True))
    return losses, (apart / way) ** 0.5


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
