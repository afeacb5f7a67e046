"""Draw a network: a box for every feature map, whose height is the map's side and whose width shows its channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log2

from tuner.architecture.shapes import Layer, Shape

COLUMN, TALLEST, TOP, BELOW = 96, 130, 46, 30
"""Sizes in pixels: width of a stage, height of the largest map, space above the boxes, and below for their shapes."""
WORDS = {"BatchNorm2d": "batch norm", "LeakyReLU": "leaky relu"}


@dataclass(frozen=True)
class _Stage:
    """A shape, the layer that made it, and the layers that work on it in place."""

    made_by: str
    shape: Shape
    kind: str
    then: tuple[str, ...] = ()


def network_drawing(layers: Sequence[Layer]) -> str:
    """Draw the traced layers as one SVG that uses the colours of the page."""
    stages = _stages(layers)
    width = COLUMN * len(stages)
    height = TOP + TALLEST + BELOW + 12 * max(len(_rows(stage.then)) for stage in stages)
    largest = max(layers[0].input_shape[1:])
    middle = TOP + TALLEST / 2
    parts = []
    for index, stage in enumerate(stages):
        box_width, box_height = _box(stage.shape, largest)
        centre = COLUMN * (index + 0.5)
        left, top = centre - box_width / 2, middle - box_height / 2
        if index:
            before = COLUMN * (index - 0.5) + _box(stages[index - 1].shape, largest)[0] / 2
            parts.append(f'<path class="flow" d="M{before + 4:.1f} {middle}H{left - 4:.1f}"/>')
        parts.append(
            f'<rect class="map {stage.kind}" x="{left:.1f}" y="{top:.1f}" width="{box_width:.1f}" '
            f'height="{box_height:.1f}" rx="3"><title>{escape("x".join(map(str, stage.shape)))}</title></rect>'
        )
        parts.append(_text(centre, TOP - 26, stage.made_by, "made"))
        parts.append(_text(centre, TOP + TALLEST + 22, "×".join(map(str, stage.shape)), "shape"))
        for row, words in enumerate(_rows(stage.then)):
            parts.append(_text(centre, TOP + TALLEST + 36 + 12 * row, words, "then"))
    return (
        f'<svg class="network" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="The network: {len(stages) - 1} stages">{"".join(parts)}</svg>'
    )


def _stages(layers: Sequence[Layer]) -> list[_Stage]:
    stages = [_Stage("input", layers[0].input_shape, "input")]
    for layer in layers:
        is_new = layer.output_shape != layer.input_shape or layer.kind in ("Conv2d", "Linear")
        if is_new:
            kind = "convolution" if layer.kind == "Conv2d" else "linear" if layer.kind == "Linear" else "pooling"
            stages.append(_Stage(_name(layer), layer.output_shape, kind))
        else:
            last = stages[-1]
            stages[-1] = _Stage(last.made_by, last.shape, last.kind, (*last.then, _name(layer)))
    return stages


def _name(layer: Layer) -> str:
    arguments = layer.arguments
    match layer.kind:
        case "Conv2d":
            stride = f" /{arguments['stride']}" if arguments["stride"] > 1 else ""
            return f"conv {arguments['kernel_size']}×{arguments['kernel_size']}{stride}"
        case "MaxPool2d" | "AvgPool2d":
            name = "max" if layer.kind == "MaxPool2d" else "average"
            return f"{name} {arguments['kernel_size']}×{arguments['kernel_size']}"
        case "AdaptiveAvgPool2d":
            return "global average"
        case "Dropout" | "Dropout2d":
            return f"dropout {arguments['p']:.2g}"
    return WORDS.get(layer.kind, layer.kind.lower())


def _box(shape: Shape, largest: int) -> tuple[float, float]:
    """Width and height in pixels; a vector is a narrow box whose height depends on the logarithm of its length."""
    if len(shape) == 1:
        return 12.0, min(TALLEST, 14.0 + 9.0 * log2(max(1, shape[0])))
    channels, height, _ = shape
    return min(COLUMN - 26.0, 12.0 + 7.0 * log2(max(1, channels))), max(8.0, TALLEST * height / largest)


def _rows(then: Sequence[str]) -> list[str]:
    """Format the layers that work in place, in at most three short lines."""
    rows: list[str] = []
    for words in then:
        if rows and len(rows[-1]) + len(words) < 17:
            rows[-1] += f", {words}"
        else:
            rows.append(words)
    return rows[:3]


def _text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(words)}</text>'
