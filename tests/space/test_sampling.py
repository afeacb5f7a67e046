import random
from random import Random
from typing import Any, get_args

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tests.strategies import ALL_SPACES, EPOCHS, candidates_of, make_space, params_of
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.errors import SpaceError
from tuner.space.sampling import Params, candidate_from, distributions, draw, first_params, random_params, suggest
from tuner.space.schema import SearchSpace
from tuner.training.candidate import Candidate, Optimizer, Recipe

DIGITS = InputSpec(1, 8, 8, 10)
spaces = pytest.mark.parametrize("space", ALL_SPACES.values(), ids=ALL_SPACES)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ([8, 16], CategoricalDistribution([8, 16])),
        ({"choices": [8, 16]}, CategoricalDistribution([8, 16])),
        ({"low": 8, "high": 64, "step": 8}, IntDistribution(8, 64, step=8)),
        ({"low": 8, "high": 64}, IntDistribution(8, 64)),
        ({"low": 8, "high": 64, "log": True}, IntDistribution(8, 64, log=True)),
    ],
)
def test_a_parameter_of_whole_numbers_becomes_the_distribution_it_says(
    written: Any, expected: BaseDistribution
) -> None:
    assert distributions(make_space(block={"out_channels": written}))["block1_out_channels"] == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ({"low": 0.0, "high": 0.5}, FloatDistribution(0.0, 0.5)),
        ({"low": 0, "high": 0.5}, FloatDistribution(0.0, 0.5)),
        ({"low": 0.0, "high": 0.5, "step": 0.1}, FloatDistribution(0.0, 0.5, step=0.1)),
        ({"low": 0.01, "high": 0.5, "log": True}, FloatDistribution(0.01, 0.5, log=True)),
        ([0.0, 0.5], CategoricalDistribution([0.0, 0.5])),
    ],
)
def test_a_parameter_of_real_numbers_becomes_the_distribution_it_says(written: Any, expected: BaseDistribution) -> None:
    assert distributions(make_space(head={"dropout": written}))["head_dropout"] == expected


def test_a_fixed_value_is_not_sampled() -> None:
    assert distributions(make_space()) == {}
    assert random_params(make_space(), Random(0)) == {}


@spaces
def test_random_params_lie_within_their_distributions(space: SearchSpace) -> None:
    generator = Random(0)
    for _ in range(200):
        params = random_params(space, generator)
        assert params.keys() == distributions(space).keys()
        for name, distribution in distributions(space).items():
            assert distribution._contains(distribution.to_internal_repr(params[name])), (name, params[name])


def test_random_params_reach_both_ends_of_a_range_and_every_choice() -> None:
    space = make_space(block={"out_channels": {"low": 2, "high": 6, "step": 2}, "padding": ["same", "valid"]})
    drawn = [random_params(space, Random(seed)) for seed in range(60)]
    assert {params["block1_out_channels"] for params in drawn} == {2, 4, 6}
    assert {params["block2_padding"] for params in drawn} == {"same", "valid"}


def test_random_params_of_a_stepped_range_stay_below_its_high_end_where_floats_add_up_to_more() -> None:
    space = make_space(head={"dropout": {"low": 0.0, "high": 0.3, "step": 0.1}})
    drawn = {random_params(space, Random(seed))["head_dropout"] for seed in range(50)}
    assert 0.1 * 3 > 0.3
    assert drawn == {0.0, 0.1, 0.2, 0.3}


@given(st.data())
def test_the_resolved_candidate_is_the_same_function_of_the_same_params(data: st.DataObject) -> None:
    space = data.draw(st.sampled_from(list(ALL_SPACES.values())))
    params = data.draw(params_of(space))
    one, other = (candidate_from(dict(params), space, DIGITS, epochs=EPOCHS) for _ in range(2))
    assert one == other
    assert one.fingerprint == other.fingerprint
    assert one.recipe.epochs == EPOCHS


@spaces
def test_suggest_asks_for_every_parameter_in_every_trial_whatever_the_depth(space: SearchSpace) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        candidate = suggest(trial, space, DIGITS, epochs=EPOCHS)
        assert trial.distributions == distributions(space)
        assert candidate == candidate_from(trial.params, space, DIGITS, epochs=EPOCHS)


