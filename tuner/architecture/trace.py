"""Trace an architecture to its layers: resolve windows that do not fit, then compute the shapes block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tuner.architecture import shapes
from tuner.architecture.blocks import Block
from tuner.architecture.blocks.plain import ACTIVATION_LAYERS
from tuner.architecture.shapes import Layer, Shape
from tuner.architecture.spec import Architecture, Head


def resolve(architecture: Architecture) -> Architecture:
    """Return the architecture with every block reduced to its feature map, by the rule of the block's family.

    This function is idempotent. Two architectures that build the same network resolve to equal values.
    """
    shape = architecture.input_shape
    blocks: list[Block] = []
    for block in architecture.blocks:
        blocks.append(block.resolve(shape))
        shape = _shape_after(blocks[-1], shape)
    head = architecture.head
    if shape[1:] == (1, 1):
        head = replace(head, pooling="flatten")
    if head.hidden_features == 0:
        head = replace(head, activation="relu")
    return replace(architecture, blocks=tuple(blocks), head=head)


def trace(architecture: Architecture) -> tuple[Layer, ...]:
    """Every layer of a resolved architecture in order, with its shapes; the last gives (num_classes,)."""
    layers: list[Layer] = []
    shape = architecture.input_shape
    for number, block in enumerate(architecture.blocks, start=1):
        layers += [replace(layer, part=f"block {number}") for layer in block.layers(shape)]
        shape = layers[-1].output_shape
    layers += [
        replace(layer, part="head") for layer in _head_layers(architecture.head, shape, architecture.num_classes)
    ]
    return tuple(layers)


def _head_layers(head: Head, shape: Shape, num_classes: int) -> Iterator[Layer]:
    if head.pooling == "average":
        yield (layer := shapes.global_average(shape))
        shape = layer.output_shape
    yield (layer := shapes.flatten(shape))
    if head.hidden_features:
        yield (layer := shapes.linear(layer.output_shape, out_features=head.hidden_features))
        yield (layer := shapes.same_shape(layer.output_shape, ACTIVATION_LAYERS[head.activation]))
    if head.dropout > 0:
        yield (layer := shapes.same_shape(layer.output_shape, "Dropout", p=head.dropout))
    yield shapes.linear(layer.output_shape, out_features=num_classes)


def _shape_after(block: Block, shape: Shape) -> Shape:
    for layer in block.layers(shape):
        shape = layer.output_shape
    return shape
