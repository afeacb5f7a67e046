"""The benchmarks of pretrained networks: the tutorial's recipe, few images of a larger set, and what is refused."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from benchmarks import own_search, ranking, transfer, tutorial
from benchmarks.cli import main
from benchmarks.image_folders import choose_images, link_images, list_with_test_part
from benchmarks.own_search import run_search
from benchmarks.pretrained_space import write_space
from tests.pretrained_networks import NAME
from tuner.architecture.backbones import build_backbone, input_of
from tuner.data.images import Preprocessing, read_image
from tuner.errors import DataError, RunnerError
from tuner.pretrained.weights_file import read_weights
from tuner.space.toml_file import load_space

Benchmarks = Callable[..., int]
NUM_TRAIN, NUM_TEST = 12, 5
"""Number of images of each class."""
SHORT = ("--trials", "1", "--epochs", "1", "--workers", "1", "--device", "cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        path = tmp_path_factory.mktemp("weights") / "weights.pth"
        torch.save(build_backbone(NAME).model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image folder of two classes: noise on a dark and on a bright ground, 40 pixels high and 48 wide."""
    root, random = tmp_path_factory.mktemp("images") / "noise", np.random.default_rng(0)
    for part, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        for label, name in enumerate(("a", "b")):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels_HWC = random.integers(0, 128, (40, 48, 3), dtype=np.uint8) + np.uint8(127 * label)
                Image.fromarray(pixels_HWC).save(root / part / name / f"{number:02}.png")
    return root


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Benchmarks:
    """The command, run in this process, which has torch already; returns the exit code."""

    def run(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0)

    return run


def backbone_of(search: dict[str, Any]) -> str | None:
    """The backbone of a search's winner, None for a network from scratch."""
    name: str | None = search["winner"]["architecture"].get("backbone")
    return name


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches of one trial, and one epoch of the tutorial's recipe."""
    monkeypatch.setattr(own_search, "OPTIONS", SHORT)
    monkeypatch.setattr(tutorial, "EPOCHS", 1)
    monkeypatch.setattr(tutorial, "num_cores", lambda: 1)  # the tests may share the cores with others


@pytest.mark.parametrize("image_size", [0, 96])
def test_the_space_has_one_backbone_and_one_image_size_and_is_otherwise_the_bundled_one(
    tmp_path: Path, image_size: int
) -> None:
    space, bundled = load_space(str(write_space(tmp_path, NAME, image_size=image_size))), load_space("pretrained")
    assert space.backbone is not None
    assert bundled.backbone is not None
    assert list(space.backbone.name.values) == [NAME]
    assert list(space.backbone.image_size.values) == [image_size]
    names = {"name", "image_size"}
    assert space.backbone.model_dump(exclude=names) == bundled.backbone.model_dump(exclude=names)
    assert space.model_dump(exclude={"backbone"}) == bundled.model_dump(exclude={"backbone"})


def test_so_many_images_of_each_class_are_chosen_in_the_order_of_the_seed(images: Path) -> None:
    listing = list_with_test_part(str(images))
    few, more = choose_images(listing, 3, seed=0), choose_images(listing, 7, seed=0)
    for name, files in listing.train.items():
        assert len(set(few[name])) == 3
        assert more[name][:3] == few[name]
        assert set(more[name]) <= set(files)
    assert choose_images(listing, 3, seed=1) != few
    with pytest.raises(DataError, match=rf"at most the number .*'a' has {NUM_TRAIN}; got {NUM_TRAIN + 1}"):
        choose_images(listing, NUM_TRAIN + 1, seed=0)


def test_the_links_are_an_image_folder_with_the_chosen_images_and_all_test_images(images: Path, tmp_path: Path) -> None:
    listing = list_with_test_part(str(images))
    chosen = choose_images(listing, 3, seed=0)
    linked = list_with_test_part(str(link_images(listing, chosen, tmp_path / "noise")))
    for name, files in chosen.items():
        assert {file.name for file in linked.train[name]} == {file.name for file in files}
    assert linked.test is not None
    assert listing.test is not None
    assert {name: len(files) for name, files in linked.test.items()} == {"a": NUM_TEST, "b": NUM_TEST}
    for file in (*linked.train["a"], *linked.test["b"]):
        assert (linked.root / file.name).read_bytes() == (images / file.name).read_bytes()


