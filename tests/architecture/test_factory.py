from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.strategies import networks, plain_architectures
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.factory import build_model, initialise
from tuner.architecture.joined import Joined
from tuner.architecture.parts import layers_of, named_layers
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import trace

NETWORK = Architecture(
    InputSpec(3, 7, 9, 4),
    (
        PlainBlock(6, normalization="batch", pooling="max", dropout=0.2),
        PlainBlock(5, padding="valid", activation="gelu"),
    ),
    Head(pooling="average", hidden_features=8, dropout=0.5),
)


@pytest.mark.slow
@given(networks(max_side=12))
def test_name_by_name_the_modules_of_the_model_are_the_traced_layers(architecture: Architecture) -> None:
    with torch.device("meta"):
        model = build_model(architecture)
    layers = named_layers(trace(architecture))
    modules = {name: module for name, module in model.named_modules() if not isinstance(module, nn.Sequential | Joined)}
    assert list(modules) == list(layers)
    assert [type(module).__name__ for module in modules.values()] == [layer.kind for layer in layers.values()]


@pytest.mark.slow
@given(plain_architectures(max_side=12))
def test_position_by_position_a_network_without_shortcuts_is_its_layers(architecture: Architecture) -> None:
    with torch.device("meta"):
        model = build_model(architecture)
    assert [type(module).__name__ for module in model] == [layer.kind for layer in layers_of(trace(architecture))]


@pytest.mark.slow
@settings(max_examples=30)
@given(plain_architectures(max_side=12), st.integers(0, 2**63 - 1))
def test_plain_torch_modules_of_the_layers_take_the_weights_and_give_the_same_logits(
    architecture: Architecture, seed: int
) -> None:
    model = build_model(architecture).eval()
    initialise(model, seed=seed)
    plain = nn.Sequential(
        *(getattr(nn, layer.kind)(**layer.arguments) for layer in layers_of(trace(architecture)))
    ).eval()
    plain.load_state_dict(model.state_dict())
    images_NCHW = torch.randn(2, *architecture.input_shape)
    with torch.no_grad():
        assert torch.equal(model(images_NCHW), plain(images_NCHW))


@settings(max_examples=30)
@given(plain_architectures(max_side=12))
def test_a_bias_of_a_plain_block_is_there_unless_a_normalization_has_one(architecture: Architecture) -> None:
    with torch.device("meta"):
        modules = list(build_model(architecture))
    for module, following in pairwise(modules):
        if isinstance(module, nn.Conv2d):
            assert (module.bias is None) == isinstance(following, nn.BatchNorm2d | nn.GroupNorm)


def weights_after(seed: int, *, drawn_before: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(drawn_before)
    model = build_model(NETWORK)
    initialise(model, seed=seed)
    return dict(model.state_dict())


def test_fresh_weights_depend_on_the_seed_alone() -> None:
    first, again, other = (
        weights_after(1, drawn_before=7),
        weights_after(1, drawn_before=8),
        weights_after(2, drawn_before=7),
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_fresh_weights_are_those_torch_gives_a_new_model_of_that_seed() -> None:
    torch.manual_seed(3)
    torchs = build_model(NETWORK).state_dict()
    ours = weights_after(3, drawn_before=0)
    assert all(torch.equal(ours[key], torchs[key]) for key in torchs)


def test_initialising_leaves_torchs_own_generator_where_it_was() -> None:
    model = build_model(NETWORK)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    initialise(model, seed=9)
    assert torch.equal(torch.rand(3), expected)
