"""Spaces of networks in stages: a stem, then stages of blocks of one family each, whose widths grow by a rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field

from tuner.architecture.blocks import ActivationBlock, Block, InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.blocks.fields import Activation, Count, DropoutRate, Normalization, OddWindow, Pooling, Window
from tuner.architecture.blocks.inverted_residual import Expansion, Reduction
from tuner.architecture.blocks.residual import Order, Shortcut
from tuner.architecture.spec import FeatureCount
from tuner.errors import SpaceError
from tuner.space.parameters import Parameter, Strict, Unshared, fixed

if TYPE_CHECKING:
    from tuner.space.schema import Configuration, SearchSpace

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
    stem. stride: of a stage's first block. pooling: 2x2 windows after a stage's last block, in plain and residual
    stages. last_channels: of a 1x1 convolution between the stages and the head, with normalization and activation of
    the stem; 0 is none.
    """

    num_stages: Parameter[NumStages] = fixed(3)
    family: Parameter[Family] = fixed("residual")
    num_blocks: Parameter[NumStageBlocks] = fixed(1)
    growth: Parameter[Growth] = fixed(2.0)
    stride: Parameter[Window] = fixed(2)
    pooling: Parameter[Pooling] = fixed("none")
    last_channels: Parameter[FeatureCount] = fixed(0)


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
BLOCKS: Mapping[Family, Callable[..., Block]] = {
    "plain": PlainBlock,
    "residual": ResidualBlock,
    "inverted_residual": InvertedResidualBlock,
}


def section_of(space: SearchSpace, name: str) -> Strict:
    """A section of SECTIONS, as the space has it or by default."""
    section: Strict | None = getattr(space, name)
    return SECTIONS[name]() if section is None else section


def check_sections(space: SearchSpace) -> None:
    """Raise ValueError for sections that are missing, that exclude each other, or that nothing would be drawn from."""
    if (space.block is None) == (space.stage is None):
        raise ValueError("a space needs either [block], for plain networks, or [stage], for networks in stages")
    families: list[Family] = [] if space.stage is None else space.stage.family.values
    used = ["stem", *families] if space.stage is not None else []
    for name in SECTIONS:
        if getattr(space, name) is not None and name not in used:
            raise ValueError(f"[{name}] has no effect, since no stage is of this family; remove it")
    for name in ONE_DRAW:
        if space.stage is not None and getattr(space.stage, name).shared:
            raise ValueError(f"stage.{name}: there is one draw anyway; remove shared")
    for configuration in space.first:
        if (configuration.stage is None) != (space.stage is None):
            raise ValueError(f"first: a configuration of this space needs {'stage' if space.stage else 'block'}")


def width_after(width: int, growth: float) -> int:
    """The width of the next stage: the multiple of 8 that is nearest to width times growth, and at least 8."""
    return min(MOST_CHANNELS, max(MULTIPLE, int(width * growth / MULTIPLE + 0.5) * MULTIPLE))


def stage_parameters(space: SearchSpace) -> Iterator[tuple[str, Parameter[Any]]]:
    """Every parameter of the stem and the stages by its name in the study.

    Those of families that no stage may be of are omitted.
    """
    assert space.stage is not None
    for name, parameter in section_of(space, "stem"):
        yield f"stem_{name}", parameter
    for name in ONE_DRAW:
        yield name, getattr(space.stage, name)
    for prefix, name, parameter in _drawn_for_stages(space):
        yield from ((key, parameter) for key in _keys(space, prefix, name, parameter))


