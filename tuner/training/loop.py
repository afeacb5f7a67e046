"""The training loop: train one network, and yield an EpochResult after each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tuner.architecture.any_architecture import AnyArchitecture, cost_of
from tuner.architecture.cost import SCORED_AT_ONCE
from tuner.architecture.factory import build_model, initialise
from tuner.architecture.parts import layers_of
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace
from tuner.data.training_data import TrainingData
from tuner.training.augmentation import draw_augmentation
from tuner.training.candidate import Candidate
from tuner.training.class_weights import class_weights_of
from tuner.training.engine import Engine
from tuner.training.latency import measure_latency
from tuner.training.optimizers import build_optimizer
from tuner.training.process_settings import exact_arithmetic
from tuner.training.results import MAX_CONFUSION_CLASSES, NOT_SCORED, Confusion, Diverged, EpochResult
from tuner.training.schedule import learning_rate_factor
from tuner.training.seeds import derive_seed
from tuner.training.step import input_dtype, place, prepare_scoring, prepare_step
from tuner.training.weight_average import WeightAverage

EVALUATION_BATCH_GPU, EVALUATION_VALUES_GPU, EVALUATION_LAYER_GPU = 2_048, 2_048 * 3 * 32 * 32, 2**26
"""Limits for the images that are scored at once on a GPU, which are fewer for larger images and wider networks.

