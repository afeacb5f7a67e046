"""A model and random batches, for trying how an engine computes its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.architecture.spec import Architecture
from tuner.architecture.stacked import stack_images, unstack_states
from tuner.training.augmentation import has_soft_labels
from tuner.training.candidate import Recipe
from tuner.training.engine import Engine
from tuner.training.graph import WARM_UP_STEPS
from tuner.training.loop import fresh_model
from tuner.training.optimizers import build_optimizer
from tuner.training.step import Step, input_dtype, prepare_step
from tuner.training.train_together import stack_models

CHECK_STEPS = WARM_UP_STEPS + 4
"""Enough steps for a captured graph to be replayed, and to be replayed again after a batch that it cannot take."""
SEEDS_TOGETHER = 3
"""Number of seeds when joint training is timed and checked. It is also the default of a confirmation."""


@dataclass(frozen=True)
class Rehearsal:
    """A training step and (images_NCHW, labels_N) to run it on; `states` returns the state dict of each seed."""

    step: Step
    batches: list[tuple[Tensor, Tensor]]
    states: Callable[[], list[dict[str, Tensor]]]

    def losses(self, number: int, learning_rate: float) -> list[float]:
        """Take a step on the batch with this number, and return the loss of each seed."""
        losses: list[float] = self.step(*self.batches[number], learning_rate).view(-1).tolist()
        return losses


def rehearse(
    engine: Engine,
    architecture: Architecture,
    recipe: Recipe,
    *,
    seeds: Sequence[int] = (0,),
    with_stray: bool = False,
    batch_sizes: Sequence[int] = (),
) -> Rehearsal:
    """Return a model and random batches, drawn from the seed or, if the engine trains seeds together, from each seed.

    `with_stray` adds a model with NaN weights to the models that train together. Without `batch_sizes` there is one
    batch, of the recipe's batch size. Labels are soft (N, K) if the recipe mixes images.
    """
    models = [fresh_model(architecture, seed, engine=engine).train() for seed in seeds]
    sizes, is_soft = batch_sizes or [recipe.batch_size], has_soft_labels(recipe)
    noise = [_noise(engine, architecture, sizes, seed, is_soft=is_soft) for seed in seeds]
    if not engine.seeds_together:
        (batches,) = noise
        (model,) = models
    else:
        if with_stray:
            models.append(fresh_model(architecture, 0, engine=engine).train())
            for weight in models[-1].parameters():
                weight.detach().fill_(torch.nan)
            noise.append(noise[0])
        batches = []
        for parts in zip(*noise, strict=True):
            images, labels = zip(*parts, strict=True)
            batches.append((stack_images(images, channels_last=engine.channels_last), torch.stack(labels)))
        model = stack_models(models, architecture, engine=engine)
    optimizer = build_optimizer(model, recipe, engine=engine)
    step = prepare_step(model, recipe, engine=engine, optimizer=optimizer)

    def states() -> list[dict[str, Tensor]]:
        state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
        return unstack_states(state, len(models))[: len(seeds)]

    return Rehearsal(step, batches, states)


def _noise(
    engine: Engine, architecture: Architecture, batch_sizes: Sequence[int], seed: int, *, is_soft: bool
) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    layout = torch.channels_last if engine.channels_last else torch.contiguous_format
    batches = []
    for batch_size in batch_sizes:
        images_NCHW = torch.randn(batch_size, *architecture.input_shape, generator=generator)
        labels_N = torch.randint(architecture.num_classes, (batch_size,), generator=generator)
        if is_soft:
            labels_N = torch.rand(batch_size, architecture.num_classes, generator=generator).softmax(1)
        images_NCHW = images_NCHW.to(engine.device, dtype=input_dtype(engine)).contiguous(memory_format=layout)
        batches.append((images_NCHW, labels_N.to(engine.device)))
    return batches
