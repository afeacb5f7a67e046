"""Networks with a backbone in every form of an exported file, with random weights made on the spot."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tuner.architecture.any_architecture import build_any
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.backbones import known_backbones
from tuner.architecture.flip_test import FlipTest
from tuner.architecture.spec import Head, InputSpec
from tuner.data.images import Preprocessing
from tuner.deliver.backbone_source import LINE_LENGTH, assigned_backbone
from tuner.deliver.classifier import classifier_from, load_classifier, load_model
from tuner.deliver.evaluate import Part
from tuner.deliver.export_check import check, reference_of, save_images
from tuner.deliver.export_formats import FORMAT_NAMES, FORMATS, FormatName
from tuner.deliver.export_readme import StoredScore, readme_of
from tuner.deliver.safetensors_file import save_safetensors
from tuner.deliver.source_file import named_weights, source_of
from tuner.deliver.traced_program import traced_program
from tuner.errors import CheckpointError
from tuner.training.candidate import Candidate, Recipe, resolve_candidate
from tuner.training.checkpoint import (
    FORMAT,
    Checkpoint,
    backbone_of,
    checkpoint_from,
    description_of,
    load_checkpoint,
    save_checkpoint,
)

SIDE, NUM_CLASSES = 32, 10
TORCHVISION, TIMM = "resnet18", "timm/test_efficientnet"
NAMES = [TORCHVISION, TIMM, "mobilenet_v3_small", "convnext_tiny"]
"""One backbone of each library first; the classifier of the last two is within another module."""
IMAGES_NCHW = torch.randint(0, 256, (70, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@cache
def checkpoint_of(name: str, *, flip_test: bool = False, side: int = SIDE) -> Checkpoint:
    """A network with a hidden layer in its head, whose normalization has seen images."""
    head = Head(pooling="average", hidden_features=16, activation="silu", dropout=0.25)
    network = BackboneNetwork(InputSpec(3, side, side, NUM_CLASSES), name, "0123456789abcdef", 1, head=head)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_any(network)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            model.train()(torch.randn(16 if side == SIDE else 4, 3, side, side))
    return Checkpoint(
        candidate=resolve_candidate(Candidate(network, Recipe(epochs=2))),
        weights=model.state_dict(),
        preprocessing=Preprocessing(
            3, side, side, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), interpolation="bicubic", crop_fraction=0.875
        ),
        class_names=tuple(map(str, range(NUM_CLASSES))),
        scores={"test_accuracy": 0.5},
        origin={"dataset": "digits", "study": "s", "trial": 3},
        versions={},
        flip_test=flip_test,
    )


def names_in(source: str) -> dict[str, Any]:
    """What model.py defines, run as a module and not as a script."""
    namespace: dict[str, Any] = {"__name__": "model"}
    exec(compile(source, "model.py", "exec"), namespace)
    return namespace


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_source_of_a_backbone_gives_the_networks_logits(name: str, flip_test: bool, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(name, flip_test=flip_test)
    torch.save(named_weights(checkpoint), tmp_path / "weights.pt")
    network = names_in(source_of(checkpoint))["load"](str(tmp_path / "weights.pt"))
    wanted_NK = classifier_from(checkpoint).logits(IMAGES_NCHW[:5])
    assert wanted_NK.std(0).min() > 1e-3  # the images make a difference
    with torch.inference_mode():
        torch.testing.assert_close(network(IMAGES_NCHW[:5]), wanted_NK, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_source_imports_torch_and_the_library_and_lists_the_layers_of_the_head(name: str) -> None:
    source = source_of(checkpoint_of(name))
    modules = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    library = "timm" if name.startswith("timm/") else "torchvision"
    assert modules == {"torch", library}
    assert max(map(len, source.splitlines())) <= LINE_LENGTH
    assert f"Needs torch, {library} and weights.pt" in source
    assert f"A pretrained {name} with a new head for digits" in source
    for layer in ("nn.SiLU(),  # 16", "nn.Dropout(0.25),  # 16", "nn.Linear(16, 10),  # 10"):
        assert f"            {layer}" in source
    assert "in the images of the pretraining, per channel" in source


def test_the_statement_that_builds_a_backbone_is_never_too_long() -> None:
    for name in known_backbones():
        statement = assigned_backbone("self.network", name, indent=8)
        assert max(map(len, statement.splitlines())) <= LINE_LENGTH
        ast.parse(f"if True:\n{statement}")


@pytest.mark.parametrize("name", [TORCHVISION, TIMM])
@pytest.mark.parametrize("flip_test", [False, True])
def test_a_saved_checkpoint_is_loaded_with_the_same_weights_and_logits(
    name: str, flip_test: bool, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of(name, flip_test=flip_test)
    save_checkpoint(checkpoint, tmp_path / "a.pt")
    save_safetensors(checkpoint, tmp_path / "a.safetensors")
    wanted_NK = classifier_from(checkpoint).logits(IMAGES_NCHW[:5])
    for path in (tmp_path / "a.pt", tmp_path / "a.safetensors"):
        classifier = load_classifier(path)
        assert classifier.flip_test == flip_test
        assert torch.equal(classifier.logits(IMAGES_NCHW[:5]), wanted_NK)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded.candidate == checkpoint.candidate
    assert backbone_of(loaded) == name
    assert loaded.weights.keys() == checkpoint.weights.keys()
    model = load_model(tmp_path / "a.pt")
    assert isinstance(model, FlipTest) == flip_test
    network = model[0] if isinstance(model, FlipTest) else model
    assert network.state_dict().keys() == checkpoint.weights.keys()


@pytest.mark.parametrize("file", ["network.pt", "network.safetensors"])
def test_a_checkpoint_whose_library_is_missing_is_an_error_in_one_line_that_names_its_path(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / file
    (save_checkpoint if path.suffix == ".pt" else save_safetensors)(checkpoint_of(TIMM), path)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(CheckpointError, match="need timm, which is not installed: pip install") as caught:
        load_classifier(path)
    assert str(caught.value).startswith(f"{path}: its network cannot be built: backbones named timm/")
    assert "\n" not in str(caught.value)


def test_the_layers_of_a_checkpoint_are_those_of_its_head() -> None:
    description = description_of(checkpoint_of(TORCHVISION))
    assert description["format"] == FORMAT
    assert [layer["type"] for layer in description["layers"]] == ["Linear", "SiLU", "Dropout", "Linear"]
    assert description["layers"][0]["arguments"] == {"in_features": 512, "out_features": 16}


def test_a_flip_test_is_the_mean_of_two_passes() -> None:
    logits = classifier_from(checkpoint_of(TORCHVISION)).logits
    mirrored_NCHW = torch.stack([IMAGES_NCHW[:5, ..., column] for column in reversed(range(SIDE))], dim=3)
    wanted_NK = (logits(IMAGES_NCHW[:5]) + logits(mirrored_NCHW)) / 2
    found_NK = classifier_from(checkpoint_of(TORCHVISION, flip_test=True)).logits(IMAGES_NCHW[:5])
    torch.testing.assert_close(found_NK, wanted_NK, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(found_NK, logits(IMAGES_NCHW[:5]))


@pytest.mark.parametrize("name", [TORCHVISION, TIMM])
def test_the_readme_names_the_package_and_never_says_that_torch_is_enough(name: str) -> None:
    library = "timm" if name == TIMM else "torchvision"
    files: dict[FormatName, str] = {one: FORMATS[one].file_name for one in FORMAT_NAMES}
    text = readme_of(checkpoint_of(name), StoredScore("test", 35, 70), files)
    assert f"{name} with pretrained weights and a new head, built by {library} {version(library)}" in text
    assert "nothing is downloaded" in text
    assert f" best.pt, best.safetensors and model.py need the package {library}." in text
    two = readme_of(checkpoint_of(name), StoredScore("test", 35, 70), {"pt": "best.pt", "python": "model.py"})
    assert f" best.pt and model.py need the package {library}." in two
    assert f"import {library}\n" in text
    for untrue in ("plain torch", "torch alone", "LIBRARY", "Joined"):
        assert untrue not in text
    only_onnx = readme_of(checkpoint_of(name), StoredScore("test", 35, 70), {"onnx": "best.onnx"})
    assert "need the package" not in only_onnx


def in_process(checkpoint: Checkpoint, format: FormatName, folder: Path) -> Callable[[Tensor], Tensor]:
    if format == "pt2":
        return traced_program(checkpoint).module()
    FORMATS["onnx"].write(checkpoint, folder / "a.onnx", lambda: traced_program(checkpoint))
    return load_classifier(folder / "a.onnx").logits


@pytest.mark.slow
@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_a_traced_backbone_gives_the_same_logits_for_any_number_of_images(
    format: FormatName, flip_test: bool, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of(TIMM, flip_test=flip_test)
    run = in_process(checkpoint, format, tmp_path)
    wanted_NK = classifier_from(checkpoint).logits(IMAGES_NCHW)
    with torch.inference_mode():
        for number in (1, 3, 70):
            torch.testing.assert_close(run(IMAGES_NCHW[:number]), wanted_NK[:number], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMAT_NAMES)
@pytest.mark.parametrize(("name", "flip_test"), [(TORCHVISION, False), (TIMM, True)])
def test_the_lines_of_the_readme_compute_the_same_in_a_fresh_process(
    name: str, flip_test: bool, format: FormatName, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of(name, flip_test=flip_test)
    labels_N = torch.arange(len(IMAGES_NCHW)) % NUM_CLASSES
    part = Part(IMAGES_NCHW, torch.arange(len(IMAGES_NCHW)), labels_N, checkpoint.class_names)
    reference = reference_of(classifier_from(checkpoint), part)
    save_images(part, tmp_path, names={FORMATS[format].images})
    FORMATS[format].write(checkpoint, tmp_path / FORMATS[format].file_name, lambda: traced_program(checkpoint))
    checked = check(FORMATS[format], tmp_path, reference, name=format, flip_test=flip_test, backbone=name)
    assert checked.num_correct == reference.num_correct


@pytest.mark.slow
@pytest.mark.parametrize("format", ["pt2", "onnx"])
def test_traced_files_do_not_hold_paths_of_this_machine(format: FormatName, tmp_path: Path) -> None:
    import torchvision

    checkpoint = replace(checkpoint_of(TORCHVISION), flip_test=False)
    path = tmp_path / FORMATS[format].file_name
    FORMATS[format].write(checkpoint, path, lambda: traced_program(checkpoint))
    assert str(Path(torchvision.__file__).parent).encode() not in path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    [("swin_t", 64), ("timm/vit_tiny_patch16_224", 224), ("regnet_y_400mf", 64), ("googlenet", 64)],
)
def test_a_traced_member_of_each_family_gives_the_same_logits(name: str, side: int, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(name, side=side)
    generator = torch.Generator().manual_seed(0)
    images_NCHW = torch.randint(0, 256, (5, 3, side, side), dtype=torch.uint8, generator=generator)
    wanted_NK = classifier_from(checkpoint).logits(images_NCHW)
    assert wanted_NK.std(0).min() > 1e-5  # the images make a difference
    program = traced_program(checkpoint)
    for format in ("pt2", "onnx"):
        path = tmp_path / FORMATS[format].file_name
        FORMATS[format].write(checkpoint, path, lambda: program)
        run = torch.export.load(path).module() if format == "pt2" else load_classifier(path).logits
        with torch.inference_mode():
            for number in (1, 5):
                torch.testing.assert_close(run(images_NCHW[:number]), wanted_NK[:number], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet19", "timm/nosuch"])
def test_a_backbone_that_is_not_known_here_is_an_error_that_names_the_file(name: str) -> None:
    checkpoint = checkpoint_of(TORCHVISION)
    data = {**description_of(checkpoint), "weights": dict(checkpoint.weights)}
    data["architecture"] = {**data["architecture"], "backbone": name}
    with pytest.raises(CheckpointError, match=rf"^a\.pt: its network cannot be built: '{name}' is not the name of a"):
        checkpoint_from(data, Path("a.pt"))
