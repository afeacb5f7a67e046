"""Spaces of networks in stages: widths, families, names, configurations to try first, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.architecture.test_inverted_residual import mobilenet
from tests.architecture.test_residual import resnet
from tests.strategies import BUNDLED
from tuner.architecture.blocks import ActivationBlock, InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.cost import network_cost
from tuner.architecture.spec import InputSpec
from tuner.architecture.trace import trace
from tuner.errors import SpaceError
from tuner.space.baseline import baselines
from tuner.space.sampling import candidate_from, first_params, random_params
from tuner.space.schema import SearchSpace
from tuner.space.stage_blocks import width_after
from tuner.space.toml_file import parse_space

PHOTOGRAPHS = InputSpec(3, 32, 32, 10)
RECIPE = {"learning_rate": 1e-3}


def space_of(**sections: Any) -> SearchSpace:
    return parse_space({"name": "made", "recipe": RECIPE, "stage": {}, **sections}, origin="made")


def blocks_of(space: SearchSpace, params: Mapping[str, Any], *, side: int = 64) -> list[Any]:
    candidate = candidate_from(params, space, InputSpec(3, side, side, 10), epochs=1)
    return list(candidate.architecture.blocks)


def test_resnet_8_and_resnet_20_are_tried_first() -> None:
    space = BUNDLED["resnet"]
    found = [candidate_from(params, space, PHOTOGRAPHS, epochs=1).architecture for params in first_params(space)]
    assert found == [resnet(1), resnet(3)]
    assert [network_cost(trace(architecture)).num_parameters for architecture in found] == [77_850, 272_282]


def test_mobilenet_v2_is_a_configuration_of_its_space() -> None:
    space = BUNDLED["mobile"]
    *_, params = first_params(space)
    architecture = candidate_from(params, space, PHOTOGRAPHS, epochs=1).architecture
    assert architecture == mobilenet(32)
    assert network_cost(trace(architecture)).num_parameters == 408_938


@pytest.mark.parametrize(
    ("width", "growth", "expected"),
    [(16, 1.0, 16), (16, 0.5, 8), (8, 0.1, 8), (24, 1.25, 32), (20, 1.0, 24), (32, 1.75, 56), (65_536, 2.0, 65_536)],
)
def test_a_width_is_the_nearest_multiple_of_eight(width: int, growth: float, expected: int) -> None:
    assert width_after(width, growth) == expected


@given(st.integers(1, 65_536), st.floats(0.01, 8.0))
def test_a_width_is_never_too_small_nor_too_large(width: int, growth: float) -> None:
    assert 8 <= width_after(width, growth) <= 65_536
    assert width_after(width, growth) % 8 == 0


def test_each_stage_may_be_of_another_family() -> None:
    space = space_of(
        stem={"out_channels": 12},
        stage={"family": ["plain", "residual", "inverted_residual"], "pooling": "max", "num_blocks": 2, "growth": 1.5},
        inverted_residual={"squeeze": 4},
    )
    params = {f"stage{n}_family": f for n, f in enumerate(("plain", "inverted_residual", "residual"), start=1)}
    assert blocks_of(space, params) == [
        PlainBlock(12, normalization="batch"),
        PlainBlock(16, stride=2, normalization="batch"),
        PlainBlock(16, normalization="batch", pooling="max"),
        InvertedResidualBlock(24, stride=2, squeeze=4),
        InvertedResidualBlock(24, squeeze=4),
        ResidualBlock(40, stride=2, shortcut="projection"),
        ResidualBlock(40, pooling="max"),
    ]


def test_an_activation_follows_the_last_of_pre_activation_blocks() -> None:
    space = space_of(
        stage={"family": ["residual", "plain"], "num_stages": 3, "last_channels": 64},
        residual={"order": "pre", "normalization": "group", "activation": "elu"},
    )
    families = [("residual", "residual", "plain"), ("plain", "residual", "residual")]
    kinds = [
        [type(block) for block in blocks_of(space, {f"stage{n}_family": f for n, f in enumerate(one, start=1)})]
        for one in families
    ]
    stem_residual = [PlainBlock, ResidualBlock, ResidualBlock, ActivationBlock, PlainBlock, PlainBlock]
    assert kinds == [stem_residual, [PlainBlock, PlainBlock, ResidualBlock, ResidualBlock, ActivationBlock, PlainBlock]]
    closing = blocks_of(space, {f"stage{n}_family": "residual" for n in (1, 2, 3)})[4]
    assert closing == ActivationBlock("group", "elu")


def test_each_key_has_a_name_for_every_stage_or_one_where_it_is_shared() -> None:
    names = list(BUNDLED["resnet"].parameters)
    assert names[:4] == ["stem_out_channels", "stem_kernel_size", "stem_stride", "stem_normalization"]
    for name in ("num_stages", "last_channels", "stage1_growth", "stage4_residual_dropout", "residual_order"):
        assert name in names
    assert not any("inverted" in name or name.startswith("stage5") for name in names)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"block": {"out_channels": 4}}, "either [block], for plain networks, or [stage]"),
        ({"stage": None}, "either [block], for plain networks, or [stage]"),
        ({"inverted_residual": {}}, "[inverted_residual] has no effect"),
        ({"stage": {"family": "dense"}}, "stage.family.0: input should be 'plain', 'residual' or 'inverted_residual'"),
        ({"stage": {"num_stages": {"choices": [3], "shared": True}}}, "stage.num_stages: there is one draw anyway"),
        ({"residual": {"kernel_size": 4}}, "residual.kernel_size.0: must be odd"),
        ({"first": [{"block": [{}]}]}, "a configuration of this space needs stage"),
        ({"first": [{"stage": [{}], "block": [{}]}]}, "needs either block or stage"),
        ({"residual": {"expansion": 3}}, "residual.expansion: unknown key"),
        ({"network": {"num_blocks": 3}}, "[network] has no effect in a space with [stage]"),
        ({"stage": {"family": "inverted_residual", "pooling": ["none", "max"]}}, "stage.pooling has no effect"),
        (
            {"stage": None, "block": {"out_channels": 4}, "first": [{"block": [{}], "stem": {}}]},
            "stem has no effect in a configuration with block",
        ),
        (
            {"stage": None, "block": {"out_channels": 4}, "first": [{"block": [{}], "last_channels": 8}]},
            "last_channels has no effect in a configuration with block",
        ),
    ],
)
def test_a_wrong_space_is_refused_with_the_rule(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError) as raised:
        space_of(**sections)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("configuration", "words"),
    [
        ({"stage": [{"expansion": 3}]}, "stage.expansion: not a parameter of residual stages"),
        ({"stage": [{}], "stem": {"dropout": 0.1}}, "stem.dropout: not a parameter of this space"),
        ({"stage": [{"order": "pre"}, {"order": "post"}]}, "stage.order: is shared, so one for all stages"),
        ({"stage": [{"growth": 3.0}] * 3}, "stage1_growth: must lie within the space's 1.0 | 2.0, got 3.0"),
        ({"stage": [{}] * 4}, "num_stages: must lie within the space's 3, got 4"),
        ({"stage": [{}] * 3, "last_channels": 8}, "last_channels: must lie within the space's 0, got 8"),
        ({"stage": [{}, {"family": "plain", "kernel_size": 3}]}, "stage2_family: must lie within the space's "),
        ({"stage": [{"family": ["residual"]}]}, "stage1_family: must lie within the space's residual |"),
        (
            {"stage": [{"family": "inverted_residual", "pooling": "max"}]},
            "stage.pooling: not a parameter of inverted_residual stages",
        ),
        (
            {"stage": [{"family": "inverted_residual", "order": "pre"}]},
            "stage.order: not a parameter of inverted_residual stages",
        ),
    ],
)
def test_a_configuration_outside_the_space_is_refused(configuration: dict[str, Any], words: str) -> None:
    space = space_of(
        stage={"growth": [1.0, 2.0], "family": ["residual", "inverted_residual"], "pooling": ["none", "max"]},
        residual={"order": {"choices": ["post", "pre"], "shared": True}},
        first=[configuration],
    )
    with pytest.raises(SpaceError) as raised:
        first_params(space)
    assert words in str(raised.value)


def test_the_baseline_is_the_first_configuration_or_the_defaults_and_shrinks() -> None:
    first, half, *_, last = baselines(BUNDLED["resnet"], PHOTOGRAPHS, epochs=5)
    assert first.candidate.architecture == resnet(1)
    assert first.params == first_params(BUNDLED["resnet"])[0]
    assert half.changes[0] == "batch_size 32 instead of 64"
    assert network_cost(trace(last.candidate.architecture)).num_parameters < 200
    default, *_ = baselines(space_of(), PHOTOGRAPHS, epochs=5)
    assert [type(block) for block in default.candidate.architecture.blocks] == [PlainBlock, *[ResidualBlock] * 3]
    assert default.origin == "family"


@pytest.mark.parametrize("name", ["resnet", "mobile"])
def test_samples_have_stems_and_stages_within_the_space(name: str) -> None:
    space = BUNDLED[name]
    families = {"resnet": (ResidualBlock, ActivationBlock), "mobile": (InvertedResidualBlock,)}[name]
    generator = Random(0)
    for _ in range(200):
        params = random_params(space, generator)
        stem, *blocks = blocks_of(space, params)
        assert type(stem) is PlainBlock
        if params.get("last_channels"):
            assert blocks.pop() == PlainBlock(
                params["last_channels"], 1, normalization="batch", activation=stem.activation
            )
        assert {type(block) for block in blocks} <= set(families)
        num_blocks = sum(params[f"stage{number}_num_blocks"] for number in range(1, params["num_stages"] + 1))
        assert sum(type(block) is families[0] for block in blocks) == num_blocks
