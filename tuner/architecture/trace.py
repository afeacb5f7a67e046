"""From an architecture to its parts: resolve what does not fit, then fold the shape arithmetic over the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tuner.architecture import layer_kinds
from tuner.architecture.blocks import Block
from tuner.architecture.blocks.fields import activated, dropped_out
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.parts import Part
from tuner.architecture.shapes import Shape
from tuner.architecture.spec import Architecture, Head


def resolve(architecture: Architecture) -> Architecture:
    """Return the architecture with every block made to fit its feature map, by the rule of the block's family.

    This function is idempotent. Two architectures that build the same network resolve to equal values.
    """
    shape = architecture.input_shape
    blocks: list[Block] = []
    for block in architecture.blocks:
        blocks.append(block.resolve(shape))
        shape = _part(1, blocks[-1], shape).output_shape
    head = architecture.head
    if shape[1:] == (1, 1):
        head = replace(head, pooling="flatten")
    if head.hidden_features == 0:
        head = replace(head, activation="relu")
    return replace(architecture, blocks=tuple(blocks), head=head)


def trace(architecture: Architecture) -> tuple[Part, ...]:
    """The parts of a resolved architecture with all shapes: `block 1`, ..., `head`, which ends in the logits."""
    parts: list[Part] = []
    shape = architecture.input_shape
    for number, block in enumerate(architecture.blocks, start=1):
        parts.append(_part(number, block, shape))
        shape = parts[-1].output_shape
    head = head_layers(architecture.head, shape, architecture.num_classes)
    return (*parts, Part("head", tuple(head)))


def _part(number: int, block: Block, shape: Shape) -> Part:
    return Part(f"block {number}", tuple(block.path(shape)))


def head_layers(head: Head, shape: Shape, num_classes: int) -> Iterator[Layer]:
    """The layers of a head, from a feature map of this shape to logits."""
    if head.pooling == "average":
        yield (layer := layer_kinds.global_average(shape))
        shape = layer.output_shape
    yield (layer := layer_kinds.flatten(shape))
    if head.hidden_features:
        yield (layer := layer_kinds.linear(layer.output_shape, out_features=head.hidden_features))
        yield activated(layer.output_shape, head.activation)
    yield from dropped_out(layer.output_shape, head.dropout)
    yield layer_kinds.linear(layer.output_shape, out_features=num_classes)