def test_params_become_the_blocks_head_and_recipe_that_they_name() -> None:
    space = make_space(
        network={"num_blocks": [1, 2, 3]},
        block={"out_channels": [8, 16], "kernel_size": {"choices": [3, 5], "shared": True}, "activation": "gelu"},
        head={"hidden_features": [0, 32]},
        recipe={
            "optimizer": ["adam", "sgd"],
            "learning_rate": {"adam": {"low": 1e-4, "high": 1e-2}, "sgd": {"low": 1e-3, "high": 1e-1}},
            "batch_size": 32,
        },
    )
    params: Params = {
        "num_blocks": 2,
        "block1_out_channels": 16,
        "block2_out_channels": 8,
        "block3_out_channels": 16,
        "block_kernel_size": 5,
        "head_hidden_features": 32,
        "optimizer": "sgd",
        "learning_rate_adam": 2e-3,
        "learning_rate_sgd": 5e-2,
    }
    assert params.keys() == distributions(space).keys()
    assert candidate_from(params, space, InputSpec(1, 9, 9, 10), epochs=7) == Candidate(
        Architecture(
            InputSpec(1, 9, 9, 10),
            (PlainBlock(16, kernel_size=5, activation="gelu"), PlainBlock(8, kernel_size=5, activation="gelu")),
            Head(hidden_features=32),
        ),
        Recipe(optimizer="sgd", learning_rate=5e-2, batch_size=32, epochs=7),
    )


@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_every_optimizer_may_have_a_learning_rate_and_a_weight_decay_of_its_own(optimizer: Any) -> None:
    rates = {name: (number + 1) / 100 for number, name in enumerate(get_args(Optimizer))}
    tables = {"learning_rate": rates, "weight_decay": {name: rate / 10 for name, rate in rates.items()}}
    space = make_space(recipe={"optimizer": list(rates), **tables})
    recipe = candidate_from({"optimizer": optimizer}, space, DIGITS, epochs=1).recipe
    assert (recipe.learning_rate, recipe.weight_decay) == (rates[optimizer], rates[optimizer] / 10)


def test_every_key_of_a_recipe_reaches_the_candidate() -> None:
    keys = {"warm_up": 0.1, "ema": 0.99, "class_weights": "balanced", "label_smoothing": 0.2, "schedule": "cosine"}
    recipe = candidate_from({}, make_space(recipe=keys), DIGITS, epochs=1).recipe
    assert {name: getattr(recipe, name) for name in keys} == keys


@pytest.mark.parametrize("deeper", [{"block3_out_channels": 8}, {"learning_rate_adam": 9e-3}])
def test_what_has_no_effect_in_a_trial_does_not_change_its_fingerprint(deeper: Params) -> None:
    space = make_space(
        network={"num_blocks": [1, 2, 3]},
        block={"out_channels": [8, 16]},
        recipe={
            "optimizer": ["adam", "sgd"],
            "learning_rate": {"adam": {"low": 1e-4, "high": 1e-2}, "sgd": {"low": 1e-3, "high": 1e-1}},
        },
    )
    params: Params = {
        "num_blocks": 2,
        **{f"block{number}_out_channels": 16 for number in (1, 2, 3)},
        "optimizer": "sgd",
        "learning_rate_adam": 2e-3,
        "learning_rate_sgd": 5e-2,
    }
    one, other = (candidate_from({**params, **changed}, space, DIGITS, epochs=1) for changed in ({}, deeper))
    assert one.fingerprint == other.fingerprint


FIRST_SPACE = {
    "network": {"num_blocks": {"low": 1, "high": 3}},
    "block": {"out_channels": {"low": 8, "high": 32, "step": 8}, "kernel_size": [3, 5], "padding": "valid"},
    "head": {"dropout": {"low": 0.0, "high": 0.5}},
    "recipe": {
        "optimizer": ["adam", "sgd"],
        "learning_rate": {"adam": {"low": 1e-4, "high": 1e-2}, "sgd": {"low": 1e-3, "high": 1e-1}},
    },
}


def test_what_a_first_configuration_leaves_out_takes_the_first_choice_or_the_low_end() -> None:
    space = make_space(**FIRST_SPACE, first=[{"block": [{"out_channels": 16}, {"kernel_size": 5}]}])
    assert first_params(space) == [
        {
            "num_blocks": 2,
            "block1_out_channels": 16,
            # Of blocks beyond its depth, which have no effect, it repeats the last one.
            "block2_out_channels": 8,
            "block3_out_channels": 8,
            "block1_kernel_size": 3,
            "block2_kernel_size": 5,
            "block3_kernel_size": 5,
            "head_dropout": 0.0,
            "optimizer": "adam",
            "learning_rate_adam": 1e-4,
            "learning_rate_sgd": 1e-3,
        }
    ]


