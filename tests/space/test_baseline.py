import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import BUNDLED, make_space
from tuner.architecture.cost import network_cost
from tuner.architecture.spec import InputSpec
from tuner.architecture.trace import trace
from tuner.space.baseline import MIN_BATCH_SIZE, PLAIN_DEFAULT, Baseline, baselines, candidate_of, describe_baseline
from tuner.space.sampling import candidate_from, first_params

DIGITS = InputSpec(1, 8, 8, 10)
PHOTOGRAPHS = InputSpec(3, 224, 224, 2)


@given(st.sampled_from(sorted(BUNDLED)), st.sampled_from([DIGITS, PHOTOGRAPHS]))
def test_the_baseline_is_the_first_configuration_as_the_space_gives_it(name: str, input_spec: InputSpec) -> None:
    space = BUNDLED[name]
    first = next(baselines(space, input_spec, epochs=5))
    assert first.params == first_params(space)[0]
    assert first.candidate == candidate_from(first_params(space)[0], space, input_spec, epochs=5)
    assert (first.origin, first.changes) == ("space", ())


@given(st.sampled_from(sorted(BUNDLED)))
def test_every_smaller_baseline_takes_less_memory_down_to_one_image_and_one_channel(name: str) -> None:
    found = list(baselines(BUNDLED[name], PHOTOGRAPHS, epochs=5))
    needed = [
        network_cost(trace(one.candidate.architecture)).training_bytes(one.candidate.recipe.batch_size) for one in found
    ]
    assert needed == sorted(set(needed), reverse=True)
    assert found[-1].candidate.recipe.batch_size == 1
    assert all(block.out_channels == 1 for block in found[-1].candidate.architecture.blocks)
    assert all(bool(one.changes) for one in found[1:])


EXPECTED_RATES = {"adam": 0.02, "adamw": 0.02, "muon": 0.02, "sgd": 0.01, "sgdw": 0.01}
"""Learning rate of each optimizer for a quarter of the batch, from 0.04."""


def test_a_smaller_batch_comes_first_with_a_learning_rate_that_follows_it() -> None:
    recipe = {"optimizer": [*EXPECTED_RATES], "batch_size": [64, 32], "learning_rate": {"low": 1e-4, "high": 0.1}}
    rates = {}
    for optimizer in EXPECTED_RATES:
        first = {"block": [{}, {}], "recipe": {"optimizer": optimizer, "learning_rate": 0.04, "batch_size": 64}}
        whole, half, quarter, *_ = baselines(make_space(recipe=recipe, first=[first]), DIGITS, epochs=5)
        assert [one.candidate.recipe.batch_size for one in (whole, half, quarter)] == [64, 32, 16]
        assert whole.candidate.architecture == quarter.candidate.architecture
        assert half.params is not None
        assert half.params["batch_size"] == 32
        assert quarter.params is None  # 16 is not in the space
        rates[optimizer] = quarter.candidate.recipe.learning_rate
    assert rates == pytest.approx(EXPECTED_RATES)


def test_channels_are_halved_only_when_the_batch_is_small() -> None:
    for one in baselines(BUNDLED["cnn"], DIGITS, epochs=5):
        widths = [block.out_channels for block in one.candidate.architecture.blocks]
        assert widths == [32, 64] or one.candidate.recipe.batch_size <= MIN_BATCH_SIZE


def test_a_space_that_gives_none_is_compared_with_the_default_of_its_family_whatever_it_samples() -> None:
    shared = {"choices": [4, 8], "shared": True}
    space = make_space(
        block={"out_channels": shared, "normalization": "none"},
        recipe={"optimizer": "sgd", "learning_rate": {"sgd": 0.1}},
    )
    first = next(baselines(space, DIGITS, epochs=5))
    assert (first.origin, first.params) == ("family", None)
    assert first.candidate == next(baselines(make_space(), DIGITS, epochs=5)).candidate
    assert [block.out_channels for block in first.candidate.architecture.blocks] == [32, 64]
    assert first.candidate.recipe.optimizer == "adamw"


def test_the_default_of_the_plain_family_leaves_nothing_to_the_space() -> None:
    space = make_space()
    for section, given_values in (("block", PLAIN_DEFAULT.block[0]), ("head", PLAIN_DEFAULT.head)):
        assert set(given_values) == set(type(getattr(space, section)).model_fields)
    assert set(PLAIN_DEFAULT.recipe) == set(type(space.recipe).model_fields)


def test_whole_numbers_for_real_ones_are_taken_as_real() -> None:
    space = make_space(block={"dropout": {"low": 0.0, "high": 0.5}}, first=[{"block": [{"dropout": 0}]}])
    candidate = candidate_of(space.first[0], space, DIGITS, epochs=1)
    assert repr(candidate.architecture.blocks[0].dropout) == "0.0"


def test_a_baseline_in_words_says_what_was_changed_and_why() -> None:
    _, half, *_ = baselines(BUNDLED["cnn"], PHOTOGRAPHS, epochs=5)
    assert describe_baseline(half.to_json()) == (
        "the first configuration, with batch_size 32 instead of 64 and learning_rate 0.00212 instead of 0.003 to fit "
        "into memory"
    )
    assert describe_baseline({"origin": "family", "changes": []}) == "the default configuration of its family"


def test_a_baseline_above_max_parameters_has_fewer_channels_and_says_why() -> None:
    largest, small = (make_space(max_parameters=limit) for limit in (53_098, 30_000))
    whole, *_ = baselines(largest, DIGITS, epochs=5)
    assert (num_parameters(whole), whole.changes, whole.limits) == (53_098, (), ())
    narrow, narrow_with_half_the_batch, *_ = baselines(small, DIGITS, epochs=5)
    assert num_parameters(narrow) <= 30_000
    assert describe_baseline(narrow.to_json()) == (
        "the default configuration of its family, with out_channels 16-32 instead of 32-64 to stay within "
        "max_parameters"
    )
    assert describe_baseline(narrow_with_half_the_batch.to_json()).endswith(
        "and out_channels 16-32 instead of 32-64 to stay within max_parameters and to fit into memory"
    )


def test_a_stored_baseline_without_its_limits_was_changed_to_fit_into_memory() -> None:
    stored = {"origin": "space", "changes": ["batch_size 32 instead of 64"]}
    assert describe_baseline(stored).endswith(", with batch_size 32 instead of 64 to fit into memory")


def num_parameters(baseline: Baseline) -> int:
    return network_cost(trace(baseline.candidate.architecture)).num_parameters
