"""Backbones that are larger than their space allows are refused before their weights are looked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuner.architecture.any_architecture import cost_of
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.spec import Head, InputSpec
from tuner.errors import SpaceError
from tuner.options import RunOptions
from tuner.pipeline import run
from tuner.space.backbone_space import UNKNOWN_WEIGHTS
from tuner.space.large_backbones import without_large_backbones
from tuner.space.schema import SearchSpace
from tuner.space.toml_file import parse_space

IMAGES = InputSpec(3, 32, 32, 1_000)
NAMES = ["resnet18", "shufflenet_v2_x0_5", "mobilenet_v3_small"]


def space_of(limit: int | None, **sections: Any) -> SearchSpace:
    data = {"name": "own", "backbone": {"name": NAMES}, "recipe": {"learning_rate": 1e-3}, **sections}
    return parse_space(data | ({} if limit is None else {"max_parameters": limit}), origin="own")


def num_parameters(name: str, hidden_features: int) -> int:
    head = Head("average", hidden_features)
    return cost_of(BackboneNetwork(IMAGES, name, UNKNOWN_WEIGHTS, head=head)).num_parameters


@pytest.mark.parametrize(
    ("widths", "smallest"), [([0], 0), ([16, 0], 16), ([64, 16], 16), ({"low": 0, "high": 512, "step": 256}, 256)]
)
def test_the_smallest_head_decides_and_a_note_names_the_backbones_that_are_too_large(
    widths: Any, smallest: int
) -> None:
    # With 1,000 classes, a narrow hidden layer makes the head smaller.
    limit = num_parameters("mobilenet_v3_small", smallest)
    space = space_of(limit, head={"hidden_features": widths})
    assert without_large_backbones(space, IMAGES)[0].parameters["backbone"].values == NAMES[1:]
    smaller, (note,) = without_large_backbones(space.model_copy(update={"max_parameters": limit - 1}), IMAGES)
    assert smaller.parameters["backbone"].values == ["shufflenet_v2_x0_5"]
    sizes = ", ".join(f"{name} ({num_parameters(name, smallest):,})" for name in ("resnet18", "mobilenet_v3_small"))
    assert note == (
        f"backbones with more than max_parameters = {limit - 1:,} parameters, which are not searched: {sizes}"
    )


def test_a_space_without_a_limit_or_without_large_backbones_stays_as_it_is() -> None:
    for space in (space_of(None), space_of(10**9)):
        assert without_large_backbones(space, IMAGES) == (space, [])


@pytest.mark.parametrize(
    ("limit", "first", "given", "words"),
    [
        (1_000, [], [], "at least one backbone must have at most max_parameters = 1,000 parameters, got resnet18 (11,"),
        (5_000_000, [{"backbone": {"name": "resnet18"}}], [], "first.0: must have at most max_parameters = 5,000,000"),
        (5_000_000, [], ["resnet34"], "those of resnet34 have at least 21,797,672: omit --weights resnet34=..."),
    ],
)
def test_a_backbone_that_the_user_asks_for_must_not_be_too_large(
    limit: int, first: list[Any], given: list[str], words: str
) -> None:
    with pytest.raises(SpaceError) as caught:
        without_large_backbones(space_of(limit, first=first), IMAGES, given=given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_refuses_them_before_it_looks_for_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("weights were looked for")

    monkeypatch.setattr("tuner.pretrained.weights.library_weights", fail)
    space = tmp_path / "own.toml"
    space.write_text(
        'max_parameters = 1000\n[backbone]\nname = "resnet18"\n[recipe]\nlearning_rate = 0.001\n', encoding="utf-8"
    )
    with pytest.raises(SpaceError, match=r"space 'own': at least one backbone must have at most"):
        run(RunOptions("digits", space=str(space), studies=tmp_path / "studies", data_dir=tmp_path, workers=1))
