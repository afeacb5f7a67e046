"""Runs whose space is chosen by the images (`--space auto`), and how they are resumed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pretrained_networks import NAME
from tuner.architecture.backbones import build_backbone
from tuner.architecture.spec import InputSpec
from tuner.errors import BackboneError, StudyError
from tuner.options import RunOptions
from tuner.pipeline import run, run_events
from tuner.search.events import DataReady
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import load_study
from tuner.search.study_space import choose_space
from tuner.space.schema import SearchSpace
from tuner.space.toml_file import load_space

LARGE = InputSpec(3, 96, 96, 2)


@pytest.fixture
def _one_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The space `pretrained` has a single backbone, which is small."""

    def load_small_space(name: str) -> SearchSpace:
        space = load_space(name)
        section = space.backbone
        return space if section is None else space.model_copy(update={"backbone": section.with_names([NAME])})

    monkeypatch.setattr("tuner.search.study_space.load_space", load_small_space)


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights in the caches of torch, and no server to load them from."""
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "hub"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def options_in(folder: Path, **changes: Any) -> RunOptions:
    """A short study of digits; the data set and the space are the defaults."""
    defaults: dict[str, Any] = {"trials": 1, "epochs": 1, "workers": 1, "device": "cpu", "confirm": "no"}
    return RunOptions(studies=folder / "studies", data_dir=folder, **(defaults | changes))


def notes_of(options: RunOptions) -> tuple[str, ...]:
    """The notes that a run begins with."""
    with closing(run_events(options)) as events:
        return next(event for event in events if isinstance(event, DataReady)).notes


def test_a_study_of_digits_searches_cnn_and_keeps_it(tmp_path: Path) -> None:
    options = options_in(tmp_path)
    run(options)
    record = load_study(existing_storage(options.studies), "digits-auto")
    assert (record.settings.space_name, record.settings.is_space_bundled) == ("cnn", True)
    for resumed in (
        options,
        options_in(tmp_path, space="auto"),
        options_in(tmp_path, space="auto", study="digits-auto"),
    ):
        notes = notes_of(resumed)
        assert not any(note.startswith("the space is") for note in notes)
        assert any("taken from the study" in note and "--space cnn" in note for note in notes)
    assert load_study(existing_storage(options.studies), "digits-auto").settings == record.settings


def test_the_choice_is_printed_with_its_reason_when_a_study_begins(tmp_path: Path) -> None:
    assert "the space is cnn, since the images are small (8x8) and grey" in notes_of(options_in(tmp_path))


def test_a_chosen_space_differs_from_another_one_that_is_given_later(tmp_path: Path) -> None:
    run(options_in(tmp_path))
    with pytest.raises(StudyError, match='space was "cnn", not "article"'):
        run(options_in(tmp_path, space="article", study="digits-auto"))


def test_auto_resumes_a_study_whose_space_was_given(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(
        "[block]\nout_channels = [4, 8]\n[recipe]\nlearning_rate = [0.001, 0.01]\nbatch_size = [16]\n", encoding="utf-8"
    )
    run(options_in(tmp_path, space=str(tmp_path / "tiny.toml")))
    options = options_in(tmp_path, space="auto", study="digits-tiny", trials=2)
    run(options)
    record = load_study(existing_storage(options.studies), "digits-tiny")
    assert (record.settings.space_name, record.num_stored) == ("tiny", 2)


@pytest.mark.usefixtures("_one_backbone")
def test_large_images_have_pretrained_networks_if_their_weights_are_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def random_weights(
        name: str, unreachable: dict[str, str], *, download: bool, report: object
    ) -> dict[str, torch.Tensor]:
        return {key: one for key, one in build_backbone(name).model.state_dict().items() if "fc" not in key}

    space, notes = choose_space(LARGE, {}, cache_dir=tmp_path)
    assert space.name == "resnet"
    (note,) = notes
    assert "the space pretrained cannot be used: at least one backbone must have weights, and none has" in note
    assert "--weights" in note
    assert "\n" not in note
    monkeypatch.setattr("tuner.pretrained.weights.library_weights", random_weights)
    space, notes = choose_space(LARGE, {}, cache_dir=tmp_path)
    assert (space.name, list(space.weights)) == ("pretrained", [NAME])
    assert notes == [
        "the space is pretrained, since the images (96x96) are larger than 64 pixels and pretrained weights are "
        "available"
    ]


def test_a_given_size_that_is_not_square_excludes_pretrained_networks(tmp_path: Path) -> None:
    space, (note,) = choose_space(InputSpec(3, 96, 128, 2), {}, cache_dir=tmp_path, image_size=(96, 128))
    assert space.name == "resnet"
    assert note.endswith("cannot be used: its images must be square, and --image-size is 96x128")


@pytest.mark.usefixtures("_one_backbone")
def test_given_weights_are_used_for_images_of_any_size_and_must_fit(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save(build_backbone(NAME).model.state_dict(), file)
    space, (note,) = choose_space(InputSpec(1, 8, 8, 2), {NAME: file}, cache_dir=tmp_path)
    assert (space.name, list(space.weights)) == ("pretrained", [NAME])
    assert note == "the space is pretrained, since pretrained weights are given"
    (tmp_path / "other.pth").write_bytes(b"no weights")
    with pytest.raises(BackboneError, match=r"other\.pth: not a file of weights"):
        choose_space(LARGE, {NAME: tmp_path / "other.pth"}, cache_dir=tmp_path)
