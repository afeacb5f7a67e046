from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tests.strategies import networks
from tuner.architecture import layer_kinds
from tuner.architecture.blocks.fields import normalized
from tuner.architecture.factory import build_model
from tuner.architecture.layer_kinds import LAYER_KINDS, Layer
from tuner.architecture.layers import TWINS
from tuner.architecture.parts import Items, Part, layers_of, named_layers
from tuner.architecture.shapes import Shape
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace

sides = st.integers(1, 60)


def shape_of_each_layer(model: nn.Sequential, architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """What leaves every layer for a batch of two, without the batch, by the layer's name; the model's last, as ""."""
    out: dict[str, tuple[int, ...]] = {}

    def keep(name: str) -> Callable[[nn.Module, object, torch.Tensor], None]:
        return lambda module, inputs, output: out.update({name: tuple(output.shape[1:])})

    for name in named_layers(trace(architecture)):
        model.get_submodule(name).register_forward_hook(keep(name))
    logits_NK = model(torch.empty(2, *architecture.input_shape, device="meta"))
    return {**out, "": tuple(logits_NK.shape[1:])}


def on_meta(architecture: Architecture) -> nn.Sequential:
    with torch.device("meta"):
        return build_model(architecture)


@given(networks(max_side=224))
def test_the_traced_shape_of_every_layer_is_the_one_torch_computes(architecture: Architecture) -> None:
    parts = trace(architecture)
    traced = {name: layer.output_shape for name, layer in named_layers(parts).items()}
    assert shape_of_each_layer(on_meta(architecture), architecture) == {**traced, "": parts[-1].output_shape}


@given(networks(max_side=1))
def test_every_architecture_resolves_to_one_that_takes_a_single_pixel(architecture: Architecture) -> None:
    assert architecture.input_shape[1:] == (1, 1)
    assert shape_of_each_layer(on_meta(architecture), architecture)[""] == (architecture.num_classes,)


def check_path(path: Items, shape: Shape) -> None:
    """Every item takes what the one before it gives, and what is joined has the same shape, or one factor a channel."""
    for item in path:
        assert item.input_shape == shape
        if isinstance(item, Part):
            check_path(item.main, shape)
            check_path(item.shortcut, shape)
            left = item.main[-1].output_shape
            if item.join == "add":
                assert item.shortcut_shape == left == item.output_shape
            elif item.join == "multiply":
                assert left == (shape[0], 1, 1)
                assert item.shortcut_shape == item.output_shape
        shape = item.output_shape


@given(networks(max_side=224))
def test_each_layer_takes_what_the_one_before_it_gives(architecture: Architecture) -> None:
    parts = trace(architecture)
    check_path(parts, architecture.input_shape)
    assert parts[-1].output_shape == (architecture.num_classes,)
    assert all(side >= 1 for layer in layers_of(parts) for side in layer.output_shape)


@given(sides, sides, st.integers(1, 11), st.integers(1, 6), st.integers(0, 5))
def test_a_convolution_has_torchs_shape_or_a_side_below_one_where_torch_refuses(
    height: int, width: int, kernel_size: int, stride: int, padding: int
) -> None:
    layer = layer_kinds.convolution(
        (2, height, width), out_channels=3, kernel_size=kernel_size, stride=stride, padding=padding
    )
    images = torch.empty(1, 2, height, width, device="meta")
    weight = torch.empty(3, 2, kernel_size, kernel_size, device="meta")
    if min(height, width) + 2 * padding < kernel_size:
        assert min(layer.output_shape) < 1
    else:
        assert layer.output_shape == tuple(functional.conv2d(images, weight, stride=stride, padding=padding).shape[1:])


@given(sides, sides, st.integers(1, 11), st.integers(1, 12), st.sampled_from(["MaxPool2d", "AvgPool2d"]))
def test_a_pool_that_fits_has_torchs_shape(height: int, width: int, kernel_size: int, stride: int, kind: str) -> None:
    kernel_size = min(kernel_size, height, width)
    layer = layer_kinds.pool((2, height, width), kind=kind, kernel_size=kernel_size, stride=stride)
    pooled = getattr(nn, kind)(**layer.arguments)(torch.empty(1, 2, height, width, device="meta"))
    assert layer.output_shape == tuple(pooled.shape[1:])


@pytest.mark.parametrize(
    ("layer", "arithmetic"),
    [
        (layer_kinds.convolution((1, 28, 28), out_channels=16, kernel_size=3), "28-3+1=26"),
        (layer_kinds.convolution((1, 28, 28), out_channels=16, kernel_size=5, padding=2), "28+2*2-5+1=28"),
        (layer_kinds.convolution((1, 28, 20), out_channels=1, kernel_size=3), "28-3+1=26, 20-3+1=18"),
        (layer_kinds.convolution((1, 9, 9), out_channels=1, kernel_size=3, stride=2, padding=1), "(9+2*1-3)//2+1=5"),
        (layer_kinds.pool((1, 11, 11), kind="MaxPool2d", kernel_size=2, stride=2), "(11-2)//2+1=5"),
        (layer_kinds.pool((1, 11, 7), kind="AvgPool2d", kernel_size=3, stride=1), "11-3+1=9, 7-3+1=5"),
        (layer_kinds.global_average((8, 5, 4)), "mean of 5*4"),
        (layer_kinds.flatten((32, 5, 5)), "32*5*5=800"),
        (layer_kinds.linear((800,), out_features=10), ""),
    ],
)
def test_the_arithmetic_is_written_out(layer: Layer, arithmetic: str) -> None:
    assert layer.arithmetic == arithmetic


@given(networks())
def test_the_written_arithmetic_is_true(architecture: Architecture) -> None:
    for layer in layers_of(trace(architecture)):
        for equation in filter(lambda text: "=" in text, layer.arithmetic.split(", ")):
            left, right = equation.split("=")
            assert eval(left) == int(right)  # digits and + - * // of our own making


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        (layer_kinds.convolution((1, 8, 8), out_channels=16, kernel_size=3), "nn.Conv2d(1, 16, kernel_size=3)"),
        (
            layer_kinds.convolution((1, 8, 8), out_channels=4, kernel_size=5, stride=2, padding=2, bias=False),
            "nn.Conv2d(1, 4, kernel_size=5, stride=2, padding=2, bias=False)",
        ),
        (
            layer_kinds.pool((1, 8, 8), kind="MaxPool2d", kernel_size=3, stride=2),
            "nn.MaxPool2d(kernel_size=3, stride=2)",
        ),
        (
            layer_kinds.convolution((8, 8, 8), out_channels=8, kernel_size=3, groups=4),
            "nn.Conv2d(8, 8, kernel_size=3, groups=4)",
        ),
        (layer_kinds.group_norm((16, 8, 8)), "nn.GroupNorm(4, 16)"),
        (layer_kinds.flatten((1, 8, 8)), "nn.Flatten()"),
        (layer_kinds.layer((4,), "Dropout", p=0.5), "nn.Dropout(0.5)"),
        (layer_kinds.layer((4,), "ReLU"), "nn.ReLU()"),
    ],
)
def test_a_layer_is_typed_without_torchs_defaults(layer: Layer, source: str) -> None:
    assert layer.source == source