def test_the_tutorial_scores_the_pixels_that_our_networks_get(images: Path) -> None:
    own = input_of(NAME)
    train, scored = tutorial.image_files(list_with_test_part(str(images)), own)
    assert (len(train), len(scored)) == (2 * NUM_TRAIN, 2 * NUM_TEST)
    assert [label for _, label in scored.files] == [0] * NUM_TEST + [1] * NUM_TEST
    path, label = scored.files[-1]
    preprocessing = Preprocessing(
        3, own.height, own.width, own.mean, own.std, interpolation=own.interpolation, crop_fraction=own.crop_fraction
    )
    mean_C11, std_C11 = (torch.tensor(values).view(3, 1, 1) for values in (own.mean, own.std))
    image_CHW, its_label = scored[len(scored) - 1]
    pixels_CHW = (image_CHW * std_C11 + mean_C11) * 255
    assert its_label == label == 1
    # The margins of a crop are rounded to whole pixels here, and not in torchvision: a shift of half a pixel at most.
    assert (pixels_CHW - read_image(path, preprocessing)).abs().mean() < 6
    assert train[0][0].shape == image_CHW.shape == (3, own.height, own.width)


def test_the_tutorial_trains_the_whole_network_from_the_weights(file: Path) -> None:
    weights = read_weights(file, NAME)
    model = tutorial.make_model(NAME, weights, num_classes=2)
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items())
    assert set(state) - set(weights) == {"fc.weight", "fc.bias"}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_first_network_with_the_accuracy_of_the_tutorial_counts() -> None:
    networks = [{"seconds": seconds, "accuracy": accuracy} for seconds, accuracy in ((9, 0.5), (20, 0.8), (31, 0.9))]
    assert tutorial.seconds_reached(networks, 0.8) == 20
    assert tutorial.seconds_reached(networks, 0.81) == 31
    assert tutorial.seconds_reached(networks, 0.95) is None


