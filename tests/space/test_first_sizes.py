"""Configurations to try first that have more parameters than their space allows."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import ALL_SPACES, BUNDLED, input_specs
from tuner.architecture.cost import network_cost
from tuner.architecture.spec import InputSpec
from tuner.architecture.trace import trace
from tuner.errors import SpaceError
from tuner.space.first_sizes import SMALLEST_INPUT, refuse_large_first
from tuner.space.sampling import Params, candidate_from, random_params
from tuner.space.schema import SearchSpace
from tuner.space.toml_file import bundled_spaces, load_space

PHOTOGRAPHS = InputSpec(3, 32, 32, 10)


def num_parameters(params: Params, space: SearchSpace, input_spec: InputSpec) -> int:
    return network_cost(trace(candidate_from(params, space, input_spec, epochs=1).architecture)).num_parameters


@given(st.sampled_from(sorted(ALL_SPACES)), input_specs(), st.integers(0, 10**9))
def test_no_network_has_fewer_parameters_than_over_the_smallest_input(
    name: str, input_spec: InputSpec, seed: int
) -> None:
    space = ALL_SPACES[name]
    params = random_params(space, Random(seed))
    assert num_parameters(params, space, SMALLEST_INPUT) <= num_parameters(params, space, input_spec)


@pytest.mark.parametrize(("limit", "is_refused"), [(77_041, True), (77_042, False)])
def test_what_is_too_large_over_any_images_is_refused_when_the_space_is_loaded(
    limit: int, is_refused: bool, tmp_path: Path
) -> None:
    text = bundled_spaces()["resnet"].read_text(encoding="utf-8")
    first, *_ = text.partition("# ResNet-20")
    (path := tmp_path / "own.toml").write_text(first.replace("1_000_000", str(limit)), encoding="utf-8")
    if not is_refused:
        assert load_space(str(path)).max_parameters == limit
        return
    with pytest.raises(SpaceError) as raised:
        load_space(str(path))
    assert str(raised.value) == (
        f"{path}: first.0: must have at most max_parameters = 77,041 parameters, got at least 77,042 over any images; "
        "raise max_parameters or make the configuration smaller"
    )


def test_every_configuration_counts_and_each_has_its_number() -> None:
    resnet = BUNDLED["resnet"]
    refuse_large_first(resnet.model_copy(update={"max_parameters": 272_282}), PHOTOGRAPHS, origin="own")
    with pytest.raises(SpaceError, match=r"^own: first\.1: .* got 272,282 for images of 3x32x32 and 10 classes;"):
        refuse_large_first(resnet.model_copy(update={"max_parameters": 272_281}), PHOTOGRAPHS, origin="own")
    refuse_large_first(resnet.model_copy(update={"max_parameters": None}), PHOTOGRAPHS, origin="own")