@given(networks(max_side=20))
def test_the_typed_source_of_a_layer_builds_the_same_module(architecture: Architecture) -> None:
    for layer in layers_of(trace(architecture)):
        with torch.device("meta"):
            typed = eval(layer.source, {"nn": nn})  # of our own making
            assert repr(typed) == repr(getattr(nn, layer.kind)(**layer.arguments))


@pytest.mark.parametrize(
    ("channels", "num_groups"), [(1, 1), (4, 1), (7, 1), (8, 2), (12, 3), (16, 4), (20, 5), (24, 6), (30, 6), (64, 8)]
)
def test_group_normalization_has_at_most_eight_groups_of_at_least_four_channels(channels: int, num_groups: int) -> None:
    assert layer_kinds.group_norm((channels, 2, 2)).arguments == {"num_groups": num_groups, "num_channels": channels}


@pytest.mark.parametrize(("shape", "num_layers"), [((1, 1, 1), 0), ((2, 1, 1), 1), ((1, 1, 2), 1)])
def test_there_is_no_group_normalization_of_a_single_value(shape: Shape, num_layers: int) -> None:
    assert len(normalized(shape, "group")) == num_layers
    assert len(normalized(shape, "batch")) == 1


@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_every_kind_is_a_class_of_torch_or_has_a_twin_of_the_same_base(kind: str) -> None:
    assert issubclass(TWINS.get(kind, getattr(nn, kind)), getattr(nn, kind))
