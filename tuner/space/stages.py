"""Spaces of networks in stages: a stem, then stages. Each stage has one width and blocks of one family."""

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
    """[stage]: each key except num_stages and last_channels is drawn for every stage, or once if it is `shared`.

    growth: the width of a stage as a multiple of the previous width, rounded by `width_after`; the stem's width comes
    before that of the first stage. stride: of a stage's first block. pooling: 2x2 windows after a stage's last block,
    in stages of a family that `has_pooling`. last_channels: of a 1x1 convolution between the stages and the head, with
    the stem's normalization and activation; 0 for none. first_growth, first_stride: growth and stride of the first
    stage, if they differ from those of the others. On small images, the first stage usually keeps the stem's size.
    """

    num_stages: Parameter[NumStages] = fixed(3)
    family: Parameter[Family] = fixed("residual")
    num_blocks: Parameter[NumStageBlocks] = fixed(1)
    growth: Parameter[Growth] = fixed(2.0)
    stride: Parameter[Window] = fixed(2)
    pooling: Parameter[Pooling] = fixed("none")
    last_channels: Parameter[FeatureCount] = fixed(0)
    first_growth: Parameter[Growth] | None = None
    first_stride: Parameter[Window] | None = None

    @property
    def max_stages(self) -> int:
        """Most stages that a network of the space can have."""
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
"""The sections beside [stage]. A space that omits one has all of its defaults."""
ONE_DRAW = ("num_stages", "last_channels")
OF_FIRST = {"growth": "first_growth", "stride": "first_stride"}
"""The keys of [stage] that the first stage may have its own ranges for."""
BLOCKS: Mapping[Family, type[Any]] = {
    "plain": PlainBlock,
    "residual": ResidualBlock,
    "inverted_residual": InvertedResidualBlock,
}


def has_pooling(family: Family) -> bool:
    """Whether the pooling of a stage has an effect on blocks of a family."""
    return any(field.name == "pooling" for field in fields(BLOCKS[family]))


def stage_parameters(stage: StageSpace, sections: Mapping[str, Strict]) -> Iterator[tuple[str, Parameter[Any]]]:
    """Every parameter of the stem and the stages, with its name in the study.

    sections: the space's sections by name, `stem` and each family that a stage may have.
    """
    for name, parameter in sections["stem"]:
        yield f"stem_{name}", parameter
    for name in ONE_DRAW:
        yield name, getattr(stage, name)
    for name in drawn_names():
        own = of_first_stage(stage, name)
        if own is not None:
            yield key_of("stage", name, 1), own
        yield from _for_each_stage(stage, "stage", name, getattr(stage, name), start=1 if own is None else 2)
    for family in FAMILIES:
        if family in stage.family.values:
            for name, parameter in sections[family]:
                yield from _for_each_stage(stage, family, name, parameter)


def key_of(section: str, name: str, number: int | None) -> str:
    """Name of a stage's parameter in the study, such as `stage2_growth` or `stage2_residual_order`.

    number: the stage's number, or None for a parameter that all stages share, such as `residual_order`.
    """
    if number is None:
        return f"{section}_{name}"
    return f"stage{number}_{name}" if section == "stage" else f"stage{number}_{section}_{name}"


def drawn_names() -> list[str]:
    """The keys of [stage] that are drawn for every stage, or once if they are `shared`."""
    return [name for name in StageSpace.model_fields if name not in (*ONE_DRAW, *OF_FIRST.values())]


def of_first_stage(stage: StageSpace, name: str) -> Parameter[Any] | None:
    """The parameter of a key of [stage] that only the first stage has; None if it has that of the others."""
    parameter: Parameter[Any] | None = getattr(stage, OF_FIRST[name]) if name in OF_FIRST else None
    return parameter


def _for_each_stage(
    stage: StageSpace, section: str, name: str, parameter: Parameter[Any], *, start: int = 1
) -> Iterator[tuple[str, Parameter[Any]]]:
    numbers = [None] if parameter.shared else range(start, stage.max_stages + 1)
    for number in numbers:
        yield key_of(section, name, number), parameter
