"""Check an engine's scores, optimizers and dropout separately. Each function returns the problem, or "" if none.

Legend: M models in one, N images, C channels, H and W sides, h and w sides after pooling, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.architecture.blocks import PlainBlock
from tuner.architecture.blocks.fields import Pooling
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve
from tuner.training.candidate import Recipe
from tuner.training.engine import Engine
from tuner.training.graph import graphed
from tuner.training.loop import fresh_model
from tuner.training.optimizers import build_optimizer, engine_for, set_learning_rate
from tuner.training.process_settings import exact_arithmetic, prepare_process
from tuner.training.step import input_dtype, prepare_forward, prepare_scoring
from tuner.training.synthetic_step import CHECK_STEPS, SEEDS_TOGETHER, Rehearsal, rehearse
from tuner.training.train_together import stack_models

RATES = (0.02, 0.05, 0.03, 0.01, 0.06, 0.04, 0.01, 0.07)
"""The learning rate of each step. Replayed steps have very different rates from the captured step, the fourth.

The rate of the last but one is low, because the gradients of a single image are imprecise in bf16.
"""
SCORED_IMAGES = 32
SCORING_TOLERANCE = 1e-4
"""Largest difference of a logit in evaluation from the plain one, relative to the largest logit. It covers rounding."""
OPTIMIZER_RECIPES = (
    Recipe("sgd", momentum=0.0),
    Recipe("sgd", weight_decay=0.1, momentum=0.9),
    Recipe("adam", weight_decay=0.1),
    Recipe("adamw", weight_decay=0.1),
    Recipe("sgdw", weight_decay=0.1, momentum=0.9),
    Recipe("muon", weight_decay=0.1, momentum=0.9),
)
OPTIMIZER_TOLERANCE = 1e-4
"""Largest difference of the weights from the plain optimizer's, relative to how far these moved. It covers rounding."""
DROPOUT_RATE, LOW_RATE = 0.3, 0.003
"""Dropout rates to check. Blocks with a rate below 1/256 run layer by layer where others are fused."""
DROPOUT_IMAGES = 256
DROPOUT_TOLERANCE = 0.02
"""Tolerance relative to the scale: bf16 rounds by 0.4 %, and a rate in whole 1/256 has its own scale."""
LEAST_SPREAD = 1e-4
"""Losses whose difference is smaller (in nats) come from the same masks; other masks differ tens of times as much."""


def scoring_problem(engine: Engine, learned: Sequence[tuple[Architecture, Mapping[str, Tensor]]]) -> str:
    """Compare the engine's logits in evaluation, which decide the score of every candidate, with the plain model's.

    The networks have the weights that each has learned, and compute in fp32 whatever the engine's precision.
    """
    plain = Engine(device=engine.device, num_threads=engine.num_threads)
    for architecture, state in learned:
        wanted_NK, found_NK = (_scored(one, architecture, state) for one in (plain, engine))
        difference = float((found_NK - wanted_NK).abs().max() / wanted_NK.abs().max())
        if not difference <= SCORING_TOLERANCE:
            return f"its logits in evaluation differ by {difference:.2g}, more than {SCORING_TOLERANCE:.2g}"
    return ""


def _scored(engine: Engine, architecture: Architecture, state: Mapping[str, Tensor]) -> Tensor:
    """Logits (N, K) of random images, computed as `evaluate` in the training loop computes them."""
    prepare_process(engine)
    model = fresh_model(architecture, 0, engine=engine).eval()
    model.load_state_dict(state)
    forward = prepare_scoring(model, engine=engine)
    generator = torch.Generator().manual_seed(0)
    images_NCHW = torch.randn(SCORED_IMAGES, *architecture.input_shape, generator=generator).to(engine.device)
    layout = torch.channels_last if engine.channels_last else torch.contiguous_format
    with torch.inference_mode(), exact_arithmetic():
        return forward(images_NCHW.contiguous(memory_format=layout))


def optimizer_problem(engine: Engine) -> str:
    """Compare the engine's optimizers with the plain ones: same weights, gradients and changing learning rates."""
    plain = Engine(device=engine.device, num_threads=engine.num_threads)
    for recipe in OPTIMIZER_RECIPES:
        before = _optimized(plain, recipe, rates=())
        wanted, found = (_optimized(one, recipe, rates=RATES) for one in (plain, engine))
        difference = float((found - wanted).norm() / (wanted - before).norm())
        if not difference <= OPTIMIZER_TOLERANCE:
            return f"its {recipe.optimizer} differs by {difference:.2g}, more than {OPTIMIZER_TOLERANCE:.2g}"
    return ""


