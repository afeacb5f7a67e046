"""Networks with shortcuts, layer by layer and as a drawing: every layer, every join, and what it joins."""

from __future__ import annotations

import re

from hypothesis import given

from tests.strategies import networks
from tuner.architecture.blocks import InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.parts import layers_of
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve, trace
from tuner.ui.report.network_drawing import network_drawing
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
        ("excitation", "* input", "72x5x5", "72x1x1 * 72x5x5"),
        ("residual", "+ input", "12x5x5", "12x5x5 + 12x5x5"),
    ]
    assert [row[0] for row in rows if row[0].startswith(("block", "head"))] == ["block 1", "block 2", "block 3", "head"]


@given(networks())
def test_the_table_has_every_layer_and_the_drawing_every_feature_map(architecture: Architecture) -> None:
    layers = layers_of(trace(architecture))
    rows = layer_rows(architecture)
    assert [row[1] for row in rows if "(" in row[1]] == [layer.source.removeprefix("nn.") for layer in layers]
    shapes = re.findall(r'class="shape"[^>]*>([^<]+)<', network_drawing(trace(architecture)))
    assert shapes[0] == "×".join(map(str, architecture.input_shape))
    assert shapes[-1] == str(architecture.num_classes)


def test_a_drawing_has_a_line_for_each_shortcut_from_what_enters_to_what_leaves() -> None:
    drawing = network_drawing(trace(NETWORK))
    stages = re.findall(r'class="made" x="([\d.]+)"[^>]*>([^<]+)<', drawing)
    places = {x: number for number, (x, _) in enumerate(stages)}
    lines = re.findall(r'd="M([\d.]+) [\d.]+V[\d.]+H([\d.]+)V[\d.]+"', drawing)
    # In the order in which they end: the projection, squeeze-and-excitation, and the identity around that.
    assert [(places[start], places[end]) for start, end in lines] == [(1, 3), (5, 9), (3, 10)]
    words = re.findall(r'class="then"[^>]*>([+×][^<]+)<', drawing)
    assert words == ["+ conv 1×1 /2", "× input", "+ input"]
    assert stages[5][1] == "depthwise 3×3"
