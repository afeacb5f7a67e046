"""From parameters to the blocks of a network in stages, and from a configuration to such parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tuner.architecture.blocks import ActivationBlock, Block, PlainBlock, ResidualBlock
from tuner.errors import SpaceError
from tuner.space.schema import Configuration, SearchSpace
from tuner.space.stages import (
    BLOCKS,
    MOST_CHANNELS,
    MULTIPLE,
    SECTIONS,
    Family,
    StemSpace,
    drawn_names,
    has_pooling,
    key_of,
    of_first_stage,
)


def width_after(width: int, growth: float) -> int:
    """The width of the next stage: the multiple of 8 that is nearest to width times growth, and at least 8."""
    return min(MOST_CHANNELS, max(MULTIPLE, int(width * growth / MULTIPLE + 0.5) * MULTIPLE))


def stage_blocks(values: Mapping[str, Any], space: SearchSpace) -> tuple[Block, ...]:
    """The blocks of a network from the value of every parameter.

    One more normalization and activation follow the last pre-activation block in a row.
    """
    stem = PlainBlock(**{name: values[f"stem_{name}"] for name in StemSpace.model_fields})
    blocks: list[Block] = [stem]
    width = stem.out_channels
    for number in range(1, values["num_stages"] + 1):
        stage = {name: _value(values, "stage", name, number) for name in drawn_names()}
        width = width_after(width, stage["growth"])
        family: Family = stage["family"]
        fields = {name: _value(values, family, name, number) for name in SECTIONS[family].model_fields}
        for position in range(stage["num_blocks"]):
            stride = stage["stride"] if position == 0 else 1
            is_pooled = position == stage["num_blocks"] - 1 and has_pooling(family)
            pooling = {"pooling": stage["pooling"]} if is_pooled else {}
            blocks.append(BLOCKS[family](out_channels=width, stride=stride, **pooling, **fields))
    if values["last_channels"]:
        last = PlainBlock(values["last_channels"], 1, normalization=stem.normalization, activation=stem.activation)
        blocks.append(last)
    return tuple(_closed(blocks))


def stages_given(configuration: Configuration, space: SearchSpace, origin: str) -> dict[str, Any]:
    """The flat parameters of a configuration's stem and stages; stages beyond its depth repeat its last one.

    A stage has the keys of [stage] and of its family. Raises SpaceError, with `origin`, for any other key, for a
    pooling that has no effect, and for a family that the space does not have.
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
    for number in range(1, max(space.stage.max_stages, len(stages)) + 1):
        stage = stages[min(number, len(stages)) - 1]
        family = stage.get("family", space.stage.family.default)
        if family not in space.stage.family.values:
            key = key_of("stage", "family", None if space.stage.family.shared else number)
            raise SpaceError(f"{origin}: {key}: must lie within the space's {space.stage.family}, got {family!r}")
        own = SECTIONS[family].model_fields
        for name, value in stage.items():
            if (name not in own and name not in drawn_names()) or (name == "pooling" and not has_pooling(family)):
                raise SpaceError(f"{origin}: stage.{name}: not a parameter of {family} stages; remove it")
            prefix = family if name in own else "stage"
            section = space.stage_sections[family] if name in own else space.stage
            is_own = number == 1 and prefix == "stage" and of_first_stage(space.stage, name) is not None
            is_shared = getattr(section, name).shared and not is_own
            key = key_of(prefix, name, None if is_shared else number)
            if given.setdefault(key, value) != value:
                both = f"{given[key]!r} and {value!r}"
                raise SpaceError(f"{origin}: stage.{name}: is shared, so one for all stages, got {both}")
    return given


def _value(values: Mapping[str, Any], section: str, name: str, number: int) -> Any:
    own = key_of(section, name, number)
    return values[own] if own in values else values[key_of(section, name, None)]


def _closed(blocks: Sequence[Block]) -> Iterator[Block]:
    for block, following in pairwise([*blocks, None]):
        assert block is not None
        yield block
        if _is_pre(block) and not _is_pre(following):
            assert isinstance(block, ResidualBlock)
            yield ActivationBlock(block.normalization, block.activation)


def _is_pre(block: Block | None) -> bool:
    return isinstance(block, ResidualBlock) and block.order == "pre"