def _optimized(engine: Engine, recipe: Recipe, *, rates: Sequence[float]) -> Tensor:
    """Return all weights after one step at each of the rates; steps are replayed if the engine does so."""
    engine = engine_for(recipe, engine)
    generator = torch.Generator().manual_seed(0)
    layers = (nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16), nn.Conv2d(16, 16, 3, groups=16), nn.Linear(33, 10))
    model = nn.Sequential(*layers).to(engine.device)
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.detach().copy_(torch.randn(parameter.shape, generator=generator))
    optimizer = build_optimizer(model, recipe, engine=engine)

    def learn(gradients_1F: Tensor, _: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = (torch.cat([parameter.flatten() for parameter in parameters]) * gradients_1F).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    learn_fast = graphed(learn, batch_size=1) if engine.graph else learn
    num_weights = sum(parameter.numel() for parameter in parameters)
    for rate in rates:
        gradients_1F = torch.randn(1, num_weights, generator=generator).to(engine.device)
        set_learning_rate(optimizer, rate)
        learn_fast(gradients_1F, gradients_1F)
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def dropout_problem(engine: Engine, seed: int) -> str:
    """Check dropout masks on networks that reveal them: identity convolutions over ones, whose logits are the features.

    The masks are drawn in the engine's precision, after every pooling and in the head. The function checks the share
    that is dropped, the scale of the kept values, and that gradients are masked like the values.
    """
    places = {
        "without pooling": (_mask_architecture("none", block=DROPOUT_RATE), DROPOUT_RATE),
        "after max pooling": (_mask_architecture("max", block=DROPOUT_RATE), DROPOUT_RATE),
        "after average pooling": (_mask_architecture("average", block=DROPOUT_RATE), DROPOUT_RATE),
        "in the head": (_mask_architecture("none", head=DROPOUT_RATE), DROPOUT_RATE),
        "at a low rate": (_mask_architecture("none", block=LOW_RATE), LOW_RATE),
    }
    with masks_from(seed):
        for place, (architecture, rate) in places.items():
            problem = _mask_problem(*_masks(engine, architecture), rate=rate)
            if problem:
                return f"its dropout {place} {problem}"
    return ""


def frozen_problem(engine: Engine, seed: int) -> str:
    """Check that every step draws new masks: without learning, the losses of steps on one batch must differ.

    The last steps are replayed. With the same seed, which every epoch of training sets, the losses must be the same
    again.
    """
    seeds = range(SEEDS_TOGETHER) if engine.seeds_together else range(1)
    with masks_from(seed):
        for architecture in (_mask_architecture("max", block=0.5), _mask_architecture("none", head=0.5)):
            run = rehearse(engine, architecture, Recipe("sgd", batch_size=16), seeds=seeds)
            losses_TM = torch.tensor([run.losses(0, 0.0) for _ in range(CHECK_STEPS)])
            replayed_TM = losses_TM[-3:]
            spread = float((replayed_TM.amax(0) - replayed_TM.amin(0)).min())
            if not spread > LEAST_SPREAD:
                return f"its dropout draws no new masks: the losses of steps that learn nothing differ by {spread:.2g}"
            first_M, second_M = (_losses_after(run, seed + 1) for _ in range(2))
            spread = float((first_M - second_M).abs().max())
            if not spread <= LEAST_SPREAD:
                return f"its dropout does not follow the seed: the losses after the same one differ by {spread:.2g}"
    return ""


def _losses_after(run: Rehearsal, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return torch.tensor(run.losses(0, 0.0))


@contextmanager
def masks_from(seed: int) -> Iterator[None]:
    """Use the random numbers of a seed, for checks of what must not change from one call to the next."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _mask_architecture(pooling: Pooling, *, block: float = 0.0, head: float = 0.0) -> Architecture:
    channels, side = 4, 8
    features = channels * (side if pooling == "none" else side // 2) ** 2
    blocks = (PlainBlock(channels, kernel_size=1, pooling=pooling, dropout=block),)
    return resolve(Architecture(InputSpec(channels, side, side, num_classes=features), blocks, Head(dropout=head)))


def _masks(engine: Engine, architecture: Architecture) -> tuple[Tensor, Tensor]:
    """Return the masks of the values and the masks of the gradients: (M * N, K) each."""
    model = fresh_model(architecture, 0, engine=engine).train()
    for name, weight in model.named_parameters():
        if name.endswith("weight"):
            nn.init.dirac_(weight) if weight.dim() == 4 else nn.init.eye_(weight)
        else:
            nn.init.zeros_(weight)
    num_models = 1
    if engine.seeds_together:
        num_models = 2
        model = stack_models([model] * num_models, architecture, engine=engine)
    channels, height, width = architecture.input_shape
    layout = torch.channels_last if engine.channels_last else torch.contiguous_format
    images_NCHW = torch.ones(DROPOUT_IMAGES, num_models * channels, height, width, dtype=input_dtype(engine))
    images_NCHW = images_NCHW.to(engine.device).contiguous(memory_format=layout).requires_grad_()
    logits = prepare_forward(model, engine=engine)(images_NCHW)
    logits.backward(torch.ones_like(logits))  # type: ignore[no-untyped-call]
    assert images_NCHW.grad is not None
    window = round((prod(architecture.input_shape) / architecture.num_classes) ** 0.5)
    grad_NChw = functional.avg_pool2d(images_NCHW.grad.float(), window) * window**2
    grad_MNK = grad_NChw.reshape(DROPOUT_IMAGES, num_models, -1).transpose(0, 1)
    return logits.detach().float().reshape(-1, architecture.num_classes), grad_MNK.flatten(0, 1)


def _mask_problem(values: Tensor, gradients: Tensor, *, rate: float) -> str:
    share = float((values == 0).float().mean())
    if abs(share - rate) > 1 / 256 + 5 * (rate * (1 - rate) / values.numel()) ** 0.5:
        return f"drops {share:.2%} where {100 * rate:.2g} % is asked for"
    scales = values[values != 0] * (1 - rate)
    furthest = float(scales[(scales - 1).abs().argmax()])
    if not abs(furthest - 1) <= DROPOUT_TOLERANCE:
        return f"multiplies what it keeps by {furthest:.3g} times the right scale"
    apart = float((gradients - values).abs().max())
    return "" if apart <= DROPOUT_TOLERANCE else f"has gradients that differ by {apart:.2g}"
