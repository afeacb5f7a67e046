"""The check of an engine finds a single tensor that is wrong: a gradient, a running statistic, a kind of pooling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.training.measurements import FUSED
from tuner.architecture import fused_block, fused_network, stacked
from tuner.architecture.layers import BatchNorm2d
from tuner.training.engine import Engine
from tuner.training.engine_check import check_engine
from tuner.training.graph import Learn

LAYERS = Engine(optimizer="fused")
both_precisions = pytest.mark.parametrize("precision", ["fp32", "bf16"])


def put_operation(monkeypatch: pytest.MonkeyPatch, name: str, wrong: Callable[..., Any]) -> None:
    """In fused blocks alone, `wrong(right, *arguments)` in the place of an operation of torch.ops.aten."""
    right = getattr(torch.ops.aten, name)

    class Operations:
        def __getattr__(self, asked: str) -> Any:
            return (lambda *rest: wrong(right, *rest)) if asked == name else getattr(torch.ops.aten, asked)

    monkeypatch.setattr(fused_block, "aten", Operations())


def never_tracked(right: Callable[..., Any], *rest: Any) -> Any:
    """(values, gamma, beta, mean, variance, ...): the running statistics of a copy are updated."""
    return right(*rest[:3], rest[3].clone(), rest[4].clone(), *rest[5:])


def tracked_too_fast(right: Callable[..., Any], *rest: Any) -> Any:
    """(..., whether it trains, momentum, epsilon)."""
    return right(*rest[:6], 0.9, *rest[7:])


@both_precisions
@pytest.mark.parametrize("wrong", [never_tracked, tracked_too_fast])
def test_wrong_running_statistics_of_fused_blocks_are_found(
    wrong: Callable[..., Any], precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_operation(monkeypatch, "native_batch_norm", wrong)
    assert "its BatchNorm2d running_" in check_engine(replace(FUSED, precision=precision)).problem


@both_precisions
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_wrong_running_statistics_of_seeds_together_are_found(
    momentum: float, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stacked, "BatchNorm2d", lambda channels: BatchNorm2d(channels, momentum=momentum))
    engine = replace(LAYERS, precision=precision, seeds_together=True)
    assert "its BatchNorm2d running_" in check_engine(engine).problem


@both_precisions
def test_a_graph_that_leaves_the_running_statistics_as_they_are_is_found(
    precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = functional.batch_norm

    def of_copies(x: Tensor, mean: Tensor, variance: Tensor, *rest: Any) -> Tensor:
        return right(x, mean.clone(), variance.clone(), *rest)

    def graphed(learn: Learn, *, batch_size: int) -> Learn:
        def step(images: Tensor, labels: Tensor) -> Tensor:
            with pytest.MonkeyPatch.context() as inside:
                inside.setattr(functional, "batch_norm", of_copies)
                return learn(images, labels)

        return step

    monkeypatch.setattr("tuner.training.step.graphed", graphed)
    monkeypatch.setattr("tuner.training.engine_check_parts.graphed", graphed)
    engine = replace(LAYERS, precision=precision, graph=True)
    assert "its BatchNorm2d running_" in check_engine(engine).problem


GRADIENTS = ("Conv2d weight", "Conv2d bias", "BatchNorm2d weight", "BatchNorm2d bias")
"""Of a fused block, in the order in which its way back returns them, after that of its input."""


@pytest.mark.parametrize(("precision", "factor"), [("fp32", 0.0), ("fp32", 0.95), ("bf16", 0.0)])
@pytest.mark.parametrize("tensor", GRADIENTS)
def test_a_wrong_gradient_of_any_one_tensor_of_a_block_is_found(
    tensor: str, precision: Any, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 1 + GRADIENTS.index(tensor)
    backward = fused_block._Block.backward

    def wrong(ctx: Any, grad: Tensor) -> Any:
        grads = list(backward(ctx, grad))
        grads[number] = None if grads[number] is None else grads[number] * factor
        return tuple(grads)

    monkeypatch.setattr(fused_block._Block, "backward", staticmethod(wrong))
    assert "differ" in check_engine(replace(FUSED, precision=precision)).problem


@both_precisions
def test_a_bias_of_the_head_that_learns_nothing_is_found(precision: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    right = fused_network._cast

    def detached(bias: Tensor | None, like: Tensor) -> Tensor | None:
        is_of_head = like.dim() == 2
        return right(bias.detach() if is_of_head and bias is not None else bias, like)

    monkeypatch.setattr(fused_network, "_cast", detached)
    check = check_engine(replace(FUSED, precision=precision))
    assert "differ" in check.problem
    assert check.tensor_difference == pytest.approx(1, abs=0.01)


def times(factor: float, *, size: int, stride: int) -> Callable[..., Any]:
    """Of an operation with these windows alone: its values, or its gradient, times a factor."""

    def wrong(right: Callable[..., Any], *rest: Any) -> Any:
        out = right(*rest)
        windows = [argument for argument in rest if isinstance(argument, list)]
        if windows[:2] != [[size] * 2, [stride] * 2]:
            return out
        return (out[0] * factor, out[1]) if isinstance(out, tuple) else out * factor

    return wrong


@both_precisions
@pytest.mark.parametrize("early_pooling", [False, True], ids=["late", "early"])
@pytest.mark.parametrize(
    ("operation", "windows"),
    [
        ("avg_pool2d", (3, 2)),
        ("avg_pool2d", (2, 3)),
        ("avg_pool2d_backward", (3, 2)),
        ("avg_pool2d_backward", (2, 3)),
        ("max_pool2d_with_indices", (2, 2)),
        ("max_pool2d_with_indices", (3, 2)),
        ("max_pool2d_with_indices_backward", (2, 2)),
        ("max_pool2d_with_indices_backward", (3, 2)),
    ],
)
def test_a_wrong_pooling_of_any_windows_is_found(
    operation: str, windows: tuple[int, int], early_pooling: bool, precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, stride = windows
    put_operation(monkeypatch, operation, times(3, size=size, stride=stride))
    engine = replace(FUSED, precision=precision, early_pooling=early_pooling)
    assert "differ" in check_engine(engine).problem
