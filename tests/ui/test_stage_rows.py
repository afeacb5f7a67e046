"""The table of a network with a backbone: its stages, its head, and sums that are those of the whole network."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tuner.architecture.any_architecture import cost_of, resolve_any
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.spec import Head, InputSpec
from tuner.space.backbone_space import UNKNOWN_WEIGHTS
from tuner.training.candidate import Candidate, Recipe
from tuner.ui.stage_rows import weights_in_words
from tuner.ui.tables import NetworkTable, layer_rows

WEIGHTS = "0123456789abcdef"


def network_of(name: str, *, side: int = 32, **changes: Any) -> BackboneNetwork:
    head = Head(pooling="average", hidden_features=16, dropout=0.2)
    values: dict[str, Any] = {"trained_stages": 1, "head": head} | changes
    network = resolve_any(BackboneNetwork(InputSpec(3, side, side, 10), name, WEIGHTS, **values))
    assert isinstance(network, BackboneNetwork)
    return network


def test_a_backbone_has_a_row_for_each_stage_and_frozen_ones_are_named_so() -> None:
    assert [row[:3] for row in layer_rows(network_of("resnet18", trained_stages=2))] == [
        ("input", "", "3x32x32"),
        ("stage 1, frozen", "conv1, bn1, relu, maxpool", "64x8x8"),
        ("stage 2, frozen", "layer1", "64x8x8"),
        ("stage 3, frozen", "layer2", "128x4x4"),
        ("stage 4", "layer3", "256x2x2"),
        ("stage 5", "layer4, avgpool, Flatten", "512"),
        ("head", "Linear(512, 16)", "16"),
        ("", "ReLU()", "16"),
        ("", "Dropout(0.2)", "16"),
        ("", "Linear(16, 10)", "10"),
        ("total", "", ""),
    ]


def number(text: str) -> int:
    return int(text.replace(",", "")) if text else 0


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_small", "convnext_tiny", "timm/test_vit", "timm/test_resnet"]
)
def test_the_rows_add_up_to_the_whole_network(name: str) -> None:
    network = network_of(name, side=160 if name == "timm/test_vit" else 32)
    *rows, total = layer_rows(network)
    cost = cost_of(network)
    assert sum(number(row[4]) for row in rows) == number(total[4]) == cost.num_parameters
    assert sum(number(row[5]) for row in rows) == number(total[5]) == cost.flops


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_and_ends_with_weights_and_recipe(width: int) -> None:
    stream = io.StringIO()
    candidate = Candidate(network_of("timm/mobilenetv3_small_050"), Recipe(optimizer="adamw", stage_decay=0.3))
    Console(file=stream, width=width, force_terminal=False).print(NetworkTable(candidate))
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.startswith(f"weights  pretrained ({WEIGHTS})") for line in lines)
    assert "learning rate times 0.3 for each stage before the head" in " ".join(" ".join(lines).split())


@pytest.mark.parametrize(
    ("weights", "views", "crop_fraction", "words"),
    [
        (WEIGHTS, 0, 0.0, f"pretrained ({WEIGHTS})"),
        (UNKNOWN_WEIGHTS, 0, 0.0, "pretrained"),
        (WEIGHTS, 1, 0.0, f"pretrained ({WEIGHTS}); trained on every image and 1 augmented view of it"),
        (UNKNOWN_WEIGHTS, 4, 0.5, "pretrained; crop fraction 0.5; trained on every image and 4 augmented views of it"),
        (WEIGHTS, 0, 1.0, f"pretrained ({WEIGHTS}); crop fraction 1"),
    ],
)
def test_weights_are_described_with_the_crop_and_the_views_of_the_images(
    weights: str, views: int, crop_fraction: float, words: str
) -> None:
    network = BackboneNetwork(InputSpec(3, 32, 32, 10), "resnet18", weights, 0, views, crop_fraction)
    assert weights_in_words(network) == words
