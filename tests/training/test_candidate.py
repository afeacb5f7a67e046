from dataclasses import MISSING, fields, replace
from typing import Any

import pytest
from hypothesis import given
from pydantic import ValidationError

from tests.strategies import candidates
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.blocks import ActivationBlock, InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.training.candidate import Candidate, Recipe, resolve_candidate
from tuner.training.released_defaults import CANDIDATE_FORMAT, RELEASED_DEFAULTS, with_defaults, without_defaults

NETWORK = Architecture(InputSpec(1, 8, 8, 10), (PlainBlock(4),), Head())
SGD = Recipe(optimizer="sgd")
TRAINED = BackboneNetwork(InputSpec(3, 32, 32, 2), "resnet18", "0" * 16, trained_stages=5)

OTHER_VALUES: dict[str, Any] = {
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "batch_size": 32,
    "epochs": 11,
    "weight_decay": 0.1,
    "momentum": 0.5,
    "label_smoothing": 0.1,
    "warm_up": 0.1,
    "ema": 0.99,
    "class_weights": "balanced",
    "stage_decay": 0.5,
    "flip": "horizontal",
    "translate": 0.125,
    "cutout": 0.25,
    "mixup": 0.2,
    "cutmix": 1.0,
    "brightness": 0.2,
    "contrast": 0.2,
}


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_every_part_of_a_recipe_changes_the_fingerprint(name: str) -> None:
    network = TRAINED if name == "stage_decay" else NETWORK
    assert (
        Candidate(network, SGD).fingerprint
        != Candidate(network, replace(SGD, **{name: OTHER_VALUES[name]})).fingerprint
    )
    if name == "stage_decay":  # only a backbone has stages with rates of their own
        assert Candidate(NETWORK, SGD).fingerprint == Candidate(NETWORK, replace(SGD, stage_decay=0.5)).fingerprint


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_a_momentum_that_is_not_used_does_not_change_the_fingerprint(optimizer: Any) -> None:
    one, other = (Candidate(NETWORK, Recipe(optimizer=optimizer, momentum=momentum)) for momentum in (0.1, 0.5))
    assert one.fingerprint == other.fingerprint
    assert resolve_candidate(one) == resolve_candidate(other)


@pytest.mark.parametrize("optimizer", ["sgd", "sgdw", "muon"])
def test_a_momentum_that_is_used_changes_the_fingerprint(optimizer: Any) -> None:
    one, other = (Candidate(NETWORK, Recipe(optimizer=optimizer, momentum=momentum)) for momentum in (0.1, 0.5))
    assert one.fingerprint != other.fingerprint


def test_a_warm_up_has_no_effect_beside_the_rise_of_a_one_cycle_schedule() -> None:
    one, other = (Candidate(NETWORK, Recipe(schedule="one_cycle", warm_up=share)) for share in (0.0, 0.1))
    assert one.fingerprint == other.fingerprint
    assert resolve_candidate(other).recipe.warm_up == 0.0


@given(candidates())
def test_a_fingerprint_is_sixteen_digits_and_survives_json_and_resolving(candidate: Candidate) -> None:
    assert len(candidate.fingerprint) == 16
    assert int(candidate.fingerprint, 16) >= 0
    assert Candidate.from_json(candidate.to_json()).fingerprint == candidate.fingerprint
    assert resolve_candidate(candidate).fingerprint == candidate.fingerprint


COLOURFUL = Candidate(
    Architecture(
        InputSpec(3, 32, 32, 10),
        (
            PlainBlock(32, kernel_size=5, normalization="batch", pooling="max", dropout=0.05),
            PlainBlock(64, padding="valid", stride=2, activation="gelu"),
        ),
        Head("average", hidden_features=128, activation="silu", dropout=0.2),
    ),
    Recipe("adamw", 3e-4, "one_cycle", 128, 20, 0.01, label_smoothing=0.1),
)


@pytest.mark.parametrize(
    ("candidate", "fingerprint"),
    [
        (Candidate(NETWORK, Recipe()), "7a324b460babbae5"),
        (Candidate(NETWORK, SGD), "7372d2153b89d757"),
        (COLOURFUL, "a24a6d27145043a5"),
        (Candidate(TRAINED, SGD), "3725f268dfefbfb2"),
    ],
)
def test_a_fingerprint_is_the_same_in_every_version_and_on_every_machine(
    candidate: Candidate, fingerprint: str
) -> None:
    # A change here makes every stored study's repeated trials new ones, and gives them other seeds.
    assert candidate.fingerprint == fingerprint


