from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from tests.strategies import candidates
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.training.candidate import Candidate, Recipe, resolve_candidate

NETWORK = Architecture(InputSpec(1, 8, 8, 10), (PlainBlock(4),), Head())
SGD = Recipe(optimizer="sgd")

OTHER_VALUES: dict[str, Any] = {
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "batch_size": 32,
    "epochs": 11,
    "weight_decay": 0.1,
    "momentum": 0.5,
    "label_smoothing": 0.1,
}


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_every_part_of_a_recipe_changes_the_fingerprint(name: str) -> None:
    assert (
        Candidate(NETWORK, SGD).fingerprint
        != Candidate(NETWORK, replace(SGD, **{name: OTHER_VALUES[name]})).fingerprint
    )


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_momentum_that_is_not_used_does_not_change_the_fingerprint(optimizer: Any) -> None:
    one, other = (Candidate(NETWORK, Recipe(optimizer=optimizer, momentum=momentum)) for momentum in (0.1, 0.5))
    assert one.fingerprint == other.fingerprint
    assert resolve_candidate(one) == resolve_candidate(other)


@given(candidates())
def test_a_fingerprint_is_sixteen_digits_and_survives_json_and_resolving(candidate: Candidate) -> None:
    assert len(candidate.fingerprint) == 16
    assert int(candidate.fingerprint, 16) >= 0
    assert Candidate.from_json(candidate.to_json()).fingerprint == candidate.fingerprint
    assert resolve_candidate(candidate).fingerprint == candidate.fingerprint


def test_a_fingerprint_is_the_same_in_every_version_and_on_every_machine() -> None:
    # A change here makes every stored study's repeated trials new ones.
    assert Candidate(NETWORK, Recipe()).fingerprint == "4667658c31fb3d8a"


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("recipe", "learning_rate", -1.0),
        ("recipe", "learning_rate", "fast"),
        ("recipe", "batch_size", 2.5),
        ("recipe", "optimizer", "adagrad"),
        ("recipe", "schedule", None),
        ("architecture", "blocks", [{"out_channels": 0}]),
        ("architecture", "blocks", [{"out_channels": 4, "padding": "reflect"}]),
        ("architecture", "input", {"channels": 1, "height": 0, "width": 8, "num_classes": 10}),
        ("architecture", "input", {"channels": 1, "height": 8, "width": 8, "num_classes": 1}),
        ("architecture", "head", {"dropout": 1.0}),
    ],
)
def test_json_that_is_not_a_candidate_is_refused(part: str, key: str, value: Any) -> None:
    data = Candidate(NETWORK, Recipe()).to_json()
    data[part][key] = value
    with pytest.raises(ValidationError):
        Candidate.from_json(data)
