"""The networks that stand for each family of blocks when an engine is checked and timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tuner.architecture.blocks import ActivationBlock, Block, InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.shapes import Shape
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve

CHECKED_INPUT = InputSpec(2, 11, 14, num_classes=5)
"""Odd, non-square sides."""
TIMED_CLASSES = 10
SELDOM = 1e-12
"""A dropout rate that drops nothing here. Blocks with a rate below 1/256 are not fused but run layer by layer."""

Layout = tuple[tuple[Block, ...], Head]
"""A network without its input."""


@dataclass(frozen=True)
class FamilyNetworks:
    """The networks of a family: `checked` have everything that its blocks may have, `timed` has what is usual.

    A step of the timed network should take no longer than that of the plain one, so that measuring a machine stays
    short.
    """

    checked: tuple[Layout, ...]
    timed: Layout


_GROUP_STEM = PlainBlock(8, normalization="group", activation="relu6", pooling="average")

FAMILY_NETWORKS: Mapping[str, FamilyNetworks] = {
    # Pooling windows overlap, touch and leave gaps, and one block cannot be fused. No max pooling follows another:
    # where bf16 rounds neighbouring values to the same number, different ones may become the maximum, and two poolings
    # would add up these differences.
    "plain": FamilyNetworks(
        checked=(
            (
                (
                    PlainBlock(8, activation="relu", normalization="batch", pooling="max", pool_size=3),
                    PlainBlock(12, activation="elu", pooling="average", pool_size=3),
                ),
                Head(),
            ),
            (
                (
                    PlainBlock(8, activation="gelu", pooling="max", pool_size=3),
                    PlainBlock(40, activation="silu", normalization="batch", pooling="average", pool_stride=3),
                ),
                Head(hidden_features=16, activation="tanh"),
            ),
            (
                (
                    PlainBlock(8, activation="tanh", padding="valid"),
                    PlainBlock(16, activation="leaky_relu", normalization="batch", pooling="average"),
                ),
                Head("average"),
            ),
            (
                (
                    PlainBlock(8, activation="sigmoid", pooling="max", kernel_size=5),
                    PlainBlock(8, activation="gelu", normalization="batch", stride=2),
                ),
                Head(),
            ),
            (
                (
                    PlainBlock(
                        8, activation="relu", normalization="batch", pooling="average", pool_stride=3, dropout=SELDOM
                    ),
                ),
                Head(),
            ),
        ),
        timed=(
            (
                PlainBlock(32, normalization="batch", activation="elu", pooling="max", dropout=0.2),
                PlainBlock(32, activation="gelu", pooling="average", dropout=0.2),
            ),
            Head(),
        ),
    ),
    # After a normalization without an activation, there is none before the next one: it would remove a bias again, and
    # the gradient of that bias would consist of rounding alone.
    "residual": FamilyNetworks(
        checked=(
            (
                (
                    _GROUP_STEM,
                    ResidualBlock(8, activation="tanh"),
                    ResidualBlock(12, stride=2, normalization="group", activation="silu"),
                ),
                Head("average"),
            ),
            (
                (
                    PlainBlock(8, activation="relu6", pooling="average"),
                    ResidualBlock(8, activation="silu", order="pre", shortcut="projection"),
                    ActivationBlock(activation="elu"),
                ),
                Head("average"),
            ),
        ),
        timed=(
            (
                PlainBlock(16, stride=2, normalization="batch"),
                ResidualBlock(16, activation="elu", pooling="max", dropout=0.2),
                ResidualBlock(32, stride=2, activation="silu", dropout=0.2),
            ),
            Head("average"),
        ),
    ),
    "inverted_residual": FamilyNetworks(
        checked=(
            (
                (
                    PlainBlock(8, normalization="batch", activation="relu6", pooling="average"),
                    InvertedResidualBlock(8, expansion=2, squeeze=4, activation="silu"),
                    InvertedResidualBlock(
                        8, expansion=2, kernel_size=5, stride=2, normalization="none", activation="silu"
                    ),
                ),
                Head(),
            ),
        ),
        timed=(
            (
                PlainBlock(8, stride=2, normalization="batch", activation="relu6"),
                InvertedResidualBlock(8, expansion=4, squeeze=4),
                InvertedResidualBlock(16, expansion=4, kernel_size=5, stride=2, activation="silu"),
            ),
            Head("average"),
        ),
    ),
}
"""By family, in the order in which the networks are checked and timed."""


def checked_architectures() -> tuple[Architecture, ...]:
    """The networks that are checked: together, they have everything that blocks of any family may have."""
    layouts = [layout for networks in FAMILY_NETWORKS.values() for layout in networks.checked]
    return tuple(resolve(Architecture(CHECKED_INPUT, *layout)) for layout in layouts)


def timed_architectures(shape: Shape) -> dict[str, Architecture]:
    """The network of each family that is timed, for images of `shape` (C, H, W)."""
    channels, height, width = shape
    input_spec = InputSpec(channels, height, width, TIMED_CLASSES)
    return {name: resolve(Architecture(input_spec, *networks.timed)) for name, networks in FAMILY_NETWORKS.items()}
