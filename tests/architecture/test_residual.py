"""Residual blocks: their rule, their arithmetic, and networks of them against modules written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from tests.strategies import blocks_of, input_specs
from tuner.architecture.blocks import ActivationBlock, Block, InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.cost import network_cost
from tuner.architecture.factory import build_model, initialise
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.parts import Part
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve, trace

BLOCK = ResidualBlock(8)


def resnet(blocks_in_stage: int) -> Architecture:
    """As in He et al., section 4.2, with three stages of 16, 32 and 64 channels over 3x32x32."""
    blocks: list[Block] = [PlainBlock(16, normalization="batch")]
    for stage, out_channels in enumerate((16, 32, 64)):
        for number in range(blocks_in_stage):
            blocks.append(ResidualBlock(out_channels, stride=2 if stage > 0 and number == 0 else 1))
    return resolve(Architecture(InputSpec(3, 32, 32, 10), tuple(blocks), Head(pooling="average")))


@pytest.mark.parametrize(("blocks_in_stage", "num_parameters"), [(1, 77_850), (3, 272_282)], ids=["8", "20"])
def test_resnets_have_the_parameters_that_are_written_of_them(blocks_in_stage: int, num_parameters: int) -> None:
    architecture = resnet(blocks_in_stage)
    assert network_cost(trace(architecture)).num_parameters == num_parameters
    assert sum(parameter.numel() for parameter in build_model(architecture).parameters()) == num_parameters


def test_the_parameters_of_resnet_8_by_hand() -> None:
    stem, *stages, _ = (network_cost([part]).num_parameters for part in trace(resnet(1)))
    # Convolutions without biases, two numbers a channel of each normalization, projections of 1x1.
    assert stem == 16 * 27 + 2 * 16
    assert stages == [
        2 * 16 * 144 + 4 * 16,
        32 * 144 + 32 * 288 + 4 * 32 + 32 * 16,
        64 * 288 + 64 * 576 + 4 * 64 + 64 * 32,
    ]


@pytest.mark.parametrize(
    ("block", "shape", "changes"),
    [
        # Nothing changes shape.
        (BLOCK, (8, 5, 7), {}),
        (replace(BLOCK, shortcut="projection"), (8, 5, 7), {}),
        (replace(BLOCK, kernel_size=11), (8, 1, 2), {}),
        # Channels or sides change.
        (BLOCK, (4, 5, 7), {"shortcut": "projection"}),
        (replace(BLOCK, stride=2), (8, 5, 7), {"shortcut": "projection"}),
        (replace(BLOCK, stride=2), (8, 1, 2), {"shortcut": "projection"}),
        # One pixel either way.
        (replace(BLOCK, stride=2), (8, 1, 1), {"stride": 1}),
        (replace(BLOCK, stride=2), (4, 1, 1), {"stride": 1, "shortcut": "projection"}),
        # Pooling after the sum, whose sides are (5-1)//2+1 = 3 and (7-1)//2+1 = 4.
        (replace(BLOCK, stride=2, pooling="max", pool_size=4), (8, 5, 7), {"shortcut": "projection", "pool_size": 3}),
        (replace(BLOCK, pooling="max"), (8, 1, 7), {"pooling": "none"}),
        (replace(BLOCK, pooling="none", pool_size=5, pool_stride=4), (8, 9, 9), {"pool_size": 2, "pool_stride": 2}),
        (replace(BLOCK, pooling="average", pool_size=3, pool_stride=1), (8, 3, 3), {"pool_stride": 3}),
    ],
)
def test_a_block_that_does_not_fit_is_resolved_by_the_written_rule(
    block: ResidualBlock, shape: tuple[int, int, int], changes: dict[str, Any]
) -> None:
    assert block.resolve(shape) == replace(block, **changes)


def kinds_of(block: ResidualBlock, channels: int) -> list[object]:
    """The layers' kinds; of a part its name, its join and those of both paths."""

    def kind(item: Layer | Part) -> object:
        if isinstance(item, Layer):
            return item.kind
        return item.name, item.join, [*map(kind, item.main)], [*map(kind, item.shortcut)]

    shape = (channels, 6, 6)
    return [kind(item) for item in block.resolve(shape).path(shape)]


CONVOLVED, ACTIVATED = ["Conv2d", "BatchNorm2d", "ReLU"], ["BatchNorm2d", "ReLU"]


