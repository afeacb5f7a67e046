"""Training step and scoring of a model, with the engine's layout, precision, blocks and optimizer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tuner.architecture.fused_network import FastForm, Forward, fast_form, scoring_form
from tuner.training.candidate import Recipe
from tuner.training.engine import Engine
from tuner.training.graph import graphed
from tuner.training.optimizers import AnyOptimizer, engine_for, set_learning_rate

Step = Callable[[Tensor, Tensor, float], Tensor]
"""Function that trains on one batch: (images_NCHW, labels_N, learning rate) -> loss, a scalar still on the device.

For several models in one: (images (N, M * C, H, W), labels_MN, learning rate) -> losses_M. Labels are int64, or soft:
the shares of K classes in one more dimension.
"""


def input_dtype(engine: Engine) -> torch.dtype:
    """Return the dtype of a step's images. Fused blocks follow the dtype of their input; autocast casts by itself."""
    return torch.bfloat16 if engine.blocks == "fused" and engine.precision == "bf16" else torch.float32


def place(model: nn.Module, engine: Engine) -> None:
    """Move a model to the engine's device and memory layout."""
    model.to(torch.device(engine.device))
    model.to(memory_format=torch.channels_last if engine.channels_last else torch.contiguous_format)


def prepare_step(
    model: nn.Sequential,
    recipe: Recipe,
    *,
    engine: Engine,
    optimizer: AnyOptimizer,
    class_weights: Tensor | None = None,
) -> Step:
    """Return the engine's training step for a placed model, or for several models that `build_stacked` combined.

    class_weights: weights_K of the classes in the loss, or weights_MK of each model's.
    """
    engine = engine_for(recipe, engine)
    forward = prepare_forward(model, engine=engine)

    def learn(images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        logits_NK = forward(images_NCHW)
        loss = _mean_loss(
            logits_NK.float(), labels_N, label_smoothing=recipe.label_smoothing, class_weights=class_weights
        )
        loss.backward(torch.ones_like(loss))  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(
            set_to_none=True
        )  # here, so that neither the next forward pass nor scoring has them beside it
        return loss.detach()

    learn_fast = graphed(learn, batch_size=recipe.batch_size) if engine.graph else learn

    def step(images_NCHW: Tensor, labels_N: Tensor, learning_rate: float) -> Tensor:
        set_learning_rate(optimizer, learning_rate)
        return learn_fast(images_NCHW, labels_N)

    return step


def prepare_forward(model: nn.Sequential, *, engine: Engine) -> Forward:
    """Return the engine's function from images_NCHW (of `input_dtype`) to logits_NK for training a placed model."""
    form = FastForm(early_pooling=engine.early_pooling, byte_dropout=engine.byte_dropout)
    forward = fast_form(model, form) if engine.blocks == "fused" else model
    autocast = torch.autocast(
        torch.device(engine.device).type,
        dtype=torch.bfloat16,
        enabled=engine.blocks == "layers" and engine.precision == "bf16",
        cache_enabled=not engine.graph,  # a cast kept from outside of a captured graph would go stale in it
    )

    def forward_in_precision(images_NCHW: Tensor) -> Tensor:
        with autocast:
            return forward(images_NCHW)

    return forward_in_precision


def prepare_scoring(model: nn.Sequential, *, engine: Engine) -> Forward:
    """Return the engine's function from images_NCHW (fp32) to logits_NK for evaluating a placed model."""
    return scoring_form(model) if engine.blocks == "fused" else model


def _mean_loss(
    logits: Tensor, labels: Tensor, *, label_smoothing: float, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy in nats: the mean of (N, K) and (N,), or the mean of each of M models of (M, N, K) and (M, N).

    Soft labels have the shape of the logits. With class weights (K) or (M, K), it is torch's weighted mean: the sum
    divided by the sum of the labels' weights, or by N with soft labels.
    """
    if logits.dim() == 2:
        return functional.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing)
    if class_weights is not None:
        return torch.stack(
            [
                functional.cross_entropy(logits_NK, labels_N, weight=weights_K, label_smoothing=label_smoothing)
                for logits_NK, labels_N, weights_K in zip(logits, labels, class_weights, strict=True)
            ]
        )
    losses = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(0, 1), reduction="none", label_smoothing=label_smoothing
    )
    return losses.view(labels.shape[:2]).mean(1)
