"""Draw a network: a box for every feature map, whose height is the map's side and whose width shows its channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import log2

from tuner.architecture.layer_kinds import Layer
from tuner.architecture.parts import Items, Part, layers_of, steps_of
from tuner.architecture.shapes import Shape

COLUMN, TALLEST, TOP, BELOW = 96, 130, 46, 30
"""Pixels: width of a stage, height of the largest map, room above the boxes, and below them for their shapes."""
ARC = 22
"""Pixels: height of the line of a shortcut, above the boxes."""
WORDS = {"BatchNorm2d": "batch norm", "GroupNorm": "group norm", "LeakyReLU": "leaky relu"}


@dataclass(frozen=True)
class _Stage:
    """A shape, the layer that made it, and the layers that work on it in place."""

    made_by: str
    shape: Shape
    kind: str
    then: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Shortcut:
    """From one stage to another, by their positions; nested ones are drawn below those around them."""

    start: int
    end: int
    words: str
    depth: int


def network_drawing(parts: Sequence[Part]) -> str:
    """The traced parts as one SVG that takes its colours from the page."""
    stages = [_Stage("input", parts[0].input_shape, "input")]
    shortcuts: list[_Shortcut] = []
    _follow(parts, stages, shortcuts, depth=0)
    above = ARC * (1 + max((shortcut.depth for shortcut in shortcuts), default=-1))
    width = COLUMN * len(stages)
    height = above + TOP + TALLEST + BELOW + 12 * max(len(_rows(stage.then)) for stage in stages)
    drawn = "".join([*_boxes(stages, above), *(_arc(shortcut, above) for shortcut in shortcuts)])
    return (
        f'<svg class="network" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="The network: {len(stages) - 1} stages">{drawn}</svg>'
    )


def _boxes(stages: Sequence[_Stage], above: int) -> Iterator[str]:
    """Every stage, with what made it above its box and its shape below."""
    largest = max(stages[0].shape[1:])
    top_of_boxes = above + TOP
    middle = top_of_boxes + TALLEST / 2
    for index, stage in enumerate(stages):
        box_width, box_height = _box(stage.shape, largest)
        centre = COLUMN * (index + 0.5)
        left, top = centre - box_width / 2, middle - box_height / 2
        if index:
            before = COLUMN * (index - 0.5) + _box(stages[index - 1].shape, largest)[0] / 2
            yield f'<path class="flow" d="M{before + 4:.1f} {middle}H{left - 4:.1f}"/>'
        yield (
            f'<rect class="map {stage.kind}" x="{left:.1f}" y="{top:.1f}" width="{box_width:.1f}" '
            f'height="{box_height:.1f}" rx="3"><title>{escape("x".join(map(str, stage.shape)))}</title></rect>'
        )
        yield _text(centre, top_of_boxes - 26, stage.made_by, "made")
        yield _text(centre, top_of_boxes + TALLEST + 22, "×".join(map(str, stage.shape)), "shape")
        for row, words in enumerate(_rows(stage.then)):
            yield _text(centre, top_of_boxes + TALLEST + 36 + 12 * row, words, "then")


def _arc(shortcut: _Shortcut, above: int) -> str:
    """A line above the boxes, with the join and the shortcut's layers in words."""
    start, end = (COLUMN * (index + 0.5) for index in (shortcut.start, shortcut.end))
    foot, top = above + TOP - 40, ARC * shortcut.depth + 14
    words = _text((start + end) / 2, top - 3, shortcut.words, "then")
    return f'<path class="flow" fill="none" d="M{start:.1f} {foot}V{top}H{end:.1f}V{foot}"/>{words}'


def _follow(items: Items, stages: list[_Stage], shortcuts: list[_Shortcut], *, depth: int) -> None:
    """Append the stages of a path to `stages`, and the shortcuts beside them to `shortcuts`."""
    for step in steps_of(items):
        if isinstance(step, Layer):
            _add_layer(step, stages)
            continue
        start = len(stages) - 1
        _follow(step.main, stages, shortcuts, depth=depth + 1)
        sign = "+" if step.join == "add" else "×"
        if step.output_shape != stages[-1].shape:
            stages.append(_Stage(f"{sign} input", step.output_shape, "pooling"))
        layers = ", ".join(map(_name, layers_of(step.shortcut)))
        shortcuts.append(_Shortcut(start, len(stages) - 1, f"{sign} {layers or 'input'}", depth))


def _add_layer(layer: Layer, stages: list[_Stage]) -> None:
    if layer.output_shape != layer.input_shape or layer.kind in ("Conv2d", "Linear"):
        kind = "convolution" if layer.kind == "Conv2d" else "linear" if layer.kind == "Linear" else "pooling"
        stages.append(_Stage(_name(layer), layer.output_shape, kind))
    else:
        last = stages[-1]
        stages[-1] = _Stage(last.made_by, last.shape, last.kind, (*last.then, _name(layer)))


def _name(layer: Layer) -> str:
    arguments = layer.arguments
    match layer.kind:
        case "Conv2d":
            stride = f" /{arguments['stride']}" if arguments["stride"] > 1 else ""
            kind = "depthwise" if arguments.get("groups", 1) > 1 else "conv"
            return f"{kind} {arguments['kernel_size']}×{arguments['kernel_size']}{stride}"
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
