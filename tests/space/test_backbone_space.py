"""The bundled space of pretrained networks: its parameters, its first configurations and its candidates."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.spec import InputSpec
from tuner.errors import SpaceError
from tuner.search.settings import space_to_json
from tuner.space.automatic_flip import decide_flip
from tuner.space.baseline import baselines
from tuner.space.parameter import Parameter
from tuner.space.sampling import candidate_from, first_params, random_params, suggest
from tuner.space.schema import SearchSpace
from tuner.space.toml_file import load_space, parse_space
from tuner.training.candidate import Candidate

PHOTOGRAPHS = InputSpec(3, 200, 300, 2)
WEIGHTS = {"mobilenet_v3_small": "0" * 16, "resnet18": "1" * 16}


@pytest.fixture(scope="module")
def space() -> SearchSpace:
    """The space as a study stores it, with two backbones."""
    found = load_space("pretrained")
    assert found.backbone is not None
    section = found.backbone.with_names(list(WEIGHTS))
    return decide_flip(found.model_copy(update={"backbone": section, "weights": WEIGHTS}), "photographs", ("a", "b"))[0]


def test_the_first_configurations_are_a_linear_probe_and_fine_tuning_of_the_first_backbone(space: SearchSpace) -> None:
    first = [candidate_from(params, space, PHOTOGRAPHS, epochs=5).architecture for params in first_params(space)]
    assert all(isinstance(one, BackboneNetwork) and one.backbone == "mobilenet_v3_small" for one in first)
    assert [one.trained_stages for one in first] == [0, 13, 3]  # type: ignore[union-attr]
    assert [one.crop_fraction for one in first] == [0, 1, 0]  # type: ignore[union-attr]
    assert {one.input_shape for one in first} == {(3, 224, 224)}


def test_a_stored_space_gives_the_same_candidates(space: SearchSpace) -> None:
    stored = parse_space({"name": "pretrained", **json.loads(json.dumps(space_to_json(space)))}, origin="stored")
    generator = random.Random(0)
    for _ in range(20):
        params = random_params(space, generator)
        candidate = candidate_from(params, space, PHOTOGRAPHS, epochs=5)
        assert candidate_from(params, stored, PHOTOGRAPHS, epochs=5) == candidate
        assert Candidate.from_json(json.loads(json.dumps(candidate.to_json()))) == candidate
        network = candidate.architecture
        assert isinstance(network, BackboneNetwork)
        assert network.weights == WEIGHTS[network.backbone]


def test_every_parameter_is_asked_for_in_every_trial(space: SearchSpace) -> None:
    import optuna

    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    asked = set()
    for _ in range(5):
        trial = study.ask()
        suggest(trial, space, PHOTOGRAPHS, epochs=5)
        asked.add(frozenset(trial.params))
        study.tell(trial, 0.0)
    (names,) = asked
    assert {"backbone", "trained_stages", "crop_fraction", "views", "head_hidden_features", "stage_decay"} <= names
    assert "image_size" not in names  # it is fixed


def test_a_network_is_not_sampled_before_its_weights_are_known() -> None:
    given = decide_flip(load_space("pretrained"), "photographs", ("a", "b"))[0]
    with pytest.raises(SpaceError, match=r"the weights of resnet18 must be found before networks are sampled"):
        candidate_from({**first_params(given)[0], "backbone": "resnet18"}, given, PHOTOGRAPHS, epochs=5)


def test_a_baseline_that_needs_less_memory_has_a_smaller_batch(space: SearchSpace) -> None:
    first, *others = (one.candidate for one in baselines(space, PHOTOGRAPHS, epochs=5))
    sizes = [one.recipe.batch_size for one in (first, *others)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert {replace(one, recipe=first.recipe) for one in others} == {first}


def test_a_side_of_its_own_replaces_that_of_the_weights(space: SearchSpace) -> None:
    assert space.backbone is not None
    section = space.backbone.model_copy(update={"image_size": Parameter(choices=[96])})
    sized = space.model_copy(update={"backbone": section})
    sized = parse_space({"name": "sized", **space_to_json(sized)}, origin="sized")
    (params, *_) = first_params(sized)
    assert candidate_from(params, sized, PHOTOGRAPHS, epochs=1).architecture.input_shape == (3, 96, 96)


def test_a_space_with_other_backbones_samples_them_and_begins_with_the_first() -> None:
    data = {
        "name": "own",
        "backbone": {"name": ["resnet18", "resnet34"]},
        "recipe": {"learning_rate": {"low": 1e-3, "high": 1e-2}},
        "first": [{"backbone": {"trained_stages": 0}}],
    }
    own = parse_space(data, origin="own")
    assert own.parameters["backbone"].values == ["resnet18", "resnet34"]
    changed = own.with_backbones({"resnet50": "2" * 16, "resnet18": "1" * 16})
    assert changed.parameters["backbone"].values == ["resnet50", "resnet18"]
    (params,) = first_params(changed)
    assert params["backbone"] == "resnet50"
    assert (
        candidate_from(params, changed, PHOTOGRAPHS, epochs=1).architecture
        == next(baselines(changed, PHOTOGRAPHS, epochs=1)).candidate.architecture
    )
