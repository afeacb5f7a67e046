"""Draw a network: a box for each feature map, by its side and its channels, and a sign for each join."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import accumulate
from math import log2

from tuner.architecture.layer_kinds import Layer
from tuner.architecture.parts import Items, Part, layers_of, steps_of
from tuner.architecture.shapes import Shape

COLUMN, NARROW, TALLEST, TOP, BELOW = 112, 70, 130, 46, 30
"""Pixels: width of a feature map's column, and of a column with a point or a join; height of the largest map, room
above the boxes, and below them for their shapes."""
ARC, RADIUS, APART = 22, 9, 5
"""Pixels: height of the line of a shortcut, above the boxes; radius of a join; from its middle to a shortcut's line."""
WORDS = {"BatchNorm2d": "batch norm", "GroupNorm": "group norm", "LeakyReLU": "leaky relu"}
SIGNS = {"add": "+", "multiply": "×"}


@dataclass(frozen=True)
class _Step:
    """A column of the drawing, with the layers that work in place on its feature map.

    label: the layer that made the map, or the sign of a join. kind: `join` for a sum or product, `point` for layers
    that work in place on the main path alone, after its shortcut has branched off, or else the kind of the map's box.
    """

    label: str
    shape: Shape
    kind: str
    then: tuple[str, ...] = ()

    @property
    def is_map(self) -> bool:
        """Whether the step is a feature map of its own, and has a box."""
        return self.kind not in ("join", "point")

    @property
    def width(self) -> int:
        """Width of the column in pixels."""
        return COLUMN if self.is_map else NARROW


@dataclass(frozen=True)
class _Shortcut:
    """From one step to a join, by their positions; nested ones are drawn below those around them."""

    start: int
    end: int
    words: str
    depth: int


def network_drawing(parts: Sequence[Part]) -> str:
    """The traced parts as one SVG that takes its colours from the page."""
    steps = [_Step("input", parts[0].input_shape, "input")]
    shortcuts: list[_Shortcut] = []
    _follow(parts, steps, shortcuts, depth=0)
    above = ARC * (1 + max((shortcut.depth for shortcut in shortcuts), default=-1))
    width = sum(step.width for step in steps)
    height = above + TOP + TALLEST + BELOW + 12 * max(len(_rows(step)) for step in steps if step.is_map)
    drawn = "".join([*_columns(steps, above), *(_arc(shortcut, steps, above) for shortcut in shortcuts)])
    num_maps = sum(step.is_map for step in steps)
    return (
        f'<svg class="network" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="The network: {num_maps} feature maps">{drawn}</svg>'
    )


def _columns(steps: Sequence[_Step], above: int) -> Iterator[str]:
    """Every step: what made a map above its box, its shape below, and the layers in place below both."""
    largest = max(steps[0].shape[1:])
    top_of_boxes = above + TOP
    before = 0.0
    middle, below = top_of_boxes + TALLEST / 2, top_of_boxes + TALLEST + 22
    for index, (step, centre) in enumerate(zip(steps, _centres(steps), strict=True)):
        half = _half_width(step, largest)
        if index:
            yield f'<path class="flow" d="M{before + 4:.1f} {middle}H{centre - half - 4:.1f}"/>'
        before = centre + half
        if step.is_map:
            height = _box(step.shape, largest)[1]
            yield (
                f'<rect class="map {step.kind}" x="{centre - half:.1f}" y="{middle - height / 2:.1f}" '
                f'width="{2 * half:.1f}" height="{height:.1f}" rx="3">'
                f"<title>{escape('x'.join(map(str, step.shape)))}</title></rect>"
            )
            yield _text(centre, top_of_boxes - 26, step.label, "made")
            yield _text(centre, below, "×".join(map(str, step.shape)), "shape")
        else:
            yield f'<circle class="{step.kind}" cx="{centre:.1f}" cy="{middle}" r="{half:.0f}"/>'
            yield _text(centre, middle + 4, step.label, "sign") if step.label else ""
        for row, words in enumerate(_rows(step)):
            yield _text(centre, (below + 14 if step.is_map else middle + 24) + 12 * row, words, "then")


def _centres(steps: Sequence[_Step]) -> list[float]:
    """The middle of each column, in pixels from the left."""
    ends = accumulate(step.width for step in steps)
    return [end - step.width / 2 for end, step in zip(ends, steps, strict=True)]


def _half_width(step: _Step, largest: int) -> float:
    if step.is_map:
        return _box(step.shape, largest)[0] / 2
    return RADIUS if step.kind == "join" else 3


def _arc(shortcut: _Shortcut, steps: Sequence[_Step], above: int) -> str:
    """A line above the boxes to a join, with the shortcut's layers in words."""
    centres, top = _centres(steps), ARC * shortcut.depth + 14
    start, end = centres[shortcut.start] + APART, centres[shortcut.end] - APART
    of_join = above + TOP + TALLEST / 2 - RADIUS - 2
    foot = above + TOP - 40 if steps[shortcut.start].is_map else of_join
    words = _text((start + end) / 2, top - 3, shortcut.words, "then")
    return f'<path class="flow" fill="none" d="M{start:.1f} {foot}V{top}H{end:.1f}V{of_join}"/>{words}'


def _follow(items: Items, steps: list[_Step], shortcuts: list[_Shortcut], *, depth: int) -> None:
    """Append the steps of a path to `steps`, and the shortcuts beside them to `shortcuts`."""
    for item in steps_of(items):
        if isinstance(item, Layer):
            _add_layer(item, steps)
            continue
        start = len(steps) - 1
        first = item.main[0]
        if isinstance(first, Layer) and _is_in_place(first):
            steps.append(_Step("", item.input_shape, "point"))
        _follow(item.main, steps, shortcuts, depth=depth + 1)
        steps.append(_Step(SIGNS[item.join], item.output_shape, "join"))
        words = ", ".join(map(_name, layers_of(item.shortcut))) or "identity"
        shortcuts.append(_Shortcut(start, len(steps) - 1, words, depth))


def _add_layer(layer: Layer, steps: list[_Step]) -> None:
    if _is_in_place(layer):
        steps[-1] = replace(steps[-1], then=(*steps[-1].then, _name(layer)))
    else:
        kind = "convolution" if layer.kind == "Conv2d" else "linear" if layer.kind == "Linear" else "pooling"
        steps.append(_Step(_name(layer), layer.output_shape, kind))


def _is_in_place(layer: Layer) -> bool:
    return layer.output_shape == layer.input_shape and layer.kind not in ("Conv2d", "Linear")


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


def _rows(step: _Step) -> list[str]:
    """Format the layers that work in place, in at most three short lines."""
    rows: list[str] = []
    for words in step.then:
        if rows and step.is_map and len(rows[-1]) + len(words) < 17:
            rows[-1] += f", {words}"
        else:
            rows.append(words)
    return rows[:3]


def _text(x: float, y: float, words: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(words)}</text>'
