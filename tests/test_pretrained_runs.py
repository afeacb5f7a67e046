"""Searches of pretrained networks from options to a confirmed winner, and how they are resumed."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import get_model_weights

from tests.data.sample_data import make_classes, make_spec
from tests.pretrained_networks import NAME
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.backbones import build_backbone
from tuner.data.dataset import DataSpec
from tuner.data.development_part import load_development
from tuner.deliver.classifier import load_classifier
from tuner.deliver.confirm import Confirmed
from tuner.deliver.confirm_plan import ConfirmPlan
from tuner.deliver.evaluate import evaluate
from tuner.deliver.train_trial import train_trial
from tuner.errors import BackboneError, OptionError, SpaceError, StudyError
from tuner.options import RunOptions
from tuner.pipeline import confirm_events, load_summary, run, run_events
from tuner.search.backbone_images import describe_decoded, with_image_size
from tuner.search.events import DataReady
from tuner.search.study_backbones import (
    decode_for_backbones,
    with_available_weights,
    with_stored_weights,
    with_weights,
)
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import load_study
from tuner.space.toml_file import load_space
from tuner.training.checkpoint import load_checkpoint
from tuner.ui.event_lines import line_of
from tuner.ui.search_view import SearchView

SPACE = f"""
[backbone]
name = ["{NAME}", "resnet18"]
trained_stages = [0, 1]
image_size = [32, 40]
[recipe]
optimizer = "adamw"
learning_rate = {{ low = 1e-3, high = 1e-2, log = true }}
batch_size = 64
[[first]]
backbone = {{ trained_stages = 1, image_size = 40 }}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(build_backbone(NAME).model.state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights in the caches of torch, and no server to load them from."""
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr("tuner.pretrained.downloads.CONNECT_SECONDS", 0.01, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def options_in(folder: Path, file: Path, **changes: Any) -> RunOptions:
    """A short study of digits whose space has one backbone with weights, and one without."""
    space = folder / "small.toml"
    space.write_text(SPACE.replace(', "resnet18"', ""), encoding="utf-8")
    defaults: dict[str, Any] = {"trials": 2, "epochs": 1, "workers": 1, "device": "cpu", "weights": (f"{NAME}={file}",)}
    return RunOptions(
        dataset="digits", space=str(space), studies=folder / "studies", data_dir=folder, **(defaults | changes)
    )


@pytest.mark.slow
def test_a_search_ends_with_a_confirmed_network_that_scores_as_stored(file: Path, tmp_path: Path) -> None:
    options = options_in(tmp_path, file)
    run(options)
    summary = load_summary(options)
    assert summary.confirmed is not None
    assert summary.delivered is not None
    checkpoint = load_checkpoint(summary.delivered)
    network = checkpoint.candidate.architecture
    assert isinstance(network, BackboneNetwork)
    assert network.backbone == NAME
    record = load_study(existing_storage(options.studies, None), options.study_name)
    first = record.trials()[0].candidate.architecture
    assert isinstance(first, BackboneNetwork)
    assert (first.trained_stages, first.input_shape) == (1, (3, 40, 40))
    evaluation = evaluate(
        load_classifier(summary.delivered), DataSpec("digits", tmp_path, options.cache_dir), part="test"
    )
    assert evaluation.accuracy == checkpoint.scores["test_accuracy"] == summary.confirmed.delivered_test_accuracy


@pytest.mark.slow
def test_a_resumed_study_keeps_its_weights(file: Path, tmp_path: Path) -> None:
    options = options_in(tmp_path, file, confirm="no", trials=1)
    run(options)
    moved = file.with_name("gone.pth")
    more = options_in(tmp_path, file, confirm="no", trials=2, weights=())
    run(more)
    record = load_study(existing_storage(options.studies, None), options.study_name)
    trials = record.trials()
    assert len(trials) == 2
    assert len({trial.candidate.architecture.weights for trial in trials}) == 1
    shutil.rmtree(options.cache_dir / "weights")
    with pytest.raises(BackboneError, match=rf"cannot be read.*--weights {NAME}=FILE"):
        run(options_in(tmp_path, file, confirm="no", trials=3, weights=()))
    run(options_in(tmp_path, file, confirm="no", trials=3))
    assert len(record.trials()) == 3
    edited = options_in(tmp_path, file, confirm="no", trials=4)
    Path(str(edited.space)).write_text(
        SPACE.replace(', "resnet18"', "").replace("[0, 1]", "[0, 1, 2]"), encoding="utf-8"
    )
    with pytest.raises(StudyError, match=r"backbone.trained_stages was \[0, 1\], not \[0, 1, 2\]"):
        run(edited)
    torch.manual_seed(1)
    torch.save(build_backbone(NAME).model.state_dict(), moved)
    with pytest.raises(BackboneError, match=r"the study began with other weights"):
        run(options_in(tmp_path, moved, confirm="no", trials=4))
    with pytest.raises(BackboneError, match=r"fixed when it begins, and resnet18 is not among them"):
        run(options_in(tmp_path, file, confirm="no", trials=4, weights=(f"resnet18={file}",)))


def test_no_copy_is_kept_of_weights_that_a_study_refuses(file: Path, tmp_path: Path) -> None:
    own, other, cache = tmp_path / "own.toml", tmp_path / "other.pth", tmp_path / "cache"
    own.write_text(SPACE.replace(', "resnet18"', ""), encoding="utf-8")
    space = load_space(str(own))
    stored, _ = with_available_weights(space, {NAME: file}, cache_dir=cache, is_named=True)
    torch.manual_seed(1)
    torch.save(build_backbone(NAME).model.state_dict(), other)
    with pytest.raises(BackboneError, match="the study began with other weights"):
        with_stored_weights(space, stored, {NAME: other}, cache_dir=cache)
    assert [path.stem for path in (cache / "weights").iterdir()] == [*stored.weights.values()]


@pytest.mark.slow
def test_weights_whose_copy_is_gone_are_found_again_in_the_cache_of_torch_or_downloaded(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_in(tmp_path, file, confirm="no", trials=1)
    run(options)
    cached = f"shufflenet-{hashlib.sha256(file.read_bytes()).hexdigest()[:8]}.pth"
    url = f"https://127.0.0.1:9/{cached}"
    monkeypatch.setattr(get_model_weights(NAME).DEFAULT.value, "url", url)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    shutil.copy(file, tmp_path / "hub" / "checkpoints" / cached)
    copies = options.cache_dir / "weights"

    def lose_copies() -> None:
        assert list(copies.iterdir())
        shutil.rmtree(copies)

    lose_copies()
    record = load_study(existing_storage(options.studies, None), options.study_name)
    assert train_trial(record, 0, epochs=1, studies=options.studies).checkpoint.exists()
    lose_copies()
    run(options_in(tmp_path, file, confirm="no", trials=2, weights=()))
    assert len(record.trials()) == 2
    lose_copies()
    (tmp_path / "hub" / "checkpoints" / cached).rename(tmp_path / cached)
    monkeypatch.setattr(get_model_weights(NAME).DEFAULT.value, "url", (tmp_path / cached).as_uri())
    monkeypatch.setattr("tuner.pretrained.downloads.CONNECT_SECONDS", 10.0)
    plan, reported = ConfirmPlan(num_candidates=1, num_seeds=1), set[str]()
    *_, last = confirm_events(
        options.studies, options.study_name, plan=plan, workers=1, report=lambda what, *_: reported.add(what)
    )
    assert isinstance(last, Confirmed)
    assert list(copies.iterdir())
    assert f"downloading the weights of {NAME}" in reported


def sizeless_in(folder: Path, file: Path, **changes: Any) -> RunOptions:
    """A study whose space says nothing of the size of the images."""
    options = options_in(folder, file, confirm="no", trials=1, **changes)
    path = Path(str(options.space))
    text = path.read_text(encoding="utf-8").replace("image_size = [32, 40]\n", "").replace(", image_size = 40", "")
    path.write_text(text, encoding="utf-8")
    return options


@pytest.mark.slow
def test_a_given_image_size_is_that_of_every_backbone_and_stays(file: Path, tmp_path: Path) -> None:
    with closing(run_events(sizeless_in(tmp_path, file, image_size=(48, 48)))) as events:
        events_seen = list(events)
    ready = events_seen[0]
    assert isinstance(ready, DataReady)
    assert (ready.shape, ready.other_sizes) == ((3, 48, 48), ())
    assert (
        ready.notes[1] == "images of 8x8 pixels are resized to cover 55x55 (height x width) and centre-cropped to 48x48"
    )
    run(replace(sizeless_in(tmp_path, file), trials=2))
    record = load_study(existing_storage(tmp_path / "studies", None), "digits-small")
    assert [trial.candidate.architecture.input_shape for trial in record.trials()] == [(3, 48, 48)] * 2
    with pytest.raises(StudyError, match=r"--image-size was 48, not 40, when the study began"):
        run(sizeless_in(tmp_path, file, image_size=(40, 40)))


def test_an_image_size_that_the_study_began_without_is_refused(file: Path, tmp_path: Path) -> None:
    stored = load_space(str(sizeless_in(tmp_path, file).space))
    with pytest.raises(StudyError, match=r"--image-size was unset, not 64, when the study began") as caught:
        with_image_size(stored, (64, 64), stored)
    assert "\n" not in str(caught.value)
    assert with_image_size(stored, None, stored) is stored


@pytest.mark.parametrize(
    ("image_size", "error", "words"),
    [
        ((64, 64), SpaceError, "backbone.image_size (32 | 40) and --image-size 64 exclude each other"),
        ((48, 64), OptionError, "must be the one side of square images for pretrained networks, got 48x64"),
    ],
)
def test_image_sizes_that_contradict_each_other_are_refused(
    file: Path, tmp_path: Path, image_size: tuple[int, int], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        run(options_in(tmp_path, file, image_size=image_size))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "studies").glob("digits*"))


def test_an_engine_that_pretrained_networks_cannot_have_is_refused_before_anything_is_stored(
    file: Path, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="precision=bf16 has no effect on pretrained networks: omit it"):
        run(options_in(tmp_path, file, engine="precision=bf16"))
    assert not list((tmp_path / "studies").glob("digits*"))


@pytest.mark.slow
def test_several_sizes_are_all_reported_with_the_images_of_each(file: Path, tmp_path: Path) -> None:
    with closing(run_events(options_in(tmp_path, file))) as events:
        ready = next(events)
    assert isinstance(ready, DataReady)
    assert (ready.shape, ready.other_sizes) == ((3, 32, 32), ((40, 40),))
    assert "32x32 and 40x40, RGB" in line_of(ready, SearchView())


def test_the_images_are_described_as_they_are_decoded_for_the_backbones(tmp_path: Path) -> None:
    folder = make_classes(tmp_path / "photographs", {"ants": 10, "bees": 10}, mode="RGB", size=(70, 50))
    spec = make_spec(folder, tmp_path)
    dataset = load_development(spec)
    space = load_space("pretrained").with_backbones(dict.fromkeys(["resnet18", "shufflenet_v2_x0_5"], "0" * 16))
    for side, covered, option in ((0, 256, "; --image-size changes it"), (56, 64, "")):
        sized = space if side == 0 else space.with_image_size(side)
        decoded = decode_for_backbones(sized, spec, dataset)
        assert decoded is not None
        words = describe_decoded(sized, dataset, decoded, device=torch.device("cpu"), memory_bytes=2**30)
        side = side or 224
        assert words.shapes == ((3, side, side),)
        assert words.notes[-2:] == (
            f"crop fraction 0.875: images are RGB (3 channels); all are resized to cover {covered}x{covered} pixels "
            f"(height x width{option}), and centre-cropped to {side}x{side}",
            f"crop fraction 1: images are RGB (3 channels); 16 of 16 have another size and are resized to cover "
            f"{side}x{side} pixels (height x width{option}), and centre-cropped",
        )


def test_images_are_decoded_once_for_each_crop_that_networks_have(tmp_path: Path) -> None:
    folder = make_classes(tmp_path / "photographs", {"ants": 10, "bees": 10}, mode="RGB", size=(70, 50))
    spec = make_spec(folder, tmp_path)
    dataset = load_development(spec)
    text = (
        'crop_fraction = {}\nimage_size = 32\nname = ["resnet18", "shufflenet_v2_x0_5"]\n[recipe]\nlearning_rate = 0.1'
    )
    for fractions, wanted in (("0", [0.875]), ("[0.875, 0]", [0.875]), ("[0, 0.5, 1]", [0.875, 0.5, 1])):
        file = tmp_path / "own.toml"
        file.write_text(f"[backbone]\n{text.format(fractions)}", encoding="utf-8")
        space = load_space(str(file)).with_backbones(dict.fromkeys(["resnet18", "shufflenet_v2_x0_5"], "0" * 16))
        decoded = decode_for_backbones(space, spec, dataset)
        assert decoded is not None
        assert [one.crop_fraction for one in decoded.folders] == wanted
        assert len(set(decoded.folders.values())) == len(wanted)
        words = describe_decoded(space, dataset, decoded, device=torch.device("cpu"), memory_bytes=2**30)
        assert any(note.startswith("crop fraction ") for note in words.notes) == (len(wanted) > 1)


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        (("resnet18",), OptionError, "weights must be a tuple of texts like NAME="),
        (("a=1", "a=2"), OptionError, "a is given twice"),
        (("resnett18=FILE",), BackboneError, "resnet18"),
        (("resnet18=FILE",), BackboneError, "weights.pth"),
    ],
)
def test_weights_that_cannot_be_used_are_refused_in_one_line(
    tmp_path: Path, file: Path, weights: tuple[str, ...], error: type[Exception], words: str
) -> None:
    given = tuple(one.replace("FILE", str(file)) for one in weights)
    with pytest.raises(error) as caught:
        run(options_in(tmp_path, file, weights=given))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "studies").glob("digits*"))


def test_a_backbone_that_the_user_names_must_have_weights(tmp_path: Path, file: Path) -> None:
    options = options_in(tmp_path, file)
    Path(str(options.space)).write_text(SPACE, encoding="utf-8")
    with pytest.raises(BackboneError, match=r"resnet18 has no weights here.*--weights resnet18=FILE"):
        run(options)


def test_weights_have_no_place_in_a_space_without_backbones(tmp_path: Path, file: Path) -> None:
    options = RunOptions(dataset="digits", space="cnn", studies=tmp_path, weights=(f"{NAME}={file}",))
    with pytest.raises(OptionError, match=r"weights must go with a space of backbones, and 'cnn' has none"):
        run(options)


def test_weights_for_a_study_without_backbones_lead_to_another_study(tmp_path: Path, file: Path) -> None:
    space = load_space("resnet")
    with pytest.raises(OptionError, match=r"'resnet', which the study keeps, has none: .* another study with --study"):
        with_weights(space, {NAME: file}, space, cache_dir=tmp_path, is_named=False, download=False)


FROZEN = 'name = "resnet18"\ntrained_stages = 0\n[[first]]\nbackbone = {{}}\nrecipe = {{ {} }}'
"""A space whose networks are all frozen, with a key of a first recipe."""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('name = "resnet18"\nweights = {}', "backbone.weights: unknown key"),
        ("name = { low = 1, high = 2 }", "backbone"),
        ('name = "resnet18"\ntrained_stages = -1', "trained_stages"),
        ('name = "resnet18"\nimage_size = 4096', "image_size"),
        (
            'name = "resnet18"\nimage_size = { low = 64, high = 224 }',
            "image_size must have at most 16 values, since all images are decoded for each of them, got 161",
        ),
        ('name = "resnet18"\ncrop_fraction = { low = 0.5, high = 1 }', "crop_fraction must be a number or a list of"),
        ('name = "resnet18"\ncrop_fraction = [0, 0.05]', "crop_fraction must be 0 or from 0.1 to 1, got 0.05"),
        ('name = "resnet18"\ncrop_fraction = 1.5', "crop_fraction.0: input should be less than or equal to 1, got 1.5"),
        (
            'name = "resnet18"\nimage_size = { low = 64, high = 72 }\ncrop_fraction = [0, 1]',
            "image_size and crop_fraction must have at most 16 pairs of values, since all images are decoded for each "
            "of them, got 18",
        ),
        ('name = "resnet18"\n[network]\nnum_blocks = 2\n[block]\nout_channels = 8', "either [block]"),
        ('name = "resnet18"\n[network]\nnum_blocks = 2', "[network] has no effect in a space with [backbone]"),
        ('name = "resnet18"\n[[first]]\nblock = [{ out_channels = 8 }]', "needs backbone"),
        ('name = "resnet18"\n[[first]]\nbackbone = { depth = 8 }', "backbone.depth"),
        (
            'name = "resnett18"',
            "backbone.name: 'resnett18' is not the name of a backbone: did you mean resnet18",
        ),
        ('name = ["resnet18", "timm/resnet19"]', "wrong.toml: backbone.name: 'timm/resnet19' is not the name of a"),
        ('name = "resnet18"\n[head]\npooling = "average"', "head.pooling has no effect in a space with [backbone]"),
        (
            'name = "resnet18"\n[[first]]\nbackbone = {}\nhead = { pooling = "flatten" }',
            "first.0.head.pooling has no effect in a space with [backbone]",
        ),
        (FROZEN.format("stage_decay = 0.3"), "recipe.stage_decay has no effect since no stage is trained"),
        (FROZEN.format("mixup = 0.2"), "recipe.mixup has no effect since networks with frozen stages"),
        (FROZEN.format('flip = "auto"'), "recipe.flip has no effect since there are no views"),
        (
            'name = "resnet18"\nviews = [0, 4]',
            "backbone.views has no effect without augmentation in [recipe] (flip, translate",
        ),
    ],
)
def test_a_space_that_cannot_be_is_refused_in_one_line(tmp_path: Path, change: str, words: str) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(f"recipe = {{ learning_rate = 1e-3 }}\n[backbone]\n{change}\n", encoding="utf-8")
    with pytest.raises(SpaceError) as caught:
        load_space(str(path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