def test_released_defaults_are_never_changed() -> None:
    # Rows are added here, with the fields that they are of; no other change is allowed within a format.
    assert CANDIDATE_FORMAT == 1
    assert RELEASED_DEFAULTS == {
        "plain": {
            "kernel_size": 3,
            "stride": 1,
            "padding": "same",
            "normalization": "none",
            "activation": "relu",
            "pooling": "none",
            "pool_size": 2,
            "pool_stride": 2,
            "dropout": 0.0,
        },
        "residual": {
            "kernel_size": 3,
            "stride": 1,
            "normalization": "batch",
            "activation": "relu",
            "order": "post",
            "shortcut": "identity",
            "pooling": "none",
            "pool_size": 2,
            "pool_stride": 2,
            "dropout": 0.0,
        },
        "inverted_residual": {
            "expansion": 6,
            "kernel_size": 3,
            "stride": 1,
            "normalization": "batch",
            "activation": "relu6",
            "squeeze": 0,
        },
        "activation": {"normalization": "batch", "activation": "relu"},
        "backbone": {"crop_fraction": 0.0},
        "head": {"pooling": "flatten", "hidden_features": 0, "activation": "relu", "dropout": 0.0},
        "recipe": {
            "optimizer": "adam",
            "learning_rate": 0.001,
            "schedule": "constant",
            "batch_size": 64,
            "epochs": 10,
            "weight_decay": 0.0,
            "momentum": 0.9,
            "label_smoothing": 0.0,
            "warm_up": 0.0,
            "ema": 0.0,
            "class_weights": "none",
            "stage_decay": 1.0,
            "flip": "none",
            "translate": 0.0,
            "cutout": 0.0,
            "mixup": 0.0,
            "cutmix": 0.0,
            "brightness": 0.0,
            "contrast": 0.0,
        },
    }


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("plain", PlainBlock),
        ("residual", ResidualBlock),
        ("inverted_residual", InvertedResidualBlock),
        ("activation", ActivationBlock),
        ("head", Head),
        ("recipe", Recipe),
    ],
)
def test_every_field_with_a_default_has_a_released_one(kind: str, part: type) -> None:
    with_default = {one.name for one in fields(part) if one.default is not MISSING}
    assert set(RELEASED_DEFAULTS[kind]) == with_default - {"family"}  # the tag is always part of the fingerprint


def test_the_first_fields_of_a_network_with_a_backbone_have_no_released_default() -> None:
    with_default = {one.name for one in fields(BackboneNetwork) if one.default is not MISSING}
    assert with_default - set(RELEASED_DEFAULTS["backbone"]) == {"trained_stages", "views", "head"}
    candidate = Candidate(TRAINED, SGD)
    sparse = without_defaults(candidate.to_json())
    assert "crop_fraction" not in sparse["architecture"]
    assert with_defaults(sparse) == candidate.to_json()
    assert Candidate.from_json(sparse) == candidate


def test_a_new_field_with_a_row_changes_no_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    data = COLOURFUL.to_json()
    known = without_defaults(data)
    for kind in RELEASED_DEFAULTS:
        monkeypatch.setitem(RELEASED_DEFAULTS, kind, RELEASED_DEFAULTS[kind] | {"new": 1})
    assert COLOURFUL.fingerprint == "a24a6d27145043a5"
    for part in (data["recipe"], data["architecture"]["head"], *data["architecture"]["blocks"]):
        part["new"] = 1
    assert without_defaults(data) == known
    data["recipe"]["new"] = 2
    assert without_defaults(data)["recipe"] == known["recipe"] | {"new": 2}


def test_a_plain_block_of_defaults_is_hashed_as_its_channels_alone() -> None:
    assert without_defaults(Candidate(NETWORK, Recipe()).to_json()) == {
        "format": 1,
        "architecture": {
            "input": {"channels": 1, "height": 8, "width": 8, "num_classes": 10},
            "blocks": [{"out_channels": 4}],
            "head": {},
        },
        "recipe": {},
    }


@given(candidates())
def test_a_stored_candidate_without_some_fields_has_their_released_defaults(candidate: Candidate) -> None:
    sparse = without_defaults(candidate.to_json())
    assert with_defaults(sparse) == candidate.to_json()
    assert Candidate.from_json(sparse) == candidate


def test_a_missing_field_has_its_released_default_and_not_that_of_the_dataclass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = COLOURFUL.to_json()
    del data["recipe"]["momentum"], data["architecture"]["blocks"][0]["stride"]
    monkeypatch.setitem(RELEASED_DEFAULTS, "recipe", RELEASED_DEFAULTS["recipe"] | {"momentum": 0.25})
    monkeypatch.setitem(RELEASED_DEFAULTS, "plain", RELEASED_DEFAULTS["plain"] | {"stride": 7})
    read = Candidate.from_json(data)
    assert (read.recipe.momentum, read.architecture.blocks[0].stride) == (0.25, 7)


def test_a_candidate_that_was_stored_without_a_format_is_of_the_first() -> None:
    data = COLOURFUL.to_json()
    del data["format"]
    assert Candidate.from_json(data) == COLOURFUL


def test_a_candidate_of_a_newer_format_or_with_a_field_of_a_newer_version_is_refused() -> None:
    with pytest.raises(ValueError, match="format 2 of candidates, and this version reads format 1"):
        Candidate.from_json(COLOURFUL.to_json() | {"format": 2})
    for name in ("recipe", "head", "blocks", "input", "architecture"):
        data = COLOURFUL.to_json()
        part = {"architecture": data["architecture"], "recipe": data["recipe"]} | data["architecture"]
        (part[name][1] if name == "blocks" else part[name])["field_of_a_newer_version"] = 1
        with pytest.raises(ValidationError, match="field_of_a_newer_version"):
            Candidate.from_json(data)


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
