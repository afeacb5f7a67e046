import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tests.strategies import architectures
from tuner.architecture import shapes
from tuner.architecture.factory import build_model
from tuner.architecture.shapes import Layer, side_after
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace

sides = st.integers(1, 60)


def shape_of_each_layer(model: nn.Sequential, architecture: Architecture) -> list[tuple[int, ...]]:
    """What leaves every layer for a batch of two, without the batch."""
    out = []
    x = torch.empty(2, *architecture.input_shape, device="meta")
    for module in model:
        x = module(x)
        out.append(tuple(x.shape[1:]))
    return out


@given(architectures())
def test_the_traced_shape_of_every_layer_is_the_one_torch_computes(architecture: Architecture) -> None:
    with torch.device("meta"):
        model = build_model(architecture)
    assert [layer.output_shape for layer in trace(architecture)] == shape_of_each_layer(model, architecture)


@given(architectures(max_side=1))
def test_every_architecture_resolves_to_one_that_takes_a_single_pixel(architecture: Architecture) -> None:
    with torch.device("meta"):
        model = build_model(architecture)
    assert architecture.input_shape[1:] == (1, 1)
    assert shape_of_each_layer(model, architecture)[-1] == (architecture.num_classes,)


@given(architectures())
def test_each_layer_takes_what_the_one_before_it_gives(architecture: Architecture) -> None:
    layers = trace(architecture)
    assert layers[0].input_shape == architecture.input_shape
    assert [layer.input_shape for layer in layers[1:]] == [layer.output_shape for layer in layers[:-1]]
    assert layers[-1].output_shape == (architecture.num_classes,)
    assert all(side >= 1 for layer in layers for side in layer.output_shape)


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "padding", "expected"),
    [
        (28, 3, 1, 0, 26),
        (28, 3, 1, 1, 28),
        (28, 5, 1, 2, 28),
        (28, 3, 2, 1, 14),
        (27, 3, 2, 1, 14),
        (26, 2, 2, 0, 13),
        (11, 2, 2, 0, 5),
        (11, 3, 4, 0, 3),
        (1, 1, 1, 0, 1),
        (1, 11, 4, 5, 1),
        (2, 3, 1, 0, 0),
    ],
)
def test_one_side_by_hand(size: int, kernel_size: int, stride: int, padding: int, expected: int) -> None:
    assert side_after(size, kernel_size=kernel_size, stride=stride, padding=padding) == expected


@given(sides, sides, st.integers(1, 11), st.integers(1, 6), st.integers(0, 5))
def test_a_convolution_has_torchs_shape_or_a_side_below_one_where_torch_refuses(
    height: int, width: int, kernel_size: int, stride: int, padding: int
) -> None:
    layer = shapes.convolution(
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
    layer = shapes.pool((2, height, width), kind=kind, kernel_size=kernel_size, stride=stride)
    pooled = getattr(nn, kind)(**layer.arguments)(torch.empty(1, 2, height, width, device="meta"))
    assert layer.output_shape == tuple(pooled.shape[1:])


@pytest.mark.parametrize(
    ("layer", "arithmetic"),
    [
        (shapes.convolution((1, 28, 28), out_channels=16, kernel_size=3), "28-3+1=26"),
        (shapes.convolution((1, 28, 28), out_channels=16, kernel_size=5, padding=2), "28+2*2-5+1=28"),
        (shapes.convolution((1, 28, 20), out_channels=1, kernel_size=3), "28-3+1=26, 20-3+1=18"),
        (shapes.convolution((1, 9, 9), out_channels=1, kernel_size=3, stride=2, padding=1), "(9+2*1-3)//2+1=5"),
        (shapes.pool((1, 11, 11), kind="MaxPool2d", kernel_size=2, stride=2), "(11-2)//2+1=5"),
        (shapes.pool((1, 11, 7), kind="AvgPool2d", kernel_size=3, stride=1), "11-3+1=9, 7-3+1=5"),
        (shapes.global_average((8, 5, 4)), "mean of 5*4"),
        (shapes.flatten((32, 5, 5)), "32*5*5=800"),
        (shapes.linear((800,), out_features=10), ""),
    ],
)
def test_the_arithmetic_is_written_out(layer: Layer, arithmetic: str) -> None:
    assert layer.arithmetic == arithmetic


@given(architectures())
def test_the_written_arithmetic_is_true(architecture: Architecture) -> None:
    for layer in trace(architecture):
        for equation in filter(lambda text: "=" in text, layer.arithmetic.split(", ")):
            left, right = equation.split("=")
            assert eval(left) == int(right)  # digits and + - * // of our own making


@pytest.mark.parametrize(
    ("layer", "source"),
    [
        (shapes.convolution((1, 8, 8), out_channels=16, kernel_size=3), "nn.Conv2d(1, 16, kernel_size=3)"),
        (
            shapes.convolution((1, 8, 8), out_channels=4, kernel_size=5, stride=2, padding=2, bias=False),
            "nn.Conv2d(1, 4, kernel_size=5, stride=2, padding=2, bias=False)",
        ),
        (
            shapes.pool((1, 8, 8), kind="MaxPool2d", kernel_size=3, stride=2),
            "nn.MaxPool2d(kernel_size=3, stride=2)",
        ),
        (shapes.flatten((1, 8, 8)), "nn.Flatten()"),
        (shapes.same_shape((4,), "Dropout", p=0.5), "nn.Dropout(0.5)"),
        (shapes.same_shape((4,), "ReLU"), "nn.ReLU()"),
    ],
)
def test_a_layer_is_typed_without_torchs_defaults(layer: Layer, source: str) -> None:
    assert layer.source == source


@given(architectures(max_side=20))
def test_the_typed_source_of_a_layer_builds_the_same_module(architecture: Architecture) -> None:
    for layer in trace(architecture):
        with torch.device("meta"):
            typed = eval(layer.source, {"nn": nn})  # of our own making
            assert repr(typed) == repr(getattr(nn, layer.kind)(**layer.arguments))
