"""The check of an engine, on engines that are wrong on purpose: each is found, and none that is right."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.training.measurements import FUSED
from tuner.training.engine import Engine
from tuner.training.engine_check import check_engine
from tuner.training.graph import WARM_UP_STEPS, Learn

LAYERS = Engine(optimizer="fused")
Patch = Callable[[str, Callable[..., Any]], None]


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> Patch:
    """Put in the place of a function what is made of it."""

    def put(place: str, make: Callable[..., Any]) -> None:
        owner, _, name = place.rpartition(".")
        holder = pkgutil.resolve_name(owner)
        monkeypatch.setattr(holder, name, make(getattr(holder, name)))

    return put


def graph_as(patch: Patch, replayed: Callable[[Learn], Learn], short: Callable[[Learn], Learn] | None = None) -> None:
    """A stand-in for CUDA graphs on the CPU: the first steps as they come, then those of `replayed`.

    Batches of another size are learned as they come, or as `short` does.
    """

    def make(_: object) -> Callable[..., Learn]:
        def graphed(learn: Learn, *, batch_size: int) -> Learn:
            num_done, replay = 0, replayed(learn)
            learn_short = short(learn) if short else learn

            def step(images: Tensor, labels: Tensor) -> Tensor:
                nonlocal num_done
                if len(images) != batch_size:
                    return learn_short(images, labels)
                num_done += 1
                return (learn if num_done <= WARM_UP_STEPS else replay)(images, labels)

            return step

        return graphed

    patch("tuner.training.step.graphed", make)
    patch("tuner.training.engine_check_parts.graphed", make)


def of_the_first_batch(learn: Learn) -> Learn:
    captured: list[tuple[Tensor, Tensor]] = []

    def replay(*batch: Tensor) -> Tensor:
        captured.append((batch[0], batch[1]))
        return learn(*captured[0])

    return replay


def with_the_masks_of_the_capture(learn: Learn) -> Learn:
    def replay(images: Tensor, labels: Tensor) -> Tensor:
        torch.manual_seed(7)
        return learn(images, labels)

    return replay


def with_the_seeds_of_its_own(learn: Learn) -> Learn:
    num_replays = 0

    def replay(images: Tensor, labels: Tensor) -> Tensor:
        nonlocal num_replays
        num_replays += 1
        torch.manual_seed(1_000 + num_replays)
        return learn(images, labels)

    return replay


def not_at_all(learn: Learn) -> Learn:
    """A loss, but no step."""
    return lambda images, labels: torch.zeros(())


def only_before_a_short_batch(patch: Patch) -> None:
    is_over = False

    def short(learn: Learn) -> Learn:
        def step(images: Tensor, labels: Tensor) -> Tensor:
            nonlocal is_over
            is_over = True
            return learn(images, labels)

        return step

    def replayed(learn: Learn) -> Learn:
        captured = of_the_first_batch(learn)
        return lambda images, labels: (captured if is_over else learn)(images, labels)

    graph_as(patch, replayed, short)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("base", [LAYERS, FUSED], ids=["layers", "fused"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_right_ways_pass_whatever_the_seed(base: Engine, precision: Any, seed: int) -> None:
    for engine in (base, replace(base, seeds_together=True)):
        assert check_engine(replace(engine, precision=precision), seed=seed).problem == ""


@pytest.mark.parametrize("base", [LAYERS, FUSED], ids=["layers", "fused"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_replay_that_learns_each_batch_passes(base: Engine, precision: Any, patch: Patch) -> None:
    graph_as(patch, lambda learn: learn)
    assert check_engine(replace(base, precision=precision, graph=True)).problem == ""


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graph_that_does_not_learn_a_short_batch_is_found(precision: Any, patch: Patch) -> None:
    graph_as(patch, lambda learn: learn, not_at_all)
    assert "differ" in check_engine(replace(LAYERS, precision=precision, graph=True)).problem


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_graph_that_is_wrong_after_a_short_batch_is_found(precision: Any, patch: Patch) -> None:
    only_before_a_short_batch(patch)
    assert "differ" in check_engine(replace(LAYERS, precision=precision, graph=True)).problem


@pytest.mark.parametrize("base", [LAYERS, FUSED], ids=["layers", "fused"])
def test_a_replay_that_does_not_follow_the_seed_is_found(base: Engine, patch: Patch) -> None:
    graph_as(patch, with_the_seeds_of_its_own)
    assert "does not follow the seed" in check_engine(replace(base, graph=True)).problem


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_replay_that_always_learns_the_first_batch_is_found(precision: Any, patch: Patch) -> None:
    graph_as(patch, of_the_first_batch)
    assert "losses differ" in check_engine(replace(LAYERS, precision=precision, graph=True)).problem


@pytest.mark.parametrize("base", [LAYERS, FUSED], ids=["layers", "fused"])
def test_a_replay_with_the_same_masks_each_time_is_found(base: Engine, patch: Patch) -> None:
    graph_as(patch, with_the_masks_of_the_capture)
    assert "draws no new masks" in check_engine(replace(base, graph=True)).problem


def never(function: Callable[..., None]) -> Callable[..., None]:
    return lambda optimizer, rate: None


def at_first(function: Callable[..., None]) -> Callable[..., None]:
    """What a captured step does that has a number for its rate."""
    num_steps: dict[int, int] = {}

    def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
        number = num_steps[id(optimizer)] = num_steps.get(id(optimizer), 0) + 1
        if number <= WARM_UP_STEPS + 1:
            function(optimizer, rate)

    return set_rate


@pytest.mark.parametrize("wrong", [never, at_first])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_learning_rate_that_is_not_updated_is_found(wrong: Callable[..., Any], precision: Any, patch: Patch) -> None:
    graph_as(patch, lambda learn: learn)

    def of_tensors(function: Callable[..., None]) -> Callable[..., None]:
        wrongly = wrong(function)
        return lambda optimizer, rate: (wrongly if isinstance(optimizer.param_groups[0]["lr"], Tensor) else function)(
            optimizer, rate
        )

    patch("tuner.training.step.set_learning_rate", of_tensors)
    assert "differ" in check_engine(replace(LAYERS, precision=precision, graph=True)).problem


def uphill(function: Callable[..., None]) -> Callable[..., None]:
    return lambda params, grads, *rest, **options: function(params, [-grad for grad in grads], *rest, **options)


def idle(function: Callable[..., None]) -> Callable[..., None]:
    return lambda *rest, **options: None


def without(**changes: Any) -> Callable[..., Any]:
    return lambda function: lambda *rest, **options: function(*rest, **(options | changes))


@pytest.mark.parametrize(
    ("name", "place", "wrong"),
    [
        ("adam", "torch.optim.adam._fused_adam", uphill),
        ("adam", "torch.optim.adam._fused_adam", without(weight_decay=0.0)),
        ("adamw", "torch.optim.adam._fused_adam", idle),
        ("adamw", "torch.optim.adam._fused_adam", without(weight_decay=0.0)),
        ("sgd", "torch.optim.sgd._fused_sgd", without(weight_decay=0.0)),
        ("sgd", "torch.optim.sgd._fused_sgd", without(momentum=0.8)),
        ("sgd", "torch.optim.sgd._fused_sgd", without(nesterov=False)),
    ],
)
def test_a_wrong_fused_optimizer_is_found(name: str, place: str, wrong: Callable[..., Any], patch: Patch) -> None:
    def of_this_one(function: Callable[..., None]) -> Callable[..., None]:
        wrongly = wrong(function)
        if name == "sgd":
            return wrongly  # type: ignore[no-any-return]

        def step(*rest: Any, **options: Any) -> None:
            (wrongly if options["decoupled_weight_decay"] == (name == "adamw") else function)(*rest, **options)

        return step

    patch(place, of_this_one)
    assert check_engine(Engine()).problem == ""
    problem = check_engine(LAYERS).problem
    assert ("differ" if name == "sgd" else f"its {name} differs") in problem


def test_label_smoothing_that_is_left_out_is_found(patch: Patch) -> None:
    def without_smoothing_of_many(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda logits, labels, *, label_smoothing, **options: function(
            logits, labels, label_smoothing=label_smoothing if labels.dim() == 1 else 0.0, **options
        )

    patch("tuner.training.step._mean_loss", without_smoothing_of_many)
    assert "losses differ" in check_engine(Engine(seeds_together=True)).problem


def test_soft_labels_that_are_taken_for_one_class_are_found(patch: Patch) -> None:
    def with_hard_labels_of_many(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda logits, labels, *, label_smoothing: function(
            logits, labels.argmax(2) if labels.dim() == 3 else labels, label_smoothing=label_smoothing
        )

    patch("tuner.training.step._mean_loss", with_hard_labels_of_many)
    assert "losses differ" in check_engine(Engine(seeds_together=True)).problem


def scaled(factor: float, *, pooled: bool | None) -> Callable[..., Any]:
    """Masks times a factor: all, or only where average pooling has folded its scale in, or where it has not."""

    def make(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def mask(plan: Any, like: Tensor, *, scale: float) -> Tensor:
            is_meant = pooled is None or (scale != 1) == pooled
            return function(plan, like, scale=scale) * (factor if is_meant else 1)

        return mask

    return make


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("byte_dropout", [False, True])
@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (scaled(0, pooled=None), "drops 100.00%"),
        (scaled(7, pooled=False), "without pooling multiplies what it keeps by"),
        (scaled(4, pooled=True), "after average pooling multiplies what it keeps by"),
        (scaled(1.05, pooled=None), "multiplies what it keeps by 1.0"),
    ],
)
def test_a_wrong_dropout_of_fused_blocks_is_found(
    wrong: Callable[..., Any], problem: str, byte_dropout: bool, precision: Any, patch: Patch
) -> None:
    patch("tuner.architecture.fused_block._dropout_mask", wrong)
    assert problem in check_engine(replace(FUSED, byte_dropout=byte_dropout, precision=precision)).problem


def test_a_dropout_of_fused_blocks_that_drops_too_few_is_found(patch: Patch) -> None:
    patch("tuner.architecture.fused_block.keep_of_256_from", lambda function: lambda rate: 200)
    assert "drops 2" in check_engine(FUSED).problem


def test_gradients_that_do_not_meet_the_mask_of_the_values_are_found(patch: Patch) -> None:
    def shifted(function: Callable[..., Any]) -> Callable[..., Any]:
        def backward(ctx: Any, grad: Tensor) -> Any:
            if ctx.mask is not None:
                ctx.mask = ctx.mask.roll(1)
            return function(ctx, grad)

        return staticmethod(backward)  # type: ignore[return-value]

    patch("tuner.architecture.fused_block._Block.backward", shifted)
    assert "has gradients that differ" in check_engine(FUSED).problem


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_mask_of_fused_blocks_that_is_kept_is_found(precision: Any, patch: Patch) -> None:
    def kept(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        masks: dict[Any, Tensor] = {}

        def mask(plan: Any, like: Tensor, *, scale: float) -> Tensor:
            return masks.setdefault((plan, like.shape, scale), function(plan, like, scale=scale))

        return mask

    patch("tuner.architecture.fused_block._dropout_mask", kept)
    assert "draws no new masks" in check_engine(replace(FUSED, precision=precision)).problem
