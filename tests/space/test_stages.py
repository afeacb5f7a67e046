"""Spaces of networks in stages: widths, families, names, configurations to try first, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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
from tuner.space.toml_file import load_space, parse_space

PHOTOGRAPHS = InputSpec(3, 32, 32, 10)
RECIPE = {"learning_rate": 1e-3}
SHARED = {"choices": [1], "shared": True}


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
    for name in ("num_stages", "last_channels", "stage1_growth", "stage3_residual_dropout", "residual_order"):
        assert name in names
    assert not any("inverted" in name or name.startswith("stage5") for name in names)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"block": {"out_channels": 4}}, "either [block], for plain networks, or [stage]"),
        ({"stage": None}, "either [block], for plain networks, or [stage]"),
        (
            {"inverted_residual": {}},
            "[inverted_residual] has no effect, since no stage is of the inverted_residual family",
        ),
        ({"stage": {"family": "dense"}}, "stage.family.0: input should be 'plain', 'residual' or 'inverted_residual'"),
        ({"stage": {"num_stages": SHARED}}, "stage.num_stages: shared has no effect, since a trial has one value"),
        ({"residual": {"kernel_size": 4}}, "residual.kernel_size.0: must be odd"),
        ({"first": [{"block": [{}]}]}, "a configuration of this space needs stage"),
        ({"first": [{"stage": [{}], "block": [{}]}]}, "needs either block or stage"),
        ({"residual": {"expansion": 3}}, "residual.expansion: unknown key"),
        ({"stage": {"out_channels": 32}}, "stage: out_channels: the width of a stage follows from growth; set growth"),
        (
            {"stage": None, "block": {"out_channels": 4}, "stem": {}},
            "[stem] has no effect, since the space has no [stage]",
        ),
        (
            {"stage": None, "block": {"out_channels": 4}, "residual": {}},
            "[residual] has no effect, since the space has",
        ),
        ({"stem": {"stride": SHARED}}, "stem: stride: shared has no effect, since a trial has one value of this key"),
        ({"head": {"dropout": {**SHARED, "choices": [0.1]}}}, "head: dropout: shared has no effect, since a trial has"),
        ({"stage": {"first_growth": {**SHARED, "choices": [1.0]}}}, "stage.first_growth: shared has no effect"),
        ({"stage": {"first_stride": SHARED}}, "stage.first_stride: shared has no effect"),
        ({"stage": {"last_channels": SHARED}}, "stage.last_channels: shared has no effect"),
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
        (
            {"stage": [{"out_channels": 32}]},
            "stage.out_channels: not a parameter of residual stages; set growth instead",
        ),
        ({"stage": [{}], "stem": {"dropout": 0.1}}, "stem.dropout: not a parameter of this space"),
        (
            {"stage": [{"order": "pre"}, {"order": "post"}]},
            "stage.order: is shared, so all stages must have the same value, got 'pre' and 'post'",
        ),
        ({"stage": [{"growth": 3.0}] * 3}, "stage1_growth: must be within the space's 1.0 | 2.0, got 3.0"),
        ({"stage": [{}] * 4}, "num_stages: must be within the space's 3, got 4"),
        ({"stage": [{}] * 3, "last_channels": 8}, "last_channels: must be within the space's 0, got 8"),
        ({"stage": [{}, {"family": "plain", "kernel_size": 3}]}, "stage2_family: must be within the space's "),
        ({"stage": [{"family": ["residual"]}]}, "stage1_family: must be within the space's residual |"),
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


EVEN_BETWEEN = {"low": 3, "high": 7}


@pytest.mark.parametrize("section", ["stem", "plain", "residual", "inverted_residual"])
def test_a_range_with_an_even_kernel_is_refused(section: str) -> None:
    family = {} if section == "stem" else {"family": section}
    with pytest.raises(SpaceError) as raised:
        space_of(stage=family, **{section: {"kernel_size": EVEN_BETWEEN}})
    assert str(raised.value) == (
        f"made: {section}.kernel_size: must be odd, so that the padding keeps the size of the feature map, got 4 in "
        "the range 3 to 7; give another step, or choices"
    )


@pytest.mark.parametrize("section", ["stem", "plain", "residual", "inverted_residual"])
def test_a_range_of_odd_kernels_has_a_step_of_two(section: str) -> None:
    space = space_of(
        stage={"family": "residual" if section == "stem" else section},
        **{section: {"kernel_size": {**EVEN_BETWEEN, "step": 2}}},
    )
    (parameter,) = {one for name, one in space.parameters.items() if name.endswith("kernel_size") and not one.is_fixed}
    assert parameter.values == [3, 5, 7]


@pytest.mark.parametrize("value", ["5", True, 5.0, -1])
def test_last_channels_of_a_configuration_is_a_whole_number(value: object) -> None:
    with pytest.raises(SpaceError, match=r"first\.0\.last_channels: input should be .*, got "):
        space_of(stage={"last_channels": [0, 5]}, first=[{"stage": [{}], "last_channels": value}])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[network]\nnum_blocks = 2\n[stage]", "[network] has no effect in a space with [stage]; remove it"),
        ("[network]\n[stage]", "[network] has no effect in a space with [stage]; remove it"),
        (
            '[stage]\nfamily = "inverted_residual"\npooling = "none"',
            "stage.pooling: has no effect, since no stage is of a family with pooling; remove it",
        ),
        (
            '[stage]\nfamily = "inverted_residual"\npooling = ["none", "max"]',
            "stage.pooling: has no effect, since no stage is of a family with pooling; remove it",
        ),
        (
            "[stage]\nnum_stages = 1\ngrowth = 2.0\nfirst_growth = 1.0",
            "stage.growth: has no effect beside first_growth, since there is one stage; remove it",
        ),
    ],
)
def test_a_key_without_effect_is_refused_even_with_the_value_of_the_default(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f"{text}\n[recipe]\nlearning_rate = 1e-3\n", encoding="utf-8")
    with pytest.raises(SpaceError) as raised:
        load_space(str(path))
    assert str(raised.value) == f"{path}: {message}"


def test_the_baseline_is_the_first_configuration_or_the_defaults_and_shrinks() -> None:
    first, half, *_, last = baselines(BUNDLED["resnet"], PHOTOGRAPHS, epochs=5)
    assert first.candidate.architecture == resnet(1)
    assert first.params == first_params(BUNDLED["resnet"])[0]
    assert half.changes[0] == "batch_size 32 instead of 64"
    assert network_cost(trace(last.candidate.architecture)).num_parameters < 200
    default, *_ = baselines(space_of(), PHOTOGRAPHS, epochs=5)
    assert [type(block) for block in default.candidate.architecture.blocks] == [PlainBlock, *[ResidualBlock] * 3]
    assert default.origin == "family"


@pytest.mark.parametrize(
    ("growth", "of_others"),
    [([1.5, 2.0], ["stage2_growth", "stage3_growth"]), ({"choices": [1.5, 2.0], "shared": True}, ["stage_growth"])],
)
def test_the_first_stage_may_have_a_growth_and_a_stride_of_its_own(growth: Any, of_others: list[str]) -> None:
    space = space_of(stage={"growth": growth, "stride": [2, 3], "first_growth": [0.5, 1.0], "first_stride": 1})
    parameters = space.parameters
    assert [name for name in parameters if "growth" in name] == ["stage1_growth", *of_others]
    assert [name for name in parameters if name.startswith("stage") and "stride" in name] == [
        f"stage{number}_stride" for number in (1, 2, 3)
    ]
    assert parameters["stage1_growth"].values == [0.5, 1.0]
    assert parameters["stage1_stride"].values == [1]
    assert parameters[of_others[0]].values == [1.5, 2.0]
    params = {"stage1_growth": 0.5, "stage2_stride": 3, "stage3_stride": 2, **dict.fromkeys(of_others, 2.0)}
    _, *stages = blocks_of(space, params)
    assert [(block.out_channels, block.stride) for block in stages] == [(8, 1), (16, 3), (32, 2)]


def test_a_configuration_to_try_first_is_compared_with_the_ranges_of_the_first_stage() -> None:
    stage = {"growth": {"choices": [1.5, 2.0], "shared": True}, "first_growth": [0.5, 1.0], "first_stride": 1}
    given = [{"growth": 0.5, "stride": 1}, {"growth": 2.0}, {"growth": 2.0}]
    (params,) = first_params(space_of(stage=stage, first=[{"stage": given}]))
    assert params == {"stage1_growth": 0.5, "stage_growth": 2.0}
    (defaults,) = first_params(space_of(stage=stage, first=[{"stage": [{}] * 3}]))
    assert defaults == {"stage1_growth": 0.5, "stage_growth": 1.5}
    for wrong, words in [
        ([{"growth": 2.0}, {}, {}], "first.0: stage1_growth: must be within the space's 0.5 | 1.0, got 2.0"),
        ([{"stride": 2}, {}, {}], "first.0: stage1_stride: must be within the space's 1, got 2"),
        (
            [{}, {"growth": 0.5}, {"growth": 0.5}],
            "first.0: stage_growth: must be within the space's 1.5 | 2.0, got 0.5",
        ),
        ([{"first_growth": 0.5}, {}, {}], "first.0: stage.first_growth: not a parameter of residual stages"),
    ]:
        with pytest.raises(SpaceError) as raised:
            first_params(space_of(stage=stage, first=[{"stage": wrong}]))
        assert words in str(raised.value)


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
