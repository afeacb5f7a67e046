"""Optimizers against arithmetic written out here and against torch's own; stacked seeds against each seed alone."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.measurements import FUSED
from tuner.architecture.blocks import InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.factory import build_model
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.stacked import unstack_states
from tuner.architecture.trace import resolve
from tuner.training.candidate import Recipe
from tuner.training.engine import Engine
from tuner.training.loop import fresh_model
from tuner.training.optimizers import MatrixWeight, build_optimizer, engine_for, set_learning_rate, split_parameters
from tuner.training.train_together import stack_models

PLAIN = Engine("cpu")
LAST = Engine("cpu", channels_last=True)
RATES = (0.02, 0.05, 0.03)
NETWORK = resolve(
    Architecture(
        InputSpec(2, 8, 8, 3),
        (
            PlainBlock(6, normalization="batch"),
            ResidualBlock(8, stride=2, normalization="group"),
            InvertedResidualBlock(8, expansion=2, squeeze=4),
        ),
        Head("average", hidden_features=5),
    )
)
"""Convolutions of every kind (3x3, 1x1, depthwise), both norms, biases and two linear layers."""


def gradients_of(state: dict[str, Tensor], *, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(value.shape, generator=generator) for name, value in state.items()}


def trained_alone(recipe: Recipe, *, engine: Engine, seed: int) -> dict[str, Tensor]:
    """Parameters after a step at each of the rates with random gradients of a seed."""
    model = fresh_model(NETWORK, seed, engine=engine)
    optimizer = build_optimizer(model, recipe, engine=engine)
    for step, rate in enumerate(RATES):
        gradients = gradients_of(dict(model.named_parameters()), seed=100 * seed + step)
        for name, parameter in model.named_parameters():
            parameter.grad = torch.empty_like(parameter).copy_(gradients[name])
        set_learning_rate(optimizer, rate)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert all(parameter.grad is None for parameter in model.parameters())
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def decays(name: str, parameter: Tensor) -> bool:
    """Whether a parameter of a single model has weight decay; there, only matrices and kernels have two dimensions."""
    return name.endswith("weight") and parameter.dim() > 1


@pytest.mark.parametrize("momentum", [0.0, 0.8])
@pytest.mark.parametrize("engine", [PLAIN, FUSED], ids=["plain", "fused"])
def test_sgdw_is_nesterov_momentum_with_decay_of_weights_that_are_no_norms_or_biases(
    engine: Engine, momentum: float
) -> None:
    recipe = Recipe("sgdw", weight_decay=0.3, momentum=momentum)
    expected = {name: one.detach().clone() for name, one in fresh_model(NETWORK, 1, engine=PLAIN).named_parameters()}
    velocity = {name: torch.zeros_like(one) for name, one in expected.items()}
    for step, rate in enumerate(RATES):
        for name, gradient in gradients_of(expected, seed=100 + step).items():
            decay = 0.3 if decays(name, expected[name]) else 0.0
            velocity[name] = momentum * velocity[name] + gradient
            update = gradient + momentum * velocity[name]
            expected[name] = expected[name] * (1 - rate * decay) - rate * update
    found = trained_alone(recipe, engine=engine, seed=1)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)


def test_only_matrices_of_convolutions_and_linear_layers_decay_also_in_stacked_models() -> None:
    stacked = stack_models([build_model(NETWORK) for _ in range(2)], NETWORK, engine=PLAIN)
    for model in (build_model(NETWORK), stacked):
        weights, others = split_parameters(model)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        decayed = {names[id(weight.parameter)] for weight in weights}
        assert decayed == {name for name, one in build_model(NETWORK).named_parameters() if decays(name, one)}
        assert {names[id(parameter)] for parameter in others} == set(names.values()) - decayed


@pytest.mark.parametrize("engine", [PLAIN, LAST], ids=["contiguous", "channels last"])
def test_muon_is_torchs_for_each_flattened_weight_and_adamw_for_the_rest(engine: Engine) -> None:
    model = fresh_model(NETWORK, 1, engine=engine)
    flat, others = {}, {}
    for name, parameter in model.named_parameters():
        is_depthwise = parameter.dim() == 4 and parameter.shape[1] == 1
        matrix = parameter.detach().permute(0, 2, 3, 1) if engine.channels_last and parameter.dim() == 4 else parameter
        if decays(name, parameter) and not is_depthwise:
            flat[name] = nn.Parameter(matrix.detach().clone().reshape(len(parameter), -1))
        else:
            others[name] = nn.Parameter(parameter.detach().clone())
    assert len(flat) == 10
    assert sum(decays(name, parameter) for name, parameter in others.items()) == 1
    muon = torch.optim.Muon(flat.values(), weight_decay=0.3, momentum=0.8, adjust_lr_fn="match_rms_adamw")
    groups = [
        {"params": [one for name, one in others.items() if decays(name, one)], "weight_decay": 0.3},
        {"params": [one for name, one in others.items() if not decays(name, one)], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, foreach=True)
    for step, rate in enumerate(RATES):
        for name, gradient in gradients_of(dict(model.named_parameters()), seed=100 + step).items():
            if name in flat:
                is_last = engine.channels_last and gradient.dim() == 4
                flat[name].grad = (gradient.permute(0, 2, 3, 1) if is_last else gradient).reshape(flat[name].shape)
            else:
                others[name].grad = gradient
        for optimizer in (muon, adamw):
            set_learning_rate(optimizer, rate)
            optimizer.step()
    found = trained_alone(Recipe("muon", weight_decay=0.3, momentum=0.8), engine=engine, seed=1)
    for name, value in found.items():
        matrix = value.permute(0, 2, 3, 1) if engine.channels_last and value.dim() == 4 else value
        expected = flat[name] if name in flat else others[name].reshape(matrix.shape)
        assert torch.equal(matrix.reshape(expected.shape), expected), name


@pytest.mark.parametrize("engine", [PLAIN, LAST], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "sgdw", "muon"])
def test_stacked_seeds_take_the_steps_that_each_takes_alone(optimizer: Any, engine: Engine) -> None:
    recipe, seeds = Recipe(optimizer, weight_decay=0.3), (1, 2, 3)
    stacked = stack_models([fresh_model(NETWORK, seed, engine=engine) for seed in seeds], NETWORK, engine=engine)
    together = build_optimizer(stacked, recipe, engine=engine)
    shapes = dict(build_model(NETWORK).named_parameters())
    for step, rate in enumerate(RATES):
        gradients = [gradients_of(shapes, seed=100 * seed + step) for seed in seeds]
        for name, parameter in stacked.named_parameters():
            of_each = torch.cat([gradient[name] for gradient in gradients])
            parameter.grad = torch.empty_like(parameter).copy_(of_each)
        set_learning_rate(together, rate)
        together.step()
    states = unstack_states(dict(stacked.named_parameters()), len(seeds))
    for state, seed in zip(states, seeds, strict=True):
        for name, value in trained_alone(recipe, engine=engine, seed=seed).items():
            assert torch.equal(state[name], value), name


def test_a_seed_of_stacked_models_whose_weights_are_not_numbers_leaves_the_others_alone() -> None:
    recipe, seeds = Recipe("muon", weight_decay=0.1), (1, 2)
    stacked = stack_models([fresh_model(NETWORK, seed, engine=LAST) for seed in seeds], NETWORK, engine=LAST)
    optimizer = build_optimizer(stacked, recipe, engine=LAST)
    for parameter in stacked.parameters():
        parameter.grad = torch.ones_like(parameter)
        parameter.grad[: len(parameter) // 2] = torch.nan
    optimizer.step()
    stray, other = unstack_states(dict(stacked.named_parameters()), 2)
    assert all(value.isnan().all() for value in stray.values())
    assert all(value.isfinite().all() for value in other.values())


def test_gradients_in_another_layout_than_their_weight_meet_its_columns() -> None:
    weight = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last)
    gradient = torch.randn(4, 3, 2, 2)
    of_weight, of_gradient = (MatrixWeight(weight, 2).matrices(tensor) for tensor in (weight, gradient))
    for first, columns, slices in zip((0, 2), of_gradient, of_weight, strict=True):
        assert torch.equal(slices, weight[first : first + 2].permute(0, 2, 3, 1).flatten(1))
        assert torch.equal(columns, gradient[first : first + 2].permute(0, 2, 3, 1).flatten(1))


def test_a_network_of_vectors_alone_is_trained_by_adamw() -> None:
    narrow = resolve(Architecture(InputSpec(1, 4, 4, 2), (PlainBlock(1, kernel_size=1),), Head("average")))
    model = fresh_model(narrow, 0, engine=PLAIN)
    optimizer = build_optimizer(model, Recipe("muon", weight_decay=0.1), engine=PLAIN)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_only_muon_is_trained_without_the_graph_of_an_engine() -> None:
    engine = Engine("cuda", graph=True, optimizer="fused")
    assert [engine_for(Recipe(optimizer), engine).graph for optimizer in ("adam", "adamw", "sgd", "sgdw", "muon")] == [
        True,
        True,
        True,
        True,
        False,
    ]