def stage_blocks(values: Mapping[str, Any], space: SearchSpace) -> tuple[Block, ...]:
    """The blocks of a network from the value of every parameter.

    Behind the last of pre-activation blocks in a row stand a normalization and an activation of their own.
    """
    stem = PlainBlock(**{name: values[f"stem_{name}"] for name in StemSpace.model_fields})
    blocks: list[Block] = [stem]
    width = stem.out_channels
    for number in range(1, values["num_stages"] + 1):
        stage = {name: _value(values, "stage", name, number) for name in _stage_names()}
        width = width_after(width, stage["growth"])
        family: Family = stage["family"]
        fields = {name: _value(values, family, name, number) for name in SECTIONS[family].model_fields}
        for position in range(stage["num_blocks"]):
            stride = stage["stride"] if position == 0 else 1
            is_pooled = position == stage["num_blocks"] - 1 and family != "inverted_residual"
            pooling = {"pooling": stage["pooling"]} if is_pooled else {}
            blocks.append(BLOCKS[family](out_channels=width, stride=stride, **pooling, **fields))
    if values["last_channels"]:
        last = PlainBlock(values["last_channels"], 1, normalization=stem.normalization, activation=stem.activation)
        blocks.append(last)
    return tuple(_closed(blocks))


def stages_given(configuration: Configuration, space: SearchSpace, origin: str) -> dict[str, Any]:
    """The flat parameters of a configuration's stem and stages; stages beyond its depth repeat its last one.

    A stage has the keys of [stage] and of its family. Raises SpaceError, with `origin`, for any other key.
    """
    assert space.stage is not None
    assert configuration.stage is not None
    stages, stem = configuration.stage, configuration.stem or {}
    for key in stem:
        if key not in StemSpace.model_fields:
            raise SpaceError(f"{origin}: stem.{key}: not a parameter of this space; remove it or fix its spelling")
    given: dict[str, Any] = {f"stem_{name}": value for name, value in stem.items()}
    given |= {"num_stages": len(stages), "last_channels": configuration.last_channels}
    if configuration.last_channels is None:
        del given["last_channels"]
    for number in range(1, max(space.max_stages, len(stages)) + 1):
        stage = stages[min(number, len(stages)) - 1]
        family = stage.get("family", space.stage.family.default)
        own = SECTIONS[family].model_fields if family in FAMILIES else {}
        for name, value in stage.items():
            if name not in own and name not in _stage_names():
                raise SpaceError(f"{origin}: stage.{name}: not a parameter of a {family} stage; remove it")
            section, prefix = (section_of(space, family), family) if name in own else (space.stage, "stage")
            key = f"{prefix}_{name}" if getattr(section, name).shared else f"stage{number}_{_suffix(prefix)}{name}"
            if given.setdefault(key, value) != value:
                both = f"{given[key]!r} and {value!r}"
                raise SpaceError(f"{origin}: stage.{name}: is shared, so one for all stages, got {both}")
    return given


def _drawn_for_stages(space: SearchSpace) -> Iterator[tuple[str, str, Parameter[Any]]]:
    """(prefix, name, parameter) of what is drawn for each stage, or once for all."""
    assert space.stage is not None
    for name, parameter in space.stage:
        if name not in ONE_DRAW:
            yield "stage", name, parameter
    for family in FAMILIES:
        if family in space.stage.family.values:
            yield from ((family, name, parameter) for name, parameter in section_of(space, family))


def _keys(space: SearchSpace, prefix: str, name: str, parameter: Parameter[Any]) -> Sequence[str]:
    if parameter.shared:
        return [f"{prefix}_{name}"]
    return [f"stage{number}_{_suffix(prefix)}{name}" for number in range(1, space.max_stages + 1)]


def _value(values: Mapping[str, Any], prefix: str, name: str, number: int) -> Any:
    own = f"stage{number}_{_suffix(prefix)}{name}"
    return values[own] if own in values else values[f"{prefix}_{name}"]


def _suffix(prefix: str) -> str:
    """`stage2_growth`, but `stage2_residual_order`."""
    return "" if prefix == "stage" else f"{prefix}_"


def _stage_names() -> list[str]:
    return [name for name in StageSpace.model_fields if name not in ONE_DRAW]


def _closed(blocks: Sequence[Block]) -> Iterator[Block]:
    for block, following in pairwise([*blocks, None]):
        assert block is not None
        yield block
        if _is_pre(block) and not _is_pre(following):
            assert isinstance(block, ResidualBlock)
            yield ActivationBlock(block.normalization, block.activation)


def _is_pre(block: Block | None) -> bool:
    return isinstance(block, ResidualBlock) and block.order == "pre"
