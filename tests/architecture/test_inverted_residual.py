"""Inverted residual blocks: their rule, their parts, and MobileNetV2 against torchvision's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2
from torchvision.ops import SqueezeExcitation

from tuner.architecture.blocks import Block, InvertedResidualBlock, PlainBlock
from tuner.architecture.cost import network_cost
from tuner.architecture.factory import build_model, initialise
from tuner.architecture.joined import Joined
from tuner.architecture.parts import Part, named_layers
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve, trace

BLOCK = InvertedResidualBlock(8)
STAGES = ((1, 8, 1, 1), (6, 8, 2, 2), (6, 16, 3, 2), (6, 24, 4, 2), (6, 32, 3, 1), (6, 56, 3, 2), (6, 112, 1, 1))
"""Expansion, channels, blocks and first stride of MobileNetV2's stages, at 0.35 times its channels."""


def mobilenet(side: int) -> Architecture:
    blocks: list[Block] = [PlainBlock(16, stride=2, normalization="batch", activation="relu6")]
    for expansion, out_channels, num_blocks, stride in STAGES:
        for number in range(num_blocks):
            blocks.append(InvertedResidualBlock(out_channels, expansion, stride=stride if number == 0 else 1))
    blocks.append(PlainBlock(1280, kernel_size=1, normalization="batch", activation="relu6"))
    head = Head(pooling="average", dropout=0.2)
    return resolve(Architecture(InputSpec(3, side, side, 10), tuple(blocks), head))


def torchvisions(architecture: Architecture) -> tuple[nn.Sequential, nn.Module]:
    """Our model, and torchvision's with its weights; both name them in the same order."""
    model, theirs = build_model(architecture), mobilenet_v2(width_mult=0.35, num_classes=10)
    initialise(model, seed=1)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), model.state_dict().values(), strict=True)))
    return model, theirs


@pytest.mark.parametrize("side", [32, 96, 224])
def test_mobilenet_v2_has_torchvisions_parameters_and_shapes(side: int) -> None:
    architecture = mobilenet(side)
    assert network_cost(trace(architecture)).num_parameters == 408_938
    with torch.device("meta"):
        theirs = mobilenet_v2(width_mult=0.35, num_classes=10)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == 408_938
    shapes: list[tuple[int, ...]] = []
    for module in theirs.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    theirs(torch.empty(2, 3, side, side, device="meta"))
    layers = named_layers(trace(architecture)).values()
    assert [layer.output_shape for layer in layers if layer.kind == "Conv2d"] == shapes


def test_mobilenet_v2_gives_torchvisions_logits() -> None:
    architecture = mobilenet(64)
    model, theirs = torchvisions(architecture)
    images_NCHW = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        for network in (model, theirs):
            torch.manual_seed(0)
            network.train()(images_NCHW)
        assert torch.equal(model.eval()(images_NCHW), theirs.eval()(images_NCHW))


def test_squeeze_and_excitation_is_torchvisions() -> None:
    block = InvertedResidualBlock(4, expansion=3, squeeze=4, activation="relu")
    model = build_model(resolve(Architecture(InputSpec(5, 6, 7, 3), (block,), Head())))
    initialise(model, seed=1)
    ours = next(module for module in model.modules() if isinstance(module, Joined) and module.join == "multiply")
    theirs = SqueezeExcitation(15, 3)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x_NCHW = torch.randn(2, 15, 6, 7)
    assert torch.equal(ours(x_NCHW), theirs(x_NCHW))


@pytest.mark.parametrize(
    ("block", "shape", "changes"),
    [
        (BLOCK, (8, 5, 7), {}),
        (replace(BLOCK, kernel_size=11), (4, 1, 2), {}),
        (replace(BLOCK, stride=2), (8, 1, 2), {}),
        # One pixel either way.
        (replace(BLOCK, stride=2), (8, 1, 1), {"stride": 1}),
        # Of 3 channels one is left, though not of fewer than none.
        (replace(BLOCK, expansion=1, squeeze=4), (3, 5, 5), {"squeeze": 3}),
        (replace(BLOCK, expansion=2, squeeze=4), (3, 5, 5), {}),
    ],
)
def test_a_block_that_does_not_fit_is_resolved_by_the_written_rule(
    block: InvertedResidualBlock, shape: tuple[int, int, int], changes: dict[str, Any]
) -> None:
    assert block.resolve(shape) == replace(block, **changes)


@pytest.mark.parametrize(
    ("block", "shape", "is_residual"),
    [
        (BLOCK, (8, 5, 5), True),
        (BLOCK, (4, 5, 5), False),
        (replace(BLOCK, stride=2), (8, 5, 5), False),
        (replace(BLOCK, stride=2), (8, 1, 1), True),
    ],
)
def test_there_is_a_shortcut_where_the_shape_stays(
    block: InvertedResidualBlock, shape: tuple[int, int, int], is_residual: bool
) -> None:
    first, *others = block.resolve(shape).path(shape)
    assert (isinstance(first, Part) and first.join == "add") == is_residual
    assert bool(others) == (not is_residual)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (BLOCK, "inverted 8 x6 k3 bn relu6"),
        (InvertedResidualBlock(24, 4, 5, 2, "none", "silu", 4), "inverted 24 x4 k5 s2 silu se4"),
    ],
)
def test_a_block_in_a_few_words(block: InvertedResidualBlock, words: str) -> None:
    assert str(block) == words
