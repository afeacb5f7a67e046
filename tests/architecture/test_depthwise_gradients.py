"""The gradients of depthwise convolutions against torch's own, in every case that they are for."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tuner.architecture.depthwise_gradients import has_slow_gradients, input_gradient, weight_gradient

pytestmark = pytest.mark.slow


def values(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return drawn.contiguous(memory_format=torch.channels_last)


def apart(one: Tensor, other: Tensor) -> float:
    return float((one.float() - other.float()).norm() / other.float().norm().clamp_min(1e-12))


@given(
    sides=st.tuples(st.integers(1, 11), st.integers(1, 11)),
    size=st.integers(1, 8),
    stride=st.integers(1, 4),
    is_padded=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_the_gradients_are_torchs(
    sides: tuple[int, int], size: int, stride: int, is_padded: bool, dtype: torch.dtype
) -> None:
    size = size if is_padded else min(size, *sides)
    size -= is_padded and size % 2 == 0  # as in blocks: an even window is not padded
    padding = size // 2 if is_padded else 0
    x_NCHW, weight_C1kk = values(3, 6, *sides, dtype=dtype, seed=0), values(6, 1, size, size, dtype=dtype, seed=1)
    x32, weight32 = (one.detach().clone().float().requires_grad_() for one in (x_NCHW, weight_C1kk))
    out_NChw = torch.conv2d(x32, weight32, stride=stride, padding=padding, groups=6)
    grad_NChw = values(*out_NChw.shape, dtype=dtype, seed=2)
    expected = torch.autograd.grad(out_NChw, [x32, weight32], grad_NChw.float())
    grad_x = input_gradient(grad_NChw, x_NCHW, weight_C1kk, stride=stride, padding=padding)
    grad_weight = weight_gradient(grad_NChw, x_NCHW, weight_C1kk, stride=stride, padding=padding)
    assert (grad_x.dtype, grad_weight.dtype) == (dtype, dtype)
    assert grad_x.shape == x_NCHW.shape
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert apart(grad_x, expected[0]) < tolerance
    assert apart(grad_weight, expected[1]) < tolerance


@pytest.mark.parametrize(
    ("side", "size", "stride", "groups", "dtype", "slow"),
    [
        (8, 3, 1, 6, torch.bfloat16, False),
        (8, 3, 2, 6, torch.bfloat16, True),
        (8, 5, 1, 6, torch.bfloat16, True),
        (2, 3, 1, 6, torch.bfloat16, True),
        (8, 3, 2, 1, torch.bfloat16, False),
        (8, 5, 1, 3, torch.bfloat16, False),
        (8, 3, 2, 6, torch.float32, False),
        (8, 5, 1, 6, torch.float32, True),
        (2, 3, 1, 6, torch.float32, True),
    ],
)
def test_they_are_used_where_those_of_onednn_are_slow(
    side: int, size: int, stride: int, groups: int, dtype: torch.dtype, slow: bool
) -> None:
    x_NCHW = torch.empty(2, 6, side, side, dtype=dtype)
    weight = torch.empty(6, 6 // groups, size, size, dtype=dtype)
    assert has_slow_gradients(x_NCHW, weight, stride=stride, groups=groups) is slow
