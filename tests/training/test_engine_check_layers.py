"""The check of an engine finds what is wrong where blocks are not fused but run layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from torch import Tensor, nn
from torch.nn import functional

from tests.training.measurements import FUSED
from tuner.architecture import fused_network
from tuner.training.engine import Engine
from tuner.training.engine_check import check_engine


def one_image(x: Tensor) -> bool:
    return len(x) == 1


def several_images(x: Tensor) -> bool:
    return len(x) > 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("is_wrong", [one_image, several_images])
def test_a_wrong_convolution_of_one_image_or_at_a_rate_that_cannot_be_fused_is_found(
    is_wrong: Callable[[Tensor], bool], precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = fused_network._in_any_precision

    def constant(module: nn.Module, form: fused_network.FastForm) -> fused_network.Forward:
        layer = right(module, form)
        if not isinstance(module, nn.Conv2d):
            return layer
        return lambda x: layer(x) * 0 + 7 if is_wrong(x) else layer(x)

    monkeypatch.setattr(fused_network, "_in_any_precision", constant)
    assert check_engine(Engine()).problem == ""
    assert "differ" in check_engine(replace(FUSED, precision=precision)).problem


@pytest.mark.parametrize("byte_dropout", [False, True])
def test_a_wrong_dropout_at_a_rate_that_cannot_be_fused_is_found(
    byte_dropout: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = functional.dropout

    def half(x: Tensor, p: float, *rest: bool) -> Tensor:
        return right(x, 0.5 if 0.001 < p < 1 / 256 else p, *rest)

    monkeypatch.setattr(functional, "dropout", half)
    problem = check_engine(replace(FUSED, byte_dropout=byte_dropout)).problem
    assert problem.startswith("its dropout at a low rate drops ")
