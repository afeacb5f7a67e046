"""Spaces of networks in stages: a stem, then stages of blocks of one family each, whose widths grow by a rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from tuner.architecture.blocks import InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.blocks.fields import Activation, Count, DropoutRate, Normalization, OddWindow, Pooling, Window
from tuner.architecture.blocks.inverted_residual import Expansion, Reduction
from tuner.architecture.blocks.residual import Order, Shortcut
from tuner.architecture.spec import FeatureCount
from tuner.space.parameter import Parameter, Strict, Unshared, fixed

Family = Literal["plain", "residual", "inverted_residual"]
FAMILIES: tuple[Family, ...] = get_args(Family)
NumStages = Annotated[int, Field(ge=1, le=16, strict=True)]
NumStageBlocks = Annotated[int, Field(ge=1, le=64, strict=True)]
Growth = Annotated[float, Field(gt=0.0, le=8.0, strict=True)]
MULTIPLE, MOST_CHANNELS = 8, 65_536
"""The width of a stage is a multiple of the first, and at most the second."""


class StemSpace(Unshared):
    """[stem]: a plain block in front of the stages."""

    out_channels: Parameter[Count] = fixed(16)
    kernel_size: Parameter[OddWindow] = fixed(3)
    stride: Parameter[Window] = fixed(1)
    normalization: Parameter[Normalization] = fixed("batch")
    activation: Parameter[Activation] = fixed("relu")
    pooling: Parameter[Pooling] = fixed("none")
    pool_size: Parameter[Window] = fixed(2)
    pool_stride: Parameter[Window] = fixed(2)


class StageSpace(Strict):
    """[stage]: each key but num_stages and last_channels is drawn for every stage, or once where `shared`.

    growth: the width of a stage as a multiple of the one before it, rounded by `width_after`; the first grows from the
    stem. stride: of a stage's first block. pooling: 2x2 windows after a stage's last block, in stages of a family that
    `has_pooling`. last_channels: of a 1x1 convolution between the stages and the head, with normalization and
    activation of the stem; 0 is none.
    """

    num_stages: Parameter[NumStages] = fixed(3)
    family: Parameter[Family] = fixed("residual")
    num_blocks: Parameter[NumStageBlocks] = fixed(1)
    growth: Parameter[Growth] = fixed(2.0)
    stride: Parameter[Window] = fixed(2)
    pooling: Parameter[Pooling] = fixed("none")
    last_channels: Parameter[FeatureCount] = fixed(0)

    @property
    def max_stages(self) -> int:
        """The stages of the network with the most of them."""
        return int(max(self.num_stages.values))


class PlainSpace(Strict):
    """[plain]: the blocks of plain stages."""

    kernel_size: Parameter[OddWindow] = fixed(3)
    normalization: Parameter[Normalization] = fixed("batch")
    activation: Parameter[Activation] = fixed("relu")
    dropout: Parameter[DropoutRate] = fixed(0.0)


class ResidualSpace(Strict):
    """[residual]: the blocks of residual stages."""

    kernel_size: Parameter[OddWindow] = fixed(3)
    normalization: Parameter[Normalization] = fixed("batch")
    activation: Parameter[Activation] = fixed("relu")
    order: Parameter[Order] = fixed("post")
    shortcut: Parameter[Shortcut] = fixed("identity")
    dropout: Parameter[DropoutRate] = fixed(0.0)


class InvertedResidualSpace(Strict):
    """[inverted_residual]: the blocks of inverted residual stages."""

    expansion: Parameter[Expansion] = fixed(6)
    kernel_size: Parameter[OddWindow] = fixed(3)
    normalization: Parameter[Normalization] = fixed("batch")
    activation: Parameter[Activation] = fixed("relu6")
    squeeze: Parameter[Reduction] = fixed(0)


SECTIONS: Mapping[str, type[Strict]] = {
    "stem": StemSpace,
    "plain": PlainSpace,
    "residual": ResidualSpace,
    "inverted_residual": InvertedResidualSpace,
}
"""The sections beside [stage]. A space that omits one has every default of it."""
ONE_DRAW = ("num_stages", "last_channels")
BLOCKS: Mapping[Family, type[Any]] = {
    "plain": PlainBlock,
    "residual": ResidualBlock,
    "inverted_residual": InvertedResidualBlock,
}


def has_pooling(family: Family) -> bool:
    """Whether the pooling of a stage has an effect on blocks of a family."""
    return any(field.name == "pooling" for field in fields(BLOCKS[family]))


def stage_parameters(stage: StageSpace, sections: Mapping[str, Strict]) -> Iterator[tuple[str, Parameter[Any]]]:
    """Every parameter of the stem and the stages by its name in the study.

    sections: `stem`, and the section of each family that a stage may be of.
    """
    for name, parameter in sections["stem"]:
        yield f"stem_{name}", parameter
    for name in ONE_DRAW:
        yield name, getattr(stage, name)
    for name, parameter in stage:
        if name not in ONE_DRAW:
            yield from _for_each_stage(stage, "stage", name, parameter)
    for family in FAMILIES:
        if family in stage.family.values:
            for name, parameter in sections[family]:
                yield from _for_each_stage(stage, family, name, parameter)


def key_of(section: str, name: str, number: int | None) -> str:
    """The name in the study of a parameter of a stage by its number, such as `stage2_growth`, `stage2_residual_order`.

    number: None for a parameter that is shared by all stages, such as `residual_order`.
    """
    if number is None:
        return f"{section}_{name}"
    return f"stage{number}_{name}" if section == "stage" else f"stage{number}_{section}_{name}"


def drawn_names() -> list[str]:
    """The keys of [stage] that are drawn for every stage, or once where `shared`."""
    return [name for name in StageSpace.model_fields if name not in ONE_DRAW]


def _for_each_stage(
    stage: StageSpace, section: str, name: str, parameter: Parameter[Any]
) -> Iterator[tuple[str, Parameter[Any]]]:
    numbers = [None] if parameter.shared else range(1, stage.max_stages + 1)
    for number in numbers:
        yield key_of(section, name, number), parameter
