import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.strategies import networks
from tuner.architecture import layer_kinds
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.cost import FLOPS_OF_AN_ACTIVATION, Cost, layer_cost, network_cost
from tuner.architecture.factory import build_model
from tuner.architecture.joined import Joined
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.parts import named_layers
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve, trace


def on_meta(architecture: Architecture) -> nn.Sequential:
    with torch.device("meta"):
        return build_model(architecture)


@pytest.mark.slow
@given(networks())
def test_parameters_and_buffers_are_as_many_as_torch_holds(architecture: Architecture) -> None:
    cost, model = network_cost(trace(architecture)), on_meta(architecture)
    assert cost.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert cost.num_buffers == sum(buffer.numel() for buffer in model.buffers())


@pytest.mark.slow
@given(networks())
def test_flops_are_those_that_torchs_counter_counts(architecture: Architecture) -> None:
    model = on_meta(architecture).eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *architecture.input_shape, device="meta"))
    assert network_cost(trace(architecture)).flops == counter.get_total_flops()


@pytest.mark.slow
@given(networks())
def test_activations_are_the_numbers_that_leave_torchs_layers(architecture: Architecture) -> None:
    sizes: list[int] = []
    model = on_meta(architecture).eval()
    for module in model.modules():
        if isinstance(module, Joined) or (not list(module.children()) and not isinstance(module, nn.Sequential)):
            module.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
    model(torch.empty(1, *architecture.input_shape, device="meta"))
    assert network_cost(trace(architecture)).activations == sum(sizes)


@given(networks())
def test_each_layer_costs_what_its_module_holds(architecture: Architecture) -> None:
    model = on_meta(architecture)
    for name, layer in named_layers(trace(architecture)).items():
        cost, module = layer_cost(layer), model.get_submodule(name)
        assert cost.num_parameters == sum(parameter.numel() for parameter in module.parameters())
        assert cost.activations == math.prod(layer.output_shape)


@pytest.mark.parametrize(
    ("layer", "cost"),
    [
        (
            layer_kinds.convolution((1, 28, 28), out_channels=16, kernel_size=3),
            Cost(160, 0, 2 * 9 * 16 * 26 * 26, 10_816, 784 + 10_816),
        ),
        (
            layer_kinds.convolution((3, 4, 4), out_channels=2, kernel_size=3, padding=1, bias=False),
            Cost(54, 0, 2 * 27 * 2 * 16, 32, 48 + 32),
        ),
        (layer_kinds.linear((800,), out_features=10), Cost(8_010, 0, 16_000, 10, 810)),
        (layer_kinds.batch_norm((8, 5, 5)), Cost(16, 17, 0, 200, 400)),
        (layer_kinds.pool((8, 5, 5), kind="MaxPool2d", kernel_size=2, stride=2), Cost(0, 0, 0, 32, 200 + 3 * 32)),
    ],
)
def test_the_cost_of_one_layer_by_hand(layer: Layer, cost: Cost) -> None:
    assert layer_cost(layer) == cost


def test_the_memory_of_training_by_hand() -> None:
    # Seven numbers a parameter; three an activation, and four of what enters and leaves the network, for each image of
    # a batch; twice the widest layer's of 64 images, or of as many as come to 2 ** 23 numbers; four bytes each.
    cost = Cost(100, 7, 0, 50, 30, 12)
    assert cost.training_bytes(2) == 4 * (7 * 100 + 2 * (3 * 50 + 4 * 12) + 2 * 64 * 30)
    assert cost.training_bytes(2, has_average=True) == cost.training_bytes(2) + 4 * 100
    wide = replace(cost, widest=2**21)
    assert wide.training_bytes(2) == 4 * (7 * 100 + 2 * (3 * 50 + 4 * 12) + 2 * 4 * 2**21)


def test_images_and_logits_are_the_ends_of_a_network() -> None:
    architecture = resolve(Architecture(InputSpec(3, 8, 10, num_classes=7), (PlainBlock(4),), Head()))
    assert network_cost(trace(architecture)).ends == 3 * 8 * 10 + 7


def test_the_widest_of_layers_is_that_of_their_sum() -> None:
    wide, narrow = Cost(1, 1, 1, 20, 30), Cost(1, 1, 1, 20, 25)
    assert (wide + narrow).widest == (narrow + wide).widest == 30


def test_work_grows_with_what_a_network_multiplies_and_with_what_it_writes() -> None:
    assert Cost(1, 1, 1_000, 10, 10).work == 1_000 + 10 * FLOPS_OF_AN_ACTIVATION