They are the number of images, the number of their values, and the number of values in the output of any one layer (256
MiB in fp32).
"""


def train(
    candidate: Candidate,
    data: TrainingData,
    *,
    engine: Engine,
    seed: int,
    scores_all: bool = True,
    model: nn.Sequential | None = None,
) -> Iterator[EpochResult]:
    """Train a resolved candidate from fresh weights and yield a result after each epoch.

    model: a placed model to train from its present weights, in place of a fresh one. Its latency is not measured.

    Training stops when the caller closes the iterator. Every epoch has its own random seed, so epoch n depends only on
    the weights and their average before it, and on the optimizer's state. With `ema`, scores and weights are those of
    the average. Raises Diverged if the loss of an epoch is not finite, or if weights that are not scored are
    not finite at the end.

    Every epoch is scored on the validation part, or only the last one if `scores_all` is false; none is scored if there
    are no validation rows. Epochs without a score have NOT_SCORED.
    """
    has_own_model = model is None
    if model is None:
        assert isinstance(candidate.architecture, Architecture)
        model = fresh_model(candidate.architecture, seed, engine=engine)
    average = WeightAverage(model, decay=candidate.recipe.ema) if candidate.recipe.ema else None

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return epoch_batches(data, candidate, engine=engine, seed=seed, epoch=epoch)

    for trained in train_epochs(
        model,
        candidate,
        batches,
        engine=engine,
        seeds=[seed],
        num_images=len(data.train_indices_N),
        average=average,
        class_weights=class_weights_of(candidate.recipe, data),
    ):
        yield epoch_result(
            average.model if average else model,
            candidate,
            data,
            engine=engine,
            epoch=trained.epoch,
            train_loss=trained.losses[0],
            training_seconds=trained.seconds,
            scores_all=scores_all,
            measures_latency=has_own_model,
        )


@dataclass(frozen=True)
class TrainedEpoch:
    """An epoch before it is scored. losses: the mean training loss of each seed. seconds: wall time."""

    epoch: int
    losses: list[float]
    seconds: float


def train_epochs(
    model: nn.Sequential,
    candidate: Candidate,
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]],
    *,
    engine: Engine,
    seeds: Sequence[int],
    num_images: int,
    average: WeightAverage | None = None,
    class_weights: Tensor | None = None,
) -> Iterator[TrainedEpoch]:
    """Train a placed model, and yield after each epoch, so that the caller can score or copy the weights.

    model: the model of one seed, or the stacked models of several seeds. batches: function from the number of an epoch,
    from 1, to its images and labels. num_images: number of images that each seed trains on in an epoch. average: the
    average to update after every step. class_weights: as in `prepare_step`, on any device.
    """
    recipe, device = candidate.recipe, torch.device(engine.device)
    optimizer = build_optimizer(model, recipe, engine=engine)
    step = prepare_step(
        model,
        recipe,
        engine=engine,
        optimizer=optimizer,
        class_weights=None if class_weights is None else class_weights.to(device),
    )
    steps_per_epoch = math.ceil(num_images / recipe.batch_size)
    num_steps = recipe.epochs * steps_per_epoch
    # Weights, their average, the optimizer's state and the number of epochs done are all that an epoch depends on: a
    # training that begins later would load the first three here, and count from the last.
    num_epochs_done = 0
    num_steps_done = num_epochs_done * steps_per_epoch
    for epoch in range(num_epochs_done + 1, recipe.epochs + 1):
        started = time.perf_counter()
        torch.manual_seed(derive_seed(*seeds, "dropout", epoch))
        loss_sums_M = torch.zeros(len(seeds), device=device)
        model.train()
        for images, labels in batches(epoch):
            factor = learning_rate_factor(recipe.schedule, num_steps_done, num_steps=num_steps, warm_up=recipe.warm_up)
            loss_sums_M += step(images, labels, recipe.learning_rate * factor) * len(images)
            if average is not None:
                average.follow(num_steps_done)
            num_steps_done += 1
        losses = [loss_sum / num_images for loss_sum in loss_sums_M.tolist()]
        yield TrainedEpoch(epoch, losses, time.perf_counter() - started)


def epoch_batches(
    data: TrainingData, candidate: Candidate, *, engine: Engine, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch in the order of a random seed: (images_NCHW, labels_N), or labels (N, K) if mixed.

    The recipe's augmentation has a seed of its own.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    num_images = len(data.train_indices_N)
    return data.train_batches(
        candidate.recipe.batch_size,
        generator=generator,
        dtype=input_dtype(engine),
        channels_last=engine.channels_last,
        augmentation=draw_augmentation(candidate, engine=engine, seed=seed, epoch=epoch, num_images=num_images),
    )


def fresh_model(architecture: Architecture, seed: int, *, engine: Engine) -> nn.Sequential:
    """Build a placed model with the initial weights of a random seed."""
    model = build_model(architecture)
    initialise(model, seed=derive_seed(seed, "weights"))
    place(model, engine)
    return model


def epoch_result(
    model: nn.Sequential,
    candidate: Candidate,
    data: TrainingData,
    *,
    engine: Engine,
    epoch: int,
    train_loss: float,
    training_seconds: float,
    scores_all: bool,
    measures_latency: bool = True,
) -> EpochResult:
    """Score a model after an epoch if requested, and return the result. Raises Diverged as `train` does.

    `training_seconds` are the seconds of the epoch without scoring.
    """
    started = time.perf_counter()
    is_last = epoch == candidate.recipe.epochs
    is_scored = len(data.validation_indices_N) > 0 and (scores_all or is_last)
    validation_loss = validation_accuracy = NOT_SCORED
    confusion = correct_N = None
    if is_scored:
        batch_size = evaluation_batch(torch.device(engine.device), candidate.architecture)
        validation_loss, correct_N, confusion = evaluate(model, data, engine=engine, batch_size=batch_size)
        validation_accuracy = int(correct_N.sum()) / len(correct_N)
    if not math.isfinite(train_loss) or (is_scored and not math.isfinite(validation_loss)):
        what, value = ("validation", validation_loss) if math.isfinite(train_loss) else ("training", train_loss)
        raise Diverged(f"the {what} loss of epoch {epoch} is {value}")
    weights = model.state_dict()
    # The last step comes after the last loss; where nothing is scored, nothing else would show what it did.
    if is_last and not is_scored and not all(bool(weight.isfinite().all()) for weight in weights.values()):
        raise Diverged(f"the weights after epoch {epoch} are not finite")
    seconds = training_seconds + time.perf_counter() - started
    return EpochResult(
        epoch,
        train_loss,
        validation_loss,
        validation_accuracy,
        seconds,
        weights=weights,
        confusion=confusion,
        latency_ms=measure_latency(model, candidate.architecture.input_shape, engine=engine)
        if is_last and measures_latency
        else None,
        correct_N=correct_N if is_last else None,
    )


def evaluation_batch(device: torch.device, architecture: AnyArchitecture) -> int:
    """How many images a network scores at once on a device."""
    cost = cost_of(architecture)
    if device.type == "cpu":
        return cost.scored_at_once
    by_image = EVALUATION_VALUES_GPU // math.prod(architecture.input_shape)
    if isinstance(architecture, Architecture):
        widest = max(math.prod(layer.output_shape) for layer in layers_of(trace(architecture)))
    else:
        widest = cost.widest
    by_layer = EVALUATION_LAYER_GPU // widest
    return max(1, min(EVALUATION_BATCH_GPU, by_image, by_layer))


def evaluate(
    model: nn.Sequential, data: TrainingData, *, engine: Engine, batch_size: int = SCORED_AT_ONCE
) -> tuple[float, NDArray[np.bool_], Confusion | None]:
    """Return the mean cross-entropy on the validation part, and which images are correct; computed in fp32.

    The third value is the confusion matrix, or None if there are more than MAX_CONFUSION_CLASSES classes. Predictions
    stay on the device and are read once, at the end.
    """
    model.eval()
    forward = prepare_scoring(model, engine=engine)
    device = torch.device(engine.device)
    loss_sum = torch.zeros((), device=device)
    labels_N = data.labels_N[data.validation_indices_N].to(device)
    # Made beforehand: predictions kept of every batch would take memory where its feature maps were. The gap would then
    # be too small for the feature maps of the next batch, and the heap would grow.
    predictions_N, num_done = torch.empty_like(labels_N), 0
    with torch.inference_mode(), exact_arithmetic():
        batches = data.validation_batches(batch_size, dtype=torch.float32, channels_last=engine.channels_last)
        for images_BCHW, labels_B in batches:
            logits_BK = forward(images_BCHW)
            loss_sum += functional.cross_entropy(logits_BK, labels_B, reduction="sum")
            predictions_N[num_done : num_done + len(labels_B)] = logits_BK.argmax(1)
            num_done += len(labels_B)
        correct_N: NDArray[np.bool_] = (predictions_N == labels_N).cpu().numpy()
        num_classes = len(data.class_names)
        confusion = None
        if num_classes <= MAX_CONFUSION_CLASSES:
            cells = torch.bincount(labels_N * num_classes + predictions_N, minlength=num_classes**2)
            confusion = tuple(map(tuple, cells.view(num_classes, num_classes).tolist()))
    return loss_sum.item() / len(labels_N), correct_N, confusion
