"""Train several seeds of one candidate in the same steps, as one wider network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tuner.architecture.spec import Architecture
from tuner.architecture.stacked import build_stacked, stack_images, stack_states, unstack_states
from tuner.data.training_data import TrainingData
from tuner.training.candidate import Candidate
from tuner.training.class_weights import class_weights_of
from tuner.training.engine import Engine
from tuner.training.loop import epoch_batches, epoch_result, fresh_model, train_epochs
from tuner.training.results import Diverged, EpochResult
from tuner.training.step import place
from tuner.training.weight_average import WeightAverage

# Shape suffixes: M models, one for each seed; N images, C channels, H height, W width.


def train_together(
    candidate: Candidate,
    datas: Sequence[TrainingData],
    *,
    engine: Engine,
    seeds: Sequence[int],
    scores_all: bool = True,
) -> Iterator[list[EpochResult]]:
    """Train a resolved candidate with several seeds at once, each on its own data; yield each epoch's results by seed.

    Each seed trains as with `train`: with the same initial weights, batches, rates and scores. Without dropout, the
    results are therefore the same except for rounding. With dropout, the masks differ, because they are drawn for all
    models from all seeds. The seconds are divided equally among the seeds.

    A seed whose loss is not finite has no result in that epoch or any later one. The other seeds continue, and training
    ends when none is left. Raises ValueError unless all seeds train on the same number of images.
    """
    num_images = len(datas[0].train_indices_N)
    if any(len(data.train_indices_N) != num_images for data in datas):
        raise ValueError(
            "seeds that train together must have equally many images, so that they take the same number of steps"
        )
    architecture = candidate.architecture
    assert isinstance(architecture, Architecture), "seeds of a pretrained network train one after another"
    models = [fresh_model(architecture, seed, engine=engine) for seed in seeds]
    stacked = stack_models(models, architecture, engine=engine)
    average = WeightAverage(stacked, decay=candidate.recipe.ema) if candidate.recipe.ema else None
    given = [class_weights_of(candidate.recipe, data) for data in datas]
    weights_of_each = [weights_K for weights_K in given if weights_K is not None]

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return _batches_together(datas, candidate, engine=engine, seeds=seeds, epoch=epoch)

    going_on = list(range(len(seeds)))
    for trained in train_epochs(
        stacked,
        candidate,
        batches,
        engine=engine,
        seeds=seeds,
        num_images=num_images,
        average=average,
        class_weights=torch.stack(weights_of_each) if weights_of_each else None,
    ):
        seconds = trained.seconds / len(going_on)
        states = unstack_states((average.model if average else stacked).state_dict(), len(seeds))
        results = []
        for number in going_on:
            model = models[number]
            model.load_state_dict(states[number])
            try:
                result = epoch_result(
                    model,
                    candidate,
                    datas[number],
                    engine=engine,
                    epoch=trained.epoch,
                    train_loss=trained.losses[number],
                    training_seconds=seconds,
                    scores_all=scores_all,
                )
            except Diverged:
                continue
            results.append(replace(result, seed_index=number))
        going_on = [result.seed_index for result in results]
        yield results
        if not going_on:
            return


def stack_models(models: Sequence[nn.Module], architecture: Architecture, *, engine: Engine) -> nn.Sequential:
    """Build the stacked network of models of this architecture, with copies of their weights, in training mode."""
    stacked = build_stacked(architecture, len(models))
    stacked.load_state_dict(stack_states([model.state_dict() for model in models]))
    place(stacked, engine)
    return stacked.train()


def _batches_together(
    datas: Sequence[TrainingData], candidate: Candidate, *, engine: Engine, seeds: Sequence[int], epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch, each seed in its own order: (images (N, M * C, H, W), labels (M, N)).

    Soft labels are (M, N, K).
    """
    passes = [
        epoch_batches(data, candidate, engine=engine, seed=seed, epoch=epoch)
        for data, seed in zip(datas, seeds, strict=True)
    ]
    for batches in zip(*passes, strict=True):
        images, labels = zip(*batches, strict=True)
        yield stack_images(images, channels_last=engine.channels_last), torch.stack(labels)
