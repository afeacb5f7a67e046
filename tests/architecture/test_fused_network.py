"""The fast form against the plain modules: values, gradients, statistics, dropout."""

from __future__ import annotations

import copy
import gc
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.architecture.conditioning import has_spread
from tests.strategies import networks
from tuner.architecture import layers as own
from tuner.architecture.blocks import Block, InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.factory import build_model, initialise
from tuner.architecture.fused_block import can_fuse
from tuner.architecture.fused_network import FastForm, fast_form, scoring_form
from tuner.architecture.joined import Joined
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve

EVERY_ACTIVATION = ("relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "relu6")


def without_dropout(architecture: Architecture) -> Architecture:
    blocks = tuple(
        replace(block, dropout=0.0) if isinstance(block, PlainBlock | ResidualBlock) else block
        for block in architecture.blocks
    )
    return resolve(Architecture(architecture.input, blocks, Head(architecture.head.pooling)))


def images_for(architecture: Architecture, *, count: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    images_NCHW = torch.randn(count, *architecture.input_shape, generator=generator)
    return images_NCHW.contiguous(memory_format=torch.channels_last)


def learn(
    model: nn.Sequential, architecture: Architecture, form: FastForm | None, images_NCHW: Tensor
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Logits, gradients and buffers of one step, in plain modules where `form` is None."""
    model = copy.deepcopy(model).train()
    model.to(memory_format=torch.channels_last)
    forward = model if form is None else fast_form(model, form)
    logits_NK = forward(images_NCHW)
    (logits_NK.float() * torch.linspace(-1, 1, logits_NK.numel()).view_as(logits_NK)).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(gradients) == len(list(model.parameters()))
    return logits_NK.detach(), gradients, list(model.buffers())


def distance(one: list[Tensor], other: list[Tensor]) -> float:
    """Of two lists of tensors, as a share of the other's length."""
    apart = sum(float((a.float() - b.float()).square().sum()) for a, b in zip(one, other, strict=True))
    length = sum(float(b.float().square().sum()) for b in other)
    return (apart / max(length, 1e-20)) ** 0.5


@pytest.mark.slow
@settings(max_examples=60)
@given(architecture=networks(max_side=12), early=st.booleans())
def test_the_fast_form_learns_as_the_plain_modules_do(architecture: Architecture, early: bool) -> None:
    architecture = without_dropout(architecture)
    model = build_model(architecture)
    initialise(model, seed=1)
    images_NCHW = images_for(architecture)
    assume(has_spread(model, images_NCHW))
    logits, gradients, buffers = learn(model, architecture, FastForm(early_pooling=early), images_NCHW)
    plain_logits, plain_gradients, plain_buffers = learn(model, architecture, None, images_NCHW)
    # Normalizing two nearly equal values multiplies rounding errors, those of the plain modules too.
    exact_logits, exact_gradients, _ = learn(model.double(), architecture, None, images_NCHW.double())
    error = float((plain_logits - exact_logits).abs().max())
    torch.testing.assert_close(logits, plain_logits, atol=max(1e-4, 3 * error), rtol=1e-4)
    assert distance(gradients, plain_gradients) < max(1e-3, 3 * distance(plain_gradients, exact_gradients))
    for buffer, plain_buffer in zip(buffers, plain_buffers, strict=True):
        torch.testing.assert_close(buffer, plain_buffer, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("normalization", ["none", "batch"])
@pytest.mark.parametrize("pooling", ["none", "max", "average"])
@pytest.mark.parametrize("activation", EVERY_ACTIVATION)
def test_in_bf16_every_block_is_near_the_plain_one(activation: str, pooling: str, normalization: str) -> None:
    block = PlainBlock(16, activation=activation, pooling=pooling, normalization=normalization)  # type: ignore[arg-type]
    architecture = resolve(Architecture(InputSpec(3, 9, 12, 5), (block, block), Head()))
    model = build_model(architecture)
    initialise(model, seed=2)
    images_NCHW = images_for(architecture, count=16)
    fast = learn(model, architecture, FastForm(), images_NCHW.bfloat16())
    plain = learn(model, architecture, None, images_NCHW)
    assert fast[0].dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in fast[1])
    assert distance([fast[0]], [plain[0]]) < 0.05
    assert distance(fast[1], plain[1]) < 0.2  # bf16 also decides near ties of a pooling window otherwise


@pytest.mark.parametrize("activation", EVERY_ACTIVATION)
def test_the_form_for_scoring_gives_what_the_modules_give(activation: str) -> None:
    block = PlainBlock(8, activation=activation, pooling="max", normalization="batch", dropout=0.2)  # type: ignore[arg-type]
    bare = PlainBlock(8, activation=activation, normalization="none")  # type: ignore[arg-type]
    head = Head(hidden_features=6, activation=activation)  # type: ignore[arg-type]
    architecture = resolve(Architecture(InputSpec(3, 9, 12, 5), (block, bare), head))
    model = build_model(architecture)
    initialise(model, seed=3)
    images_NCHW = images_for(architecture, count=16)
    model.train()(images_NCHW)  # running statistics that are not those of a fresh network
    model.eval()
    kept = images_NCHW.clone()
    with torch.inference_mode():
        logits_NK = scoring_form(model)(images_NCHW)
        torch.testing.assert_close(logits_NK, model(images_NCHW), atol=2e-6, rtol=1e-6)
    assert torch.equal(images_NCHW, kept)


def test_blocks_of_every_kind_are_fused_and_others_run_layer_by_layer() -> None:
    plain = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(3, 2), nn.Dropout(0.2)]
    assert can_fuse(plain)
    assert can_fuse([nn.Conv2d(3, 4, 3), nn.GELU(), nn.AvgPool2d(3, 2)])
    assert not can_fuse([nn.Conv2d(3, 4, 3), nn.Softplus()])
    assert not can_fuse([nn.Linear(3, 4), nn.ReLU()])


@pytest.mark.parametrize(
    ("block", "num_nodes"),
    [
        (PlainBlock(8, normalization="batch", pooling="max", dropout=0.2), 1),
        (PlainBlock(8, normalization="group", pooling="average"), 1),
        (ResidualBlock(4, dropout=0.2, pooling="max"), 3),
        (ResidualBlock(8, normalization="group"), 4),
        (ResidualBlock(4, order="pre"), 3),
        (InvertedResidualBlock(8, squeeze=2), 5),
    ],
)
def test_every_convolution_and_what_follows_it_is_one_node(block: Block, num_nodes: int) -> None:
    """So is what comes before the first convolution of a path, and what comes after a sum."""
    architecture = resolve(Architecture(InputSpec(4, 9, 12, 5), (block,), Head()))
    model = build_model(architecture).train()
    seen, waiting = [], [fast_form(model, FastForm())(images_for(architecture)).grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.append(node)
            waiting += [following for following, _ in node.next_functions]
    names = [type(node).__name__ for node in seen]
    assert names.count("_BlockBackward") == num_nodes
    left = ("Convolution", "MaxPool", "AvgPool", "NativeBatchNorm", "NativeGroupNorm", "Relu", "Mean", "Mul")
    assert not any(name.startswith(left) for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["none", "max", "average"])
@pytest.mark.parametrize("activation", EVERY_ACTIVATION)
def test_nothing_of_a_step_outlives_it(activation: str, pooling: str) -> None:
    block = PlainBlock(8, activation=activation, pooling=pooling)  # type: ignore[arg-type]
    architecture = resolve(Architecture(InputSpec(1, 9, 12, 5), (block, block), Head()))
    model = build_model(architecture).train()
    forward, images_NCHW = fast_form(model, FastForm()), images_for(architecture)
    gc.collect()
    gc.freeze()  # so that only what is made from here on is counted
    gc.disable()  # what Python must look for first may take gigabytes until it does
    try:
        num_tensors = []
        for _ in range(4):
            forward(images_NCHW).sum().backward()
            num_tensors.append(sum(issubclass(type(one), Tensor) for one in gc.get_objects()))
    finally:
        gc.enable()
        gc.unfreeze()
    assert num_tensors[-1] == num_tensors[1]


def test_negative_slopes_of_batch_norm_are_pooled_as_torch_does() -> None:
    block = PlainBlock(8, activation="relu", pooling="max", normalization="batch")
    architecture = resolve(Architecture(InputSpec(1, 8, 8, 3), (block,), Head()))
    model = build_model(architecture)
    initialise(model, seed=0)
    with torch.no_grad():
        model[1].weight.copy_(torch.linspace(-1, 1, 8))
    images_NCHW = images_for(architecture)
    fast, plain = (learn(model, architecture, form, images_NCHW) for form in (FastForm(), None))
    torch.testing.assert_close(fast[0], plain[0], atol=1e-5, rtol=1e-5)
    assert distance(fast[1], plain[1]) < 1e-4


def test_one_image_over_one_pixel_learns() -> None:
    block = PlainBlock(4, normalization="batch", dropout=0.1)
    architecture = resolve(Architecture(InputSpec(1, 1, 1, 3), (block, block), Head()))
    model = build_model(architecture)
    logits, gradients, _ = learn(model, architecture, FastForm(), images_for(architecture, count=1))
    assert bool(logits.isfinite().all())
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5, 0.9])
def test_byte_dropout_has_its_rate_its_scale_and_no_memory(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    dropout = own.Dropout(rate).train()
    ones = torch.ones(400, 1000, dtype=dtype)
    draws = torch.stack([dropout(ones).float() for _ in range(10)])
    dropped = draws == 0
    deviation = (rate * (1 - rate) / draws.numel()) ** 0.5
    assert abs(float(dropped.float().mean()) - rate) < 5 * deviation + 1 / 256
    assert abs(float(draws.mean()) - 1) < 0.02
    # Neighbours, and the same place in two draws, are dropped together no more often than chance has it.
    for one, other in ((dropped[:, :, 1:], dropped[:, :, :-1]), (dropped[1:], dropped[:-1])):
        together = float((one & other).float().mean())
        assert abs(together - float(one.float().mean()) * float(other.float().mean())) < 0.003


def test_the_mean_rate_of_byte_dropout_is_the_rate_asked_for_though_a_byte_has_256_values() -> None:
    torch.manual_seed(0)
    kept = [own.keep_of_256_from(0.301) for _ in range(4000)]
    assert set(kept) == {178, 179}
    assert abs(sum(kept) / len(kept) / 256 - 0.699) < 1e-4 * 3


def test_byte_dropout_sends_the_gradient_where_the_value_went() -> None:
    torch.manual_seed(0)
    values = torch.randn(64, 64, requires_grad=True)
    out = own.Dropout(0.4).train()(values)
    out.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad * values.detach(), out.detach())
    assert torch.equal(own.Dropout(0.4).eval()(values), values)


@pytest.mark.parametrize("function", [(own.tanh_, torch.tanh), (own.elu_, nn.functional.elu)])
def test_own_functions_have_torchs_values(function: tuple[object, object]) -> None:
    ours, torchs = function
    values = torch.linspace(-30, 30, 10_001)
    torch.testing.assert_close(ours(values.clone()), torchs(values), atol=3e-7, rtol=1e-6)  # type: ignore[operator]


@given(height=st.integers(1, 9), width=st.integers(1, 9), channels=st.integers(1, 5))
def test_sum_pooling_is_four_times_average_pooling_both_ways(height: int, width: int, channels: int) -> None:
    if min(height, width) < 2:
        return
    values = torch.randn(2, channels, height, width).contiguous(memory_format=torch.channels_last).requires_grad_()
    pooled = nn.functional.avg_pool2d(values, 2)
    torch.testing.assert_close(own.sum_pool(own.nhwc(values.detach())).permute(0, 3, 1, 2) / 4, pooled.detach())
    gradient = torch.randn_like(pooled)
    pooled.backward(gradient)
    back = own.sum_pool_backward(own.nhwc(gradient), own.nhwc(values.detach()).shape).permute(0, 3, 1, 2) / 4
    assert values.grad is not None
    torch.testing.assert_close(back, values.grad)


@pytest.mark.parametrize(
    "last",
    [(), (nn.ReLU(),), (nn.BatchNorm2d(4), nn.ELU()), (nn.ReLU(), nn.MaxPool2d(1, 1)), (nn.SiLU(), nn.AvgPool2d(1, 1))],
    ids=["convolution", "activation", "normalized activation", "max pooling", "average pooling"],
)
@pytest.mark.parametrize("join", ["add", "multiply"])
def test_paths_of_a_join_may_end_in_anything(join: Any, last: tuple[nn.Module, ...]) -> None:
    """The gradient of a sum is that of both paths; fused nodes change theirs in place."""
    paths = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), *copy.deepcopy(last)) for _ in range(2)]
    joins = (Joined(paths[0], paths[1], join), nn.ReLU(), Joined(copy.deepcopy(paths[0]), nn.Sequential(), join))
    model = nn.Sequential(*joins, nn.Flatten(), nn.Linear(4 * 36, 3))
    initialise(model, seed=1)
    images_NCHW = torch.randn(4, 4, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    found = []
    for forward in (fast_form(model.train(), FastForm()), model):
        logits_NK = forward(images_NCHW)
        gradients = torch.autograd.grad(logits_NK.square().sum(), [images_NCHW, *model.parameters()])
        found.append([logits_NK.detach(), *gradients])
    assert distance(*found) < 1e-5


@pytest.mark.parametrize("function", [nn.ReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.ReLU6])
@pytest.mark.parametrize("is_normalized", [False, True])
def test_paths_of_a_join_may_begin_without_a_convolution(function: type[nn.Module], is_normalized: bool) -> None:
    """What enters is also what enters the other path, so an activation must not change it in place."""
    first = [nn.BatchNorm2d(4)] if is_normalized else []
    path = nn.Sequential(*first, function(), nn.Conv2d(4, 4, 3, padding=1))
    closing = nn.Sequential(*copy.deepcopy(first), function(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 9, 3))
    model = nn.Sequential(Joined(path, nn.Sequential(), "add"), *closing)
    initialise(model, seed=1)
    images_NCHW = torch.randn(4, 4, 6, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    kept, found = images_NCHW.detach().clone(), []
    for forward in (fast_form(model.train(), FastForm()), model):
        logits_NK = forward(images_NCHW)
        gradients = torch.autograd.grad(logits_NK.square().sum(), [images_NCHW, *model.parameters()])
        found.append([logits_NK.detach(), *gradients])
    assert torch.equal(images_NCHW, kept)
    assert distance(*found) < 1e-5


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_squeeze_and_excitation_has_torchs_values_and_gradients(dtype: torch.dtype, tolerance: float) -> None:
    factors = nn.Sequential(nn.Conv2d(8, 2, 1), nn.SiLU(), nn.Conv2d(2, 8, 1), nn.Sigmoid())
    joined = Joined(nn.Sequential(nn.AdaptiveAvgPool2d(1), *factors), nn.Sequential(), "multiply")
    images_NCHW = torch.randn(4, 8, 5, 7).contiguous(memory_format=torch.channels_last)
    grad_NCHW, found = torch.randn(4, 8, 5, 7).contiguous(memory_format=torch.channels_last), []
    for forward, one in ((fast_form(nn.Sequential(joined), FastForm()), dtype), (joined, torch.float32)):
        x_NCHW = images_NCHW.to(one).requires_grad_()
        out_NCHW = forward(x_NCHW)
        assert out_NCHW.dtype == one
        gradients = torch.autograd.grad(out_NCHW, [x_NCHW, *joined.parameters()], grad_NCHW.to(one))
        assert gradients[0].is_contiguous(memory_format=torch.channels_last)
        found.append([out_NCHW.detach(), *gradients])
    assert distance(*found) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_group_normalization_is_near_torchs_in_fp32(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.Flatten(), nn.Linear(16 * 16, 3))
    images_NCHW = torch.randn(8, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    found = []
    for forward, one in ((fast_form(model, FastForm()), dtype), (model, torch.float32)):
        logits_NK = forward(images_NCHW.to(one))
        assert logits_NK.dtype == one
        found.append([logits_NK.detach(), *torch.autograd.grad(logits_NK.float().square().sum(), model.parameters())])
    assert distance(*found) < (1e-5 if dtype == torch.float32 else 5e-2)


def test_scoring_leaves_what_enters_a_shortcut_as_it_is() -> None:
    path = nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    model = nn.Sequential(Joined(path, nn.Sequential(), "add"), nn.ReLU()).eval()
    images_NCHW = torch.randn(4, 4, 6, 6)
    kept = images_NCHW.clone()
    with torch.inference_mode():
        torch.testing.assert_close(scoring_form(model)(images_NCHW), model(images_NCHW))
    assert torch.equal(images_NCHW, kept)