def test_a_rate_in_a_first_configuration_is_that_of_its_optimizer() -> None:
    first = {"block": [{}], "recipe": {"optimizer": "sgd", "learning_rate": 0.05}}
    (params,) = first_params(make_space(**FIRST_SPACE, first=[first]))
    assert (params["learning_rate_sgd"], params["learning_rate_adam"]) == (0.05, 1e-4)


def test_a_whole_number_for_a_real_one_in_a_first_configuration_is_taken_as_real() -> None:
    (params,) = first_params(make_space(**FIRST_SPACE, first=[{"block": [{}], "head": {"dropout": 0}}]))
    assert repr(params["head_dropout"]) == "0.0"


@pytest.mark.parametrize(
    ("first", "where"),
    [
        ({"block": [{"out_channels": 64}]}, "block1_out_channels: must be within .*, got 64"),
        ({"block": [{"out_channels": 12}]}, "block1_out_channels: .*got 12"),
        ({"block": [{}, {"kernel_size": 4}]}, "block2_kernel_size: .*got 4"),
        ({"block": [{"kernel_size": "five"}]}, "block1_kernel_size: .*got 'five'"),
        ({"block": [{"padding": "same"}]}, "block1_padding: .*got 'same'"),
        ({"block": [{}, {}, {}, {}]}, "num_blocks: .*got 4"),
        ({"block": [{"width": 3}]}, "block.width: not a parameter"),
        ({"block": [{}], "head": {"width": 3}}, "head.width: not a parameter"),
        ({"block": [{}], "head": {"dropout": 0.75}}, "head_dropout: .*got 0.75"),
        ({"block": [{}], "head": {"dropout": "much"}}, "head_dropout: .*got 'much'"),
        ({"block": [{}], "head": {"dropout": [0.1]}}, r"head_dropout: .*got \[0.1\]"),
        ({"block": [{}], "recipe": {"optimizer": "adamw"}}, "optimizer: .*got 'adamw'"),
        ({"block": [{}], "recipe": {"speed": 3}}, r"recipe\.speed: not a parameter"),
        # Text is no number, and 16.0 is no whole one.
        ({"block": [{"out_channels": "16"}]}, "block1_out_channels: .*got '16'"),
        ({"block": [{"out_channels": 16.0}]}, r"block1_out_channels: .*got 16\.0"),
        ({"block": [{"kernel_size": 3.0}]}, r"block1_kernel_size: .*got 3\.0"),
        ({"block": [{}], "head": {"dropout": "0.1"}}, "head_dropout: .*got '0.1'"),
        ({"block": [{}], "head": {"dropout": False}}, "head_dropout: .*got False"),
        ({"block": [{}], "recipe": {"learning_rate": "1e-3"}}, "learning_rate_adam: .*got '1e-3'"),
        ({"block": [{}], "recipe": {"learning_rate": 0.05}}, "learning_rate_adam: .*got 0.05"),
    ],
)
def test_a_first_configuration_outside_the_space_is_refused(first: dict[str, Any], where: str) -> None:
    space = make_space(**FIRST_SPACE, first=[{"block": [{}]}, first])
    with pytest.raises(SpaceError, match=f"^own.toml: first.1: {where}") as caught:
        first_params(space, origin="own.toml")
    assert "\n" not in str(caught.value)


@spaces
def test_first_configurations_of_the_spaces_lie_within_them(space: SearchSpace) -> None:
    for params in first_params(space):
        assert params.keys() == distributions(space).keys()
        for name, distribution in distributions(space).items():
            assert distribution._contains(distribution.to_internal_repr(params[name])), name


@given(candidates_of(ALL_SPACES["wide"]))
def test_a_candidate_survives_json_with_its_fingerprint(candidate: Candidate) -> None:
    again = Candidate.from_json(candidate.to_json())
    assert again == candidate
    assert again.fingerprint == candidate.fingerprint


def test_a_drawn_number_stays_within_the_widest_logarithmic_range() -> None:
    ranges = {"tiny": FloatDistribution(1e-320, 1e-2, log=True), "whole": IntDistribution(1, 4096, log=True)}
    generator = random.Random(0)
    drawn = [draw(ranges, generator) for _ in range(1_000)]
    for name, one in ranges.items():
        assert all(one._contains(params[name]) for params in drawn)
    assert 0.3 < sum(params["whole"] <= 64 for params in drawn) / 1_000 < 0.7
