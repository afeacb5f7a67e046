import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from tests.strategies import networks
from tuner.architecture.blocks import ActivationBlock, Block, InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.factory import build_model, initialise
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve
from tuner.data.images import Preprocessing
from tuner.errors import CheckpointError
from tuner.training.candidate import Candidate, Recipe
from tuner.training.checkpoint import (
    FLAT_FORMAT,
    FORMAT,
    Checkpoint,
    contents_from,
    description_of,
    load_checkpoint,
    model_from,
    save_checkpoint,
)
from tuner.training.released_defaults import RELEASED_DEFAULTS

NETWORK = Architecture(
    InputSpec(3, 9, 7, 4),
    (PlainBlock(6, normalization="batch", pooling="average"), PlainBlock(5, padding="valid", dropout=0.2)),
    Head(hidden_features=8, activation="gelu", dropout=0.5),
)


def checkpoint_of(architecture: Architecture = NETWORK, *, seed: int = 0) -> Checkpoint:
    model = build_model(architecture)
    initialise(model, seed=seed)
    channels, height, width = architecture.input_shape
    return Checkpoint(
        candidate=Candidate(architecture, Recipe(optimizer="sgd", learning_rate=0.1)),
        weights=model.state_dict(),
        preprocessing=Preprocessing(channels, height, width, (0.5,) * channels, (0.25,) * channels),
        class_names=tuple(f"class {number}" for number in range(architecture.num_classes)),
        scores={"validation_accuracy": 0.75},
        origin={"dataset": "pets", "trial": 3},
        versions={"torch": "2.11.0"},
    )


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks(max_side=12))
def test_what_is_saved_is_loaded_again(tmp_path: Path, architecture: Architecture) -> None:
    saved = checkpoint_of(architecture)
    save_checkpoint(saved, tmp_path / "a.pt")
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert replace(loaded, weights={}) == replace(saved, weights={})
    assert loaded.weights.keys() == saved.weights.keys()
    assert all(torch.equal(loaded.weights[name], saved.weights[name]) for name in saved.weights)


def test_a_field_that_an_older_file_lacks_has_its_released_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = description_of(checkpoint_of())
    del data["recipe"]["batch_size"]
    monkeypatch.setitem(RELEASED_DEFAULTS, "recipe", RELEASED_DEFAULTS["recipe"] | {"batch_size": 7})
    assert data["format"] == FLAT_FORMAT
    assert contents_from(data, tmp_path / "a.pt").recipe.batch_size == 7


def build_of_readme() -> Callable[[list[dict[str, Any]]], nn.Module]:
    """The function of the README that makes modules of what `layers` holds."""
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^class Joined.*?(?=^checkpoint = )", readme, re.DOTALL | re.MULTILINE)
    assert len([line for line in lines.splitlines() if line]) <= 15
    namespace: dict[str, Any] = {"torch": torch, "nn": nn}
    exec(lines, namespace)
    build: Callable[[list[dict[str, Any]]], nn.Module] = namespace["build"]
    return build


@pytest.mark.parametrize(
    ("blocks", "number"),
    [((PlainBlock(4),), 1), ((InvertedResidualBlock(4), ActivationBlock()), 1), ((ResidualBlock(4), PlainBlock(4)), 2)],
)
def test_a_file_without_joins_is_one_that_older_versions_read(
    tmp_path: Path, blocks: tuple[Block, ...], number: int
) -> None:
    architecture = resolve(Architecture(InputSpec(1, 5, 5, 3), blocks, Head()))
    save_checkpoint(checkpoint_of(architecture), tmp_path / "a.pt")
    data = torch.load(tmp_path / "a.pt", weights_only=True)
    assert data["format"] == number
    assert any("join" in layer for layer in data["layers"]) == (number == 2)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(networks(max_side=12))
def test_plain_torch_rebuilds_the_network_from_the_file_alone(tmp_path: Path, architecture: Architecture) -> None:
    save_checkpoint(checkpoint_of(architecture, seed=5), tmp_path / "a.pt")
    data = torch.load(tmp_path / "a.pt", weights_only=True)
    plain = build_of_readme()(data["layers"])
    plain.load_state_dict(data["weights"])
    images_NCHW = torch.randn(3, *architecture.input_shape)
    with torch.no_grad():
        ours_NK = model_from(load_checkpoint(tmp_path / "a.pt"))(images_NCHW)
        assert torch.equal(plain.eval()(images_NCHW), ours_NK)


def test_a_loaded_model_is_in_eval_mode(tmp_path: Path) -> None:
    save_checkpoint(checkpoint_of(), tmp_path / "a.pt")
    model = model_from(load_checkpoint(tmp_path / "a.pt"))
    assert not any(module.training for module in model.modules())


