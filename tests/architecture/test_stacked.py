"""Several models as one wider network: values, gradients and statistics of each are those that it has alone."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.architecture.conditioning import has_spread
from tests.strategies import networks
from tuner.architecture.blocks import PlainBlock, ResidualBlock
from tuner.architecture.factory import build_model, initialise
from tuner.architecture.fused_network import FastForm, fast_form
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.stacked import build_stacked, stack_images, stack_states, unstack_states
from tuner.architecture.trace import resolve

pytestmark = pytest.mark.slow

NUM_MODELS = 3
FAST = FastForm()


def models_of(architecture: Architecture) -> list[nn.Sequential]:
    models = [build_model(architecture) for _ in range(NUM_MODELS)]
    for seed, model in enumerate(models):
        initialise(model, seed=seed)
    return models


def without_dropout(architecture: Architecture) -> Architecture:
    blocks = tuple(
        replace(block, dropout=0.0) if isinstance(block, PlainBlock | ResidualBlock) else block
        for block in architecture.blocks
    )
    return resolve(Architecture(architecture.input, blocks, replace(architecture.head, dropout=0.0)))


def weighted(logits_NK: Tensor) -> Tensor:
    """A sum in which every logit counts otherwise, so that no two gradients are alike."""
    return (logits_NK * torch.linspace(-1, 1, logits_NK.numel()).view_as(logits_NK)).sum()


@settings(max_examples=60)
@given(architecture=networks(max_side=12), fused=st.booleans(), num_images=st.sampled_from([1, 4]))
def test_each_model_in_a_stacked_network_learns_what_it_learns_alone(
    architecture: Architecture, fused: bool, num_images: int
) -> None:
    architecture = without_dropout(architecture)
    models = models_of(architecture)
    stacked = build_stacked(architecture, NUM_MODELS).train()
    stacked.load_state_dict(stack_states([model.state_dict() for model in models]))
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(num_images, *architecture.input_shape, generator=generator) for _ in models]
    assume(all(map(has_spread, models, images)))
    forward = fast_form(stacked, FAST) if fused else stacked
    together_MNK = forward(stack_images(images, channels_last=fused))
    assert together_MNK.shape == (NUM_MODELS, num_images, architecture.num_classes)
    sum(map(weighted, together_MNK), torch.zeros(())).backward()
    states = unstack_states(stacked.state_dict(), NUM_MODELS)
    gradients = unstack_states({name: one.grad for name, one in stacked.named_parameters()}, NUM_MODELS)  # type: ignore[misc]
    for number, model in enumerate(models):
        logits_NK = model.train()(images[number])
        torch.testing.assert_close(together_MNK[number], logits_NK, atol=1e-4, rtol=1e-4)
        weighted(logits_NK).backward()
        exact = copy.deepcopy(model).double()
        exact.zero_grad()
        weighted(exact(images[number].double())).backward()
        for (name, parameter), one in zip(model.named_parameters(), exact.parameters(), strict=True):
            assert parameter.grad is not None
            assert one.grad is not None
            far = (gradients[number][name] - parameter.grad).norm() / (parameter.grad.norm() + 1e-3)
            # Normalizing nearly equal values multiplies rounding errors, those of the model alone too.
            error = float((parameter.grad - one.grad).norm() / (one.grad.norm() + 1e-3))
            assert far < max(1e-2, 4 * error), name
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(states[number][name], buffer, atol=1e-5, rtol=1e-4)
        model.load_state_dict(states[number])


def test_states_come_apart_as_they_were_put_together() -> None:
    architecture = resolve(Architecture(InputSpec(3, 9, 7, 5), (PlainBlock(4, normalization="batch"),), Head()))
    states = [model.state_dict() for model in models_of(architecture)]
    for state, again in zip(states, unstack_states(stack_states(states), NUM_MODELS), strict=True):
        assert state.keys() == again.keys()
        assert all(torch.equal(state[name], again[name]) for name in state)
    assert not torch.equal(states[0]["0.weight"], states[1]["0.weight"])


@pytest.mark.parametrize("fused", [False, True])
def test_dropout_keeps_its_rate_in_every_model_and_no_two_share_a_mask(fused: bool) -> None:
    """The weights are zero and the bias is one, so that what leaves the block is the mask with its scale."""
    rate = 0.3
    architecture = resolve(Architecture(InputSpec(1, 32, 32, 2), (PlainBlock(64, dropout=rate),), Head()))
    stacked = build_stacked(architecture, NUM_MODELS).train()
    with torch.no_grad():
        stacked[0].weight.zero_()
        stacked[0].bias.fill_(1.0)
    masks: list[Tensor] = []
    stacked[-2].register_forward_pre_hook(lambda module, inputs: masks.append(inputs[0].detach()))
    torch.manual_seed(0)
    forward = fast_form(stacked, FAST) if fused else stacked
    forward(stack_images([torch.ones(4, 1, 32, 32)] * NUM_MODELS, channels_last=fused))
    kept = masks[0].unflatten(1, (NUM_MODELS, -1)).transpose(0, 1) > 0
    for number in range(NUM_MODELS):
        assert abs(float(kept[number].float().mean()) - (1 - rate)) < 0.01
        both = (kept[number] & kept[(number + 1) % NUM_MODELS]).float().mean()
        assert abs(float(both) - (1 - rate) ** 2) < 0.01
    assert float(masks[0].mean()) == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("channels_last", [False, True])
def test_weights_that_are_not_numbers_stay_in_their_own_model(channels_last: bool) -> None:
    blocks = (PlainBlock(5, normalization="batch", pooling="max"), PlainBlock(3, activation="gelu", pooling="average"))
    architecture = resolve(Architecture(InputSpec(1, 9, 9, 4), blocks, Head(hidden_features=6)))
    models = models_of(architecture)
    with torch.no_grad():
        for parameter in models[1].parameters():
            parameter.fill_(torch.nan)
    stacked = build_stacked(architecture, NUM_MODELS).train()
    stacked.load_state_dict(stack_states([model.state_dict() for model in models]))
    forward = fast_form(stacked, FAST) if channels_last else stacked
    logits_MNK = forward(stack_images([torch.randn(4, 1, 9, 9)] * NUM_MODELS, channels_last=channels_last))
    assert [bool(logits_NK.isnan().all()) for logits_NK in logits_MNK] == [False, True, False]
    logits_MNK.sum().backward()
    for name, parameter in stacked.named_parameters():
        assert parameter.grad is not None
        first, _, last = parameter.grad.chunk(NUM_MODELS)
        assert first.isfinite().all(), name
        assert last.isfinite().all(), name
