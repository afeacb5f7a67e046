"""Networks with shortcuts, layer by layer and as a drawing: every layer, every join, and what it joins."""

from __future__ import annotations

import re

from hypothesis import given

from tests.strategies import networks
from tuner.architecture.blocks import ActivationBlock, Block, InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.parts import layers_of
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve, trace
from tuner.ui.report.network_drawing import APART, network_drawing
from tuner.ui.tables import layer_rows

BLOCKS = (PlainBlock(8, normalization="batch"), ResidualBlock(12, stride=2), InvertedResidualBlock(12, squeeze=4))
NETWORK = resolve(Architecture(InputSpec(3, 9, 9, 10), BLOCKS, Head("average")))


def test_a_join_stands_behind_what_it_joins_with_both_shapes() -> None:
    rows = layer_rows(NETWORK)
    (shortcut,) = [number for number, row in enumerate(rows) if row[0] == "shortcut"]
    assert rows[shortcut][1:4] == ("Conv2d(8, 12, kernel_size=1, stride=2, bias=False)", "12x5x5", "(9-1)//2+1=5")
    assert rows[shortcut + 1] == ("residual", "+ shortcut", "12x5x5", "12x5x5 + 12x5x5", "", "")
    assert rows[shortcut + 2][1] == "ReLU()"
    assert [row[:4] for row in rows if row[1].endswith("input")] == [
        ("excitation", "* excitation input", "72x5x5", "72x1x1 * 72x5x5"),
        ("residual", "+ block input", "12x5x5", "12x5x5 + 12x5x5"),
    ]
    # The rows of the excitation are named, so that its input is what the depthwise convolution left.
    first, *_ = (number for number, row in enumerate(rows) if row[0] == "excitation")
    assert [row[1].split("(")[0] for row in rows[first - 3 : first + 6]] == [
        *("Conv2d", "BatchNorm2d", "ReLU6", "AdaptiveAvgPool2d", "Conv2d", "ReLU6", "Conv2d", "Sigmoid"),
        "* excitation input",
    ]
    assert [row[0] for row in rows[first - 3 : first + 7]] == [*[""] * 3, *["excitation"] * 6, ""]
    assert [row[0] for row in rows if row[0].startswith(("block", "head"))] == ["block 1", "block 2", "block 3", "head"]


@given(networks())
def test_the_table_has_every_layer_and_the_drawing_every_feature_map(architecture: Architecture) -> None:
    layers = layers_of(trace(architecture))
    rows = layer_rows(architecture)
    assert [row[1] for row in rows if "(" in row[1]] == [layer.source.removeprefix("nn.") for layer in layers]
    shapes = re.findall(r'class="shape"[^>]*>([^<]+)<', network_drawing(trace(architecture)))
    assert shapes[0] == "×".join(map(str, architecture.input_shape))
    assert shapes[-1] == str(architecture.num_classes)


def drawn(*blocks: Block) -> str:
    return network_drawing(trace(resolve(Architecture(InputSpec(3, 9, 9, 10), blocks, Head("average")))))


def columns_of(drawing: str) -> list[tuple[float, str]]:
    """What stands in each column and what works in place there, like `conv 3×3: batch norm, relu`, with its middle."""
    found: dict[float, str] = {float(x): "point" for x in re.findall(r'<circle class="point" cx="([\d.]+)"', drawing)}
    found |= {float(x): word for x, word in re.findall(r'class="(?:made|sign)" x="([\d.]+)"[^>]*>([^<]+)<', drawing)}
    for x, words in re.findall(r'class="then" x="([\d.]+)"[^>]*>([^<]+)<', drawing):
        if float(x) in found:  # those of the shortcuts are in the middle of their lines
            found[float(x)] += f"{', ' if ': ' in found[float(x)] else ': '}{words}"
    return sorted(found.items())


def test_a_drawing_has_a_line_for_each_shortcut_from_what_enters_to_the_join() -> None:
    drawing = network_drawing(trace(NETWORK))
    columns = columns_of(drawing)
    places = [x for x, _ in columns]
    lines = re.findall(r'd="M([\d.]+) [\d.]+V[\d.]+H([\d.]+)V[\d.]+"', drawing)
    ends = [(places.index(float(start) - APART), places.index(float(end) + APART)) for start, end in lines]
    # In the order in which they end: the projection, squeeze-and-excitation, and the identity around that.
    assert ends == [(1, 4), (6, 10), (4, 12)]
    assert [columns[at][1].split(":")[0] for pair in ends for at in pair] == [
        *("conv 3×3", "+", "depthwise 3×3", "×", "+", "+"),
    ]
    words = re.findall(r'class="then"[^>]*>(conv[^<]+|identity)<', drawing)
    assert words == ["conv 1×1 /2", "identity", "identity"]


def test_an_activation_after_a_sum_is_drawn_there_and_one_before_a_convolution_after_the_shortcut_branches_off() -> (
    None
):
    stem = PlainBlock(8, normalization="batch")
    post = [words for _, words in columns_of(drawn(stem, ResidualBlock(8), ResidualBlock(8)))]
    block = ["conv 3×3: batch norm, relu", "conv 3×3: batch norm", "+: relu"]
    assert post[1:-3] == ["conv 3×3: batch norm, relu", *block, *block]
    pre = ResidualBlock(8, order="pre")
    drawing = drawn(stem, pre, pre, ActivationBlock())
    block = ["point: batch norm, relu", "conv 3×3: batch norm, relu", "conv 3×3", "+"]
    columns = columns_of(drawing)
    assert [words for _, words in columns][1:-3] == [
        "conv 3×3: batch norm, relu",
        *block,
        *block[:-1],
        "+: batch norm, relu",
    ]
    starts = [float(x) - APART for x in re.findall(r'd="M([\d.]+) [\d.]+V[\d.]+H', drawing)]
    assert starts == [columns[1][0], columns[5][0]]  # the stem and the first sum, before the points