@pytest.mark.parametrize(
    ("block", "channels", "expected"),
    [
        (BLOCK, 8, [("residual", "add", [*CONVOLVED, "Conv2d", "BatchNorm2d"], []), "ReLU"]),
        (BLOCK, 4, [("residual", "add", [*CONVOLVED, "Conv2d", "BatchNorm2d"], ["Conv2d"]), "ReLU"]),
        (
            replace(BLOCK, order="pre", dropout=0.1, pooling="average"),
            8,
            [("residual", "add", [*ACTIVATED, "Conv2d", *ACTIVATED, "Dropout", "Conv2d"], []), "AvgPool2d"],
        ),
        (
            replace(BLOCK, normalization="none", dropout=0.1, pooling="max"),
            8,
            [("residual", "add", ["Conv2d", "ReLU", "Dropout", "Conv2d"], []), "ReLU", "MaxPool2d"],
        ),
    ],
)
def test_the_parts_of_a_block(block: ResidualBlock, channels: int, expected: list[object]) -> None:
    assert kinds_of(block, channels) == expected


class PostActivation(nn.Module):
    """As torchvision's BasicBlock, but for the projection, which has no normalization."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.projection = (
            nn.Identity()
            if (stride, in_channels) == (1, out_channels)
            else nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(residual + self.projection(x))


class PreActivation(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.projection = (
            nn.Identity()
            if (stride, in_channels) == (1, out_channels)
            else nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv1(functional.relu(self.bn1(x)))
        return self.conv2(functional.relu(self.bn2(residual))) + self.projection(x)


@pytest.mark.parametrize(
    ("order", "module", "last"),
    [("post", PostActivation, ()), ("pre", PreActivation, (nn.BatchNorm2d(12), nn.ReLU()))],
)
def test_networks_give_the_logits_of_modules_written_by_hand(
    order: Any, module: Callable[[int, int, int], nn.Module], last: tuple[nn.Module, ...]
) -> None:
    blocks = (
        PlainBlock(8, normalization="batch"),
        ResidualBlock(8, order=order),
        ResidualBlock(12, stride=2, order=order),
    )
    closing = (ActivationBlock(),) if order == "pre" else ()
    model = build_model(resolve(Architecture(InputSpec(3, 9, 8, 5), (*blocks, *closing), Head("average"))))
    initialise(model, seed=1)
    by_hand = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        module(8, 8, 1),
        module(8, 12, 2),
        *last,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )
    weights = model.state_dict().values()
    by_hand.load_state_dict(dict(zip(by_hand.state_dict(), weights, strict=True)))
    images_NCHW = torch.randn(4, 3, 9, 8)
    for network in (model, by_hand):
        network.train()(images_NCHW)
    assert torch.equal(model(images_NCHW), by_hand(images_NCHW))
    with torch.no_grad():
        assert torch.equal(model.eval()(images_NCHW), by_hand.eval()(images_NCHW))


@given(blocks_of(ResidualBlock), input_specs(max_side=224))
def test_a_residual_network_says_its_family_in_json_and_a_plain_one_says_none(
    block: ResidualBlock, input_spec: InputSpec
) -> None:
    architecture = resolve(Architecture(input_spec, (PlainBlock(4), block), Head()))
    plain, residual = architecture.to_json()["blocks"]
    assert "family" not in plain
    assert residual["family"] == "residual"
    assert Architecture.from_json(architecture.to_json()) == architecture


@pytest.mark.parametrize(
    ("change", "words"),
    [({"kernel_size": 4}, "must be odd"), ({"family": "other"}, "'other'"), ({"out_channels": 0}, "greater than")],
)
def test_a_block_that_cannot_be_is_refused(change: dict[str, Any], words: str) -> None:
    data = resnet(1).to_json()
    data["blocks"][1] |= change
    with pytest.raises(ValidationError, match=words):
        Architecture.from_json(data)


@pytest.mark.parametrize("family", [ResidualBlock, InvertedResidualBlock])
def test_a_block_with_an_even_kernel_cannot_be_made(family: type[Any]) -> None:
    with pytest.raises(ValueError, match="must be odd, so that the padding keeps the size of the feature map, got 4"):
        family(8, kernel_size=4)
    with pytest.raises(ValueError, match="must be odd"):
        replace(family(8), kernel_size=2)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (BLOCK, "residual 8 k3 bn relu"),
        (
            ResidualBlock(32, 5, 2, "group", "elu", "pre", "projection", "max", 3, 2, 0.05),
            "pre-residual 32 k5 s2 gn elu projection max3s2 d0.05",
        ),
        (ActivationBlock(), "bn relu"),
        (ActivationBlock(normalization="none", activation="tanh"), "tanh"),
    ],
)
def test_a_block_in_a_few_words(block: Block, words: str) -> None:
    assert str(block) == words
