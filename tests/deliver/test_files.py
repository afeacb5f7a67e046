"""The forms of a checkpoint as files: what is written is read again, and what is none is refused."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.strategies import architectures
from tests.training.test_checkpoint import checkpoint_of
from tuner.architecture.spec import Architecture
from tuner.deliver.classifier import classifier_from, load_classifier, load_model
from tuner.deliver.onnx_file import save_onnx
from tuner.deliver.predict import predict
from tuner.deliver.safetensors_file import load_safetensors, save_safetensors
from tuner.deliver.traced_program import traced_program
from tuner.errors import CheckpointError, InstallationError
from tuner.training.checkpoint import FORMAT, description_of, load_checkpoint, model_from


def random_images(number: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randint(0, 256, (number, *shape), dtype=torch.uint8)


@pytest.fixture(scope="module")
def onnx_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "a.onnx"
    checkpoint = checkpoint_of()
    save_onnx(checkpoint, traced_program(checkpoint), path)
    return path


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(architectures(max_side=12))
def test_what_is_saved_as_safetensors_is_loaded_again(tmp_path: Path, architecture: Architecture) -> None:
    saved = checkpoint_of(architecture)
    save_safetensors(saved, tmp_path / "a.safetensors")
    loaded = load_safetensors(tmp_path / "a.safetensors")
    assert replace(loaded, weights={}) == replace(saved, weights={})
    assert loaded.weights.keys() == saved.weights.keys()
    assert all(torch.equal(loaded.weights[name], saved.weights[name]) for name in saved.weights)


def test_the_onnx_files_metadata_are_all_of_the_checkpoint_but_its_weights(onnx_path: Path) -> None:
    entries = {entry.key: json.loads(entry.value) for entry in onnx.load(onnx_path).metadata_props}
    assert entries == json.loads(json.dumps(description_of(checkpoint_of())))
    classifier = load_classifier(onnx_path)
    assert classifier.scores == {"validation_accuracy": 0.75}
    assert classifier.origin == {"dataset": "pets", "trial": 3}


@pytest.mark.parametrize("number", [1, 2, 7])
def test_onnx_takes_any_number_of_uint8_images(onnx_path: Path, number: int) -> None:
    images_NCHW = random_images(number, (3, 9, 7))
    wanted_NK = classifier_from(checkpoint_of()).logits(images_NCHW)
    torch.testing.assert_close(load_classifier(onnx_path).logits(images_NCHW), wanted_NK, rtol=1e-5, atol=1e-5)


def test_a_grey_image_shown_as_colours_without_a_copy_is_taken_too(onnx_path: Path) -> None:
    images_NCHW = random_images(3, (1, 9, 7)).expand(-1, 3, -1, -1)
    wanted_NK = classifier_from(checkpoint_of()).logits(images_NCHW)
    torch.testing.assert_close(load_classifier(onnx_path).logits(images_NCHW), wanted_NK, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("number", [1, 2, 7])
def test_the_traced_program_takes_any_number_of_uint8_images(tmp_path: Path, number: int) -> None:
    checkpoint = checkpoint_of()
    torch.export.save(traced_program(checkpoint), tmp_path / "a.pt2")
    images_NCHW = random_images(number, (3, 9, 7))
    with torch.inference_mode():
        logits_NK = torch.export.load(tmp_path / "a.pt2").module()(images_NCHW)
    torch.testing.assert_close(logits_NK, classifier_from(checkpoint).logits(images_NCHW), rtol=1e-5, atol=1e-5)


def test_files_do_not_tell_where_they_were_written(tmp_path: Path, onnx_path: Path) -> None:
    torch.export.save(traced_program(checkpoint_of()), tmp_path / "a.pt2")
    root = str(Path(torch.__file__).parent).encode()
    assert root not in onnx_path.read_bytes()
    assert root not in (tmp_path / "a.pt2").read_bytes()


Damage = Callable[[Path], object]


def with_metadata(**entries: str | None) -> Damage:
    """A safetensors file with other entries of JSON; None removes one."""

    def damage(path: Path) -> None:
        merged = {name: json.dumps(value) for name, value in description_of(checkpoint_of()).items()} | entries
        save_file(load_file(path), path, metadata={name: value for name, value in merged.items() if value is not None})

    return damage


def without_a_weight(path: Path) -> None:
    weights = load_file(path)
    del weights["0.weight"]
    metadata = {name: json.dumps(value) for name, value in description_of(checkpoint_of()).items()}
    save_file(weights, path, metadata=metadata)


def huge(path: Path) -> None:
    """It describes a network of 16 TiB."""
    description = description_of(checkpoint_of())
    for block in description["architecture"]["blocks"]:
        block |= {"out_channels": 65_536, "kernel_size": 63, "padding": "same"}
    with_metadata(architecture=json.dumps(description["architecture"]))(path)


def other_size(path: Path) -> None:
    preprocessing = {**description_of(checkpoint_of())["preprocessing"], "height": 12}
    with_metadata(preprocessing=json.dumps(preprocessing))(path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "cannot be read: "),
        (lambda path: path.write_bytes(b""), "not a checkpoint of tuner, or damaged"),
        (lambda path: path.write_bytes(b"hello, this is a text"), "not a checkpoint of tuner, or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-5]), "not a checkpoint of tuner, or damaged"),
        (lambda path: save_file(load_file(path), path), "not a checkpoint of tuner: it has no format number"),
        (with_metadata(format=str(FORMAT + 1)), f"written by a newer version of tuner (format {FORMAT + 1} of "),
        (with_metadata(format="{"), "not a checkpoint of tuner: its metadata are not JSON"),
        (with_metadata(scores="[" * 100_000), "not a checkpoint of tuner: its metadata are not JSON"),
        (with_metadata(versions=None), "damaged checkpoint"),
        (with_metadata(class_names='["a"]'), "damaged checkpoint: class_names must be as many as"),
        (without_a_weight, "damaged checkpoint: its weights are not those of its network"),
        (huge, "damaged checkpoint: its weights are not those of its network"),
        (other_size, "damaged checkpoint: preprocessing must give images of the network's input shape"),
    ],
)  # fmt: skip
def test_a_safetensors_file_that_is_no_whole_checkpoint_is_refused_in_one_line(
    tmp_path: Path, damage: Damage, said: str
) -> None:
    path = tmp_path / "a.safetensors"
    save_safetensors(checkpoint_of(), path)
    damage(path)
    with pytest.raises(CheckpointError) as caught:
        load_classifier(path)
    assert str(caught.value).startswith(f"{path}: {said}")
    assert "\n" not in str(caught.value)


def edited(edit: Callable[[onnx.ModelProto], object]) -> Damage:
    """An ONNX file after an edit."""

    def damage(path: Path) -> None:
        model = onnx.load(path)
        edit(model)
        path.write_bytes(model.SerializeToString())

    return damage


def in_other_files(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def of_other_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 12


def of_an_unknown_operation(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Frobnicate"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.unlink(), "cannot be read: "),
        (lambda path: path.write_bytes(b"hello, this is a text"), "not an ONNX file, or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "not an ONNX file, or damaged"),
        (lambda path: path.write_bytes(b""), "not a checkpoint of tuner: it has no format number"),
        (edited(lambda model: model.ClearField("metadata_props")), "not a checkpoint of tuner: it has no format"),
        (edited(lambda model: model.metadata_props.pop()), "damaged checkpoint: "),
        (edited(in_other_files), "its weights are in other files"),
        (edited(of_other_size), "damaged: "),
        (edited(of_an_unknown_operation), "onnxruntime cannot run it: "),
    ],
)  # fmt: skip
def test_an_onnx_file_that_is_no_whole_checkpoint_is_refused_in_one_line(
    tmp_path: Path, onnx_path: Path, damage: Damage, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(onnx_path.read_bytes())
    damage(path)
    with pytest.raises(CheckpointError) as caught:
        load_classifier(path)
    assert str(caught.value).startswith(f"{path}: {said}")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "why"), [("a.pt2", "unpickles"), ("a.PT2", "unpickles"), ("model.py", "runs the code")]
)
def test_files_whose_loading_could_run_code_are_refused_with_the_reason(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / name).write_text("raise SystemExit('it was run')")
    with pytest.raises(CheckpointError, match=why):
        load_classifier(tmp_path / name)
    with pytest.raises(CheckpointError, match=why):
        load_model(tmp_path / name)


def test_a_safetensors_file_is_loaded_as_the_same_module_and_an_onnx_file_is_refused_in_one_line(
    onnx_path: Path, tmp_path: Path
) -> None:
    checkpoint = checkpoint_of()
    save_safetensors(checkpoint, tmp_path / "a.safetensors")
    images_NCHW = torch.rand(2, *checkpoint.candidate.architecture.input_shape)
    wanted_NK = model_from(checkpoint)(images_NCHW)
    assert torch.equal(load_model(tmp_path / "a.safetensors")(images_NCHW), wanted_NK)
    with pytest.raises(CheckpointError, match=r"its network is not one of torch; give the \.pt") as caught:
        load_model(onnx_path)
    assert "\n" not in str(caught.value)


def test_a_program_of_torch_export_under_another_name_is_not_unpickled(tmp_path: Path) -> None:
    torch.export.save(traced_program(checkpoint_of()), tmp_path / "a.pt2")
    (tmp_path / "a.pt2").rename(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not a checkpoint of tuner"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named_with_the_mend(
    onnx_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InstallationError, match=rf"needs {package}, .*pip install 'tuner\[export\]'"):
        load_classifier(onnx_path)


def test_numpy_is_given_logits_as_fp32(onnx_path: Path) -> None:
    assert load_classifier(onnx_path).logits(random_images(2, (3, 9, 7))).numpy().dtype == np.float32


def test_an_image_that_is_given_twice_is_named_twice(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.png", "b.png")]
    for path in paths:
        Image.fromarray(random_images(1, (3, 9, 7))[0].permute(1, 2, 0).numpy()).save(path)
    given_paths = [paths[0], paths[1], paths[0]]
    predictions = predict(checkpoint_of(), given_paths)
    assert [prediction.image for prediction in predictions] == given_paths
    assert dict(predictions[0].probabilities) == pytest.approx(dict(predictions[2].probabilities))