def test_weights_are_stored_as_they_were_and_not_as_views_of_something_larger(tmp_path: Path) -> None:
    checkpoint = checkpoint_of()
    large = torch.zeros(1_000_000)
    weights = dict(checkpoint.weights)
    weights["0.weight"] = large[: weights["0.weight"].numel()].view(weights["0.weight"].shape)
    save_checkpoint(replace(checkpoint, weights=weights), tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 100_000


def test_a_save_makes_the_folder_and_leaves_nothing_else_in_it(tmp_path: Path) -> None:
    save_checkpoint(checkpoint_of(), tmp_path / "study" / "a.pt")
    assert [path.name for path in (tmp_path / "study").iterdir()] == ["a.pt"]


class Unsaveable:
    def __reduce__(self) -> Any:
        raise RuntimeError("the disk is full")


def test_a_save_that_fails_midway_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(checkpoint_of(), path)
    before = path.read_bytes()
    broken = replace(checkpoint_of(seed=1), scores={"validation_accuracy": Unsaveable()})  # type: ignore[dict-item]
    with pytest.raises(RuntimeError, match="the disk is full"):
        save_checkpoint(broken, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


Damage = Callable[[Path], object]


def changed(**values: Any) -> Damage:
    """A checkpoint with other entries; None removes one."""

    def damage(path: Path) -> None:
        data = torch.load(path, weights_only=True) | values
        torch.save({key: value for key, value in data.items() if value is not None}, path)

    return damage


def truncated(path: Path, *, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hello.txt", "hello")


def with_std(value: float) -> Damage:
    """A checkpoint whose images are divided by something else."""

    def damage(path: Path) -> None:
        data = torch.load(path, weights_only=True)
        data["preprocessing"]["std"] = [value] * len(data["preprocessing"]["std"])
        torch.save(data, path)

    return damage


NO_BLOCK = {"input": {"channels": 1, "height": 8, "width": 8, "num_classes": 10}, "head": {}}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "cannot be read: "),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read: "),
        (lambda path: path.write_bytes(b""), "not a checkpoint of tuner"),
        (lambda path: path.write_bytes(b"hello, this is a text"), "not a checkpoint of tuner"),
        (lambda path: path.write_bytes(pickle.dumps({"format": 1})), "not a checkpoint of tuner"),
        (lambda path: truncated(path, share=0.01), "not a checkpoint of tuner"),
        (lambda path: truncated(path, share=0.5), "not a checkpoint of tuner, or damaged ("),
        (lambda path: truncated(path, share=0.99), "not a checkpoint of tuner, or damaged ("),
        (zipped, "not a checkpoint of tuner"),
        (lambda path: torch.save(Unknown(), path), "not a checkpoint of tuner"),
        (lambda path: torch.save([1, 2], path), "not a checkpoint of tuner: it has no format number"),
        (lambda path: torch.save({"weights": {}}, path), "not a checkpoint of tuner: it has no format number"),
        (changed(format=FORMAT + 1), f"written by a newer version of tuner (format {FORMAT + 1} of checkpoints, and "),
        (changed(format="new"), "not a checkpoint of tuner: it has no format number"),
        (changed(weights=None), "damaged checkpoint"),
        (changed(architecture=None), "damaged checkpoint"),
        (changed(architecture=NO_BLOCK), "damaged checkpoint"),
        (changed(recipe={"learning_rate": -1.0}), "damaged checkpoint"),
        (changed(weights={}), "damaged checkpoint"),
        (changed(weights=3), "damaged checkpoint"),
        (changed(weights={"0.weight": None}), "damaged checkpoint"),
        (changed(scores=[1]), "damaged checkpoint"),
        (changed(class_names=3), "damaged checkpoint"),
        (changed(class_names=["a"]), "damaged checkpoint: class_names must be as many as"),
        (changed(versions=None), "damaged checkpoint"),
        (changed(format=torch.zeros(2)), "not a checkpoint of tuner: it has no format number"),
        (with_std(0.0), "damaged checkpoint"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_a_whole_checkpoint_is_refused_in_one_line(
    tmp_path: Path, damage: Damage, said: str
) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(checkpoint_of(), path)
    damage(path)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: {said}")
    assert "\n" not in str(caught.value)


class Unknown:
    """A class that a safe load must not build."""


def test_loading_a_file_runs_none_of_its_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "was run",))

    torch.save({"format": FORMAT, "weights": Payload()}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "a.pt")
    assert not (tmp_path / "was run").exists()


def test_torch_warns_of_nothing_in_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"\x80\x3b" + bytes(20))  # to torch, a pickle of a protocol that it does not know
    with pytest.raises(CheckpointError, match=r"a\.pt: not a checkpoint of tuner, or damaged \(UnpicklingError\)"):
        load_checkpoint(tmp_path / "a.pt")
