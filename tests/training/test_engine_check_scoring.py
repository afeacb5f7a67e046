"""The check of an engine finds scores that are not those of the plain model, though it learns as that does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.training.measurements import FUSED
from tuner.architecture import fused_block, fused_network
from tuner.training.engine import Engine
from tuner.training.engine_check import check_engine


@pytest.mark.parametrize("activation", list(fused_block.ACTIVATIONS), ids=lambda activation: activation.__name__)
def test_a_wrong_activation_in_evaluation_alone_is_found(activation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values, gradient = fused_block.ACTIVATIONS[activation]
    wrong = {**fused_block.ACTIVATIONS, activation: (lambda x: values(x) * 1.01, gradient)}
    monkeypatch.setattr(fused_network, "ACTIVATIONS", wrong)
    assert check_engine(Engine()).problem == ""
    assert "its logits in evaluation differ by " in check_engine(FUSED).problem


def test_a_convolution_that_is_wrong_in_evaluation_in_one_layout_alone_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = functional.conv2d

    def wrong(x: Tensor, *rest: Any) -> Tensor:
        is_meant = torch.is_inference_mode_enabled() and x.is_contiguous(memory_format=torch.channels_last)
        return right(x, *rest) * (1.01 if is_meant else 1)

    monkeypatch.setattr(functional, "conv2d", wrong)
    assert check_engine(Engine()).problem == ""
    assert "its logits in evaluation differ by " in check_engine(replace(Engine(), channels_last=True)).problem
