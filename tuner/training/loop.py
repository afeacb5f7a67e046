"""train(candidate, data, ...) -> Iterator[EpochResult]: one network learns, an epoch at a time."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tuner.architecture.cost import SCORED_AT_ONCE, network_cost
from tuner.architecture.factory import build_model, initialise
from tuner.architecture.parts import layers_of
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace
from tuner.data.opening import TrainingData
from tuner.training.candidate import Candidate
from tuner.training.engine import (
    Engine,
    build_optimizer,
    exact_arithmetic,
    input_dtype,
    place,
    prepare_scoring,
    prepare_step,
)
from tuner.training.latency import measure_latency
from tuner.training.schedule import learning_rate_factor
from tuner.training.seeds import derive_seed

EVALUATION_BATCH_GPU, EVALUATION_VALUES_GPU, EVALUATION_LAYER_GPU = 2_048, 2_048 * 3 * 32 * 32, 2**26
"""Images scored at once on a GPU: as many as the first, if their values are no more than the second, and those that any
layer gives for them no more than the third, 256 MiB in fp32; fewer of larger images, and in wider networks."""
NOT_SCORED = math.nan
"""Validation loss and accuracy of an epoch that was not scored."""

Confusion = tuple[tuple[int, ...], ...]
"""Images by class: row t, column p counts those of class t that were taken for p."""
MAX_CONFUSION_CLASSES = 200
"""With more classes nobody reads the matrix, and it is no longer small."""


@dataclass(frozen=True)
class EpochResult:
    """What one epoch came to. Losses are mean cross-entropies in nats; accuracies lie in 0..1; `seconds` is wall time.

    `weights` is the live state dict, to be copied before the next epoch is asked for; None once sent elsewhere.
    `confusion` is of the validation part, None above MAX_CONFUSION_CLASSES. `latency_ms` is of one image; `correct_N`
    says of every validation image, in their order, whether it was classified correctly. Both come with the last epoch
    alone. `seed_index` says which of the seeds that train together it is of, from 0.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    seconds: float
    weights: dict[str, Tensor] | None = field(default=None, repr=False, compare=False)
    confusion: Confusion | None = field(default=None, repr=False, compare=False)
    latency_ms: float | None = field(default=None, compare=False)
    correct_N: NDArray[np.bool_] | None = field(default=None, repr=False, compare=False)
    seed_index: int = 0


class Diverged(Exception):  # noqa: N818 - an outcome that callers expect, not a mistake
    """The loss of an epoch, or what it left of the weights, was not finite."""


def train(
    candidate: Candidate, data: TrainingData, *, engine: Engine, seed: int, scores_all: bool = True
) -> Iterator[EpochResult]:
    """Train a resolved candidate from fresh weights and yield a result after each of its epochs.

    Stop asking, and the training stops. Every epoch draws from a seed of its own, so that epoch n depends on the
    weights before it and on nothing else that was drawn. Raises Diverged when an epoch's loss is not finite, and when
    weights that are not scored are not finite in the end.

    Every epoch is scored on the validation part, or with `scores_all` off the last one alone; without validation rows
    none is. The others have NOT_SCORED.
    """
    recipe = candidate.recipe
    device = torch.device(engine.device)
    model = fresh_model(candidate.architecture, seed, engine=engine)
    optimizer = build_optimizer(model.parameters(), recipe, engine=engine)
    step = prepare_step(model, candidate.architecture, recipe, engine=engine, optimizer=optimizer)
    num_steps = recipe.epochs * math.ceil(len(data.train_indices_N) / recipe.batch_size)
    num_done = 0
    for epoch in range(1, recipe.epochs + 1):
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
        torch.manual_seed(derive_seed(seed, "dropout", epoch))
        loss_sum = torch.zeros((), device=device)
        model.train()
        batches = data.train_batches(
            recipe.batch_size, generator=generator, dtype=input_dtype(engine), channels_last=engine.channels_last
        )
        for images_NCHW, labels_N in batches:
            factor = learning_rate_factor(recipe.schedule, num_done, num_steps=num_steps)
            loss_sum += step(images_NCHW, labels_N, recipe.learning_rate * factor) * len(labels_N)
            num_done += 1
        train_loss = loss_sum.item() / len(data.train_indices_N)
        yield epoch_result(
            model,
            candidate,
            data,
            engine=engine,
            epoch=epoch,
            train_loss=train_loss,
            training_seconds=time.perf_counter() - started,
            scores_all=scores_all,
        )


def fresh_model(architecture: Architecture, seed: int, *, engine: Engine) -> nn.Sequential:
    """A placed model with the weights that training begins with, for a seed."""
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
) -> EpochResult:
    """Score a model that has trained an epoch, where that is asked for. Raises Diverged as `train` does.

    `training_seconds` are those of the epoch before it is scored.
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
        latency_ms=measure_latency(model, candidate.architecture.input_shape, engine=engine) if is_last else None,
        correct_N=correct_N if is_last else None,
    )


def evaluation_batch(device: torch.device, architecture: Architecture) -> int:
    """How many images a network scores at once on a device."""
    parts = trace(architecture)
    if device.type == "cpu":
        return network_cost(parts).scored_at_once
    by_image = EVALUATION_VALUES_GPU // math.prod(architecture.input_shape)
    by_layer = EVALUATION_LAYER_GPU // max(math.prod(layer.output_shape) for layer in layers_of(parts))
    return max(1, min(EVALUATION_BATCH_GPU, by_image, by_layer))


def evaluate(
    model: nn.Sequential, data: TrainingData, *, engine: Engine, batch_size: int = SCORED_AT_ONCE
) -> tuple[float, NDArray[np.bool_], Confusion | None]:
    """Mean cross-entropy on the validation part, and which images are correct, in fp32 whatever training computes in.

    Third the confusion matrix, unless there are more than MAX_CONFUSION_CLASSES. Predictions stay on the device and are
    read once, at the end.
    """
    model.eval()
    forward = prepare_scoring(model, engine=engine)
    device = torch.device(engine.device)
    loss_sum = torch.zeros((), device=device)
    labels_N = data.labels_N[data.validation_indices_N].to(device)
    # Made beforehand: what is kept of every batch would come to lie where its feature maps were, and those of the next
    # batch, for which that gap is now too small, beyond the end of the heap.
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