@pytest.mark.slow
def test_the_tutorial_and_our_search_are_scored_on_the_same_test_images(
    images: Path,
    file: Path,
    tmp_path: Path,
    benchmarks: Benchmarks,
    short: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "tutorial.json"
    arguments = ("--dataset", images, "--weights", f"{NAME}={file}", "--budget", "10m", "--seed", "1", "-o", output)
    assert benchmarks("tutorial", *arguments, "--json") == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert result == json.loads(output.read_text())
    (epoch,) = result["tutorial"]["epochs"]
    assert (result["num_train"], result["num_test"]) == (2 * NUM_TRAIN, 2 * NUM_TEST)
    assert epoch["accuracy"] == result["tutorial"]["best_accuracy"] == result["tutorial"]["last_accuracy"]
    ours = result["ours"]
    (trial,) = ours["best_trials"]
    assert (ours["trials"], backbone_of(ours)) == (1, NAME)
    assert 0 < trial["seconds"] < ours["seconds"]
    for accuracy in (epoch["accuracy"], trial["accuracy"], ours["delivered_accuracy"]):
        assert accuracy * 2 * NUM_TEST == pytest.approx(round(accuracy * 2 * NUM_TEST))
    for to in (result["to_last"], result["to_best"]):
        assert to["accuracy"] == epoch["accuracy"]
        if to["seconds_reached"] is not None:
            assert to["ratio"] == pytest.approx(result["tutorial"]["seconds"] / to["seconds_reached"])
        if to["ratio_of_command"] is not None:
            assert ours["accuracy"] >= to["accuracy"]
    assert f"tutorial  best {epoch['accuracy']:.2%} (epoch 1, " in tutorial.table(result)


@pytest.mark.slow
def test_both_spaces_are_searched_with_the_same_few_images_and_resnet_with_two_sizes(
    images: Path, file: Path, benchmarks: Benchmarks, short: None, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--dataset", images, "--weights", f"{NAME}={file}", "--budget", "10m")
    assert benchmarks("transfer", *arguments, "--images-per-class", "10", "--image-size", "32", "--json") == 0
    printed = capsys.readouterr()
    result: dict[str, Any] = json.loads(printed.out)
    assert (result["num_train"], result["num_test"]) == (20, 2 * NUM_TEST)
    searches = ("pretrained", "resnet", "resnet_same_size")
    assert [backbone_of(result[name]) for name in searches] == [NAME, None, None]
    for name in searches[1:]:
        difference = result["pretrained"]["accuracy"] - result[name]["accuracy"]
        assert result["difference_in_points"][name] == pytest.approx(100 * difference)
    _, own_size, same_size = re.split(r"^resnet\w*: tuner run ", printed.err, flags=re.MULTILINE)
    assert "40x48" in own_size
    assert "40x48" not in same_size
    assert "32x32" in same_size
    assert f"at the same size {result['difference_in_points']['resnet_same_size']:+.2f}" in transfer.table(result)


def test_estimates_of_all_stages_are_compared_with_the_accuracy_on_the_test_images(
    images: Path, file: Path, benchmarks: Benchmarks, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--dataset", images, "--weights", f"{NAME}={file}", "--image-size", "32", "--images", "20")
    assert benchmarks("ranking", *arguments, "--json") == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (result["num_train"], result["num_test"]) == (12, 2 * NUM_TEST)  # every second one of 24 images
    stages = result["stages"]
    assert [(one["weights"], one["stage"]) for one in stages] == [
        (weights, stage) for weights in ("pretrained", "random") for stage in range(1, 6)
    ]
    for one in stages:  # dark and bright images
        assert one["test_accuracy"] * 2 * NUM_TEST == pytest.approx(round(one["test_accuracy"] * 2 * NUM_TEST))
    assert max(one["test_accuracy"] for one in stages) == max(one["probe_accuracy"] for one in stages) == 1
    assert "10 sets of features of shufflenet_v2_x0_5, 12 training images, 10 test images" in ranking.table(result)


def test_the_agreement_of_estimates_is_spearmans_correlation() -> None:
    accuracies = (0.5, 0.9, 0.7, 0.8)
    found = [
        ranking.Ranked(
            "pretrained",
            stage,
            8,
            log_me=-stage,
            log_me_seconds=0,
            probe_accuracy=accuracy / 2,
            probe_seconds=0,
            test_accuracy=accuracy,
        )
        for stage, accuracy in enumerate(accuracies)
    ]
    wanted = spearmanr([0, -1, -2, -3], accuracies).statistic
    assert ranking.correlations(found) == {"log_me": pytest.approx(wanted), "probe_accuracy": pytest.approx(1)}


@pytest.mark.slow
def test_a_search_that_fails_is_one_line_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match=r"ended with exit code 2: .*no search space 'nothing'") as caught:
        run_search(["--space", "nothing"], studies=tmp_path / "studies", say=lambda _: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("command", ["tutorial", "transfer"])
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--dataset": "nothing"}, "an image folder must be a folder"),
        ({"--dataset": "untested"}, "must have a test part"),
        ({"--weights": NAME}, f"must be NAME=FILE, with the name of a backbone; got '{NAME}'"),
        ({"--weights": "resnett18=weights.pth"}, "'resnett18' is not the name of a backbone"),
        ({"--weights": f"{NAME}=nothing.pth"}, "nothing.pth"),
        ({"--budget": "5x"}, "--budget must be a time"),
        ({"--output": "stored.json"}, "--output must be a new file"),
        ({"--output": "nowhere/new.json"}, "--output must be in an existing folder"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    command: str,
    changes: dict[str, str],
    words: str,
    images: Path,
    file: Path,
    tmp_path: Path,
    benchmarks: Benchmarks,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stored.json").touch()
    Path("untested").mkdir()
    Path("untested/train").symlink_to(images / "train")
    given = {"--dataset": str(images), "--weights": f"{NAME}={file}", **changes}
    few = ("--images-per-class", "2") if command == "transfer" else ()
    assert benchmarks(command, *few, *(part for option in given.items() for part in option)) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "options", "words"),
    [
        ("transfer", ("--images-per-class", "13"), f"'a' has {NUM_TRAIN}; got 13"),
        ("transfer", ("--images-per-class", "2", "--image-size", "0"), "--image-size"),
        (
            "transfer",
            ("--images-per-class", "2", "--weights", "vit_b_16=FILE"),
            "--image-size must be 224 for vit_b_16",
        ),
        ("ranking", ("--images", "10"), "every class must have at least 5 of the images that are used, and one has 4"),
        ("ranking", ("--image-size", "32", "--weights", "vit_b_16=FILE"), "--image-size must be 224 for vit_b_16"),
        ("ranking", ("--weights", NAME), "must be NAME=FILE"),
    ],
)
def test_images_and_weights_that_cannot_be_used_are_refused_in_one_line(
    command: str,
    options: tuple[str, ...],
    words: str,
    images: Path,
    file: Path,
    benchmarks: Benchmarks,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert benchmarks(command, "--dataset", images, "--weights", f"{NAME}={file}", *options) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
