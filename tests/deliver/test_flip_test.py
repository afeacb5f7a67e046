"""The flip test against the mean of two passes, in every form of an exported file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.training.test_checkpoint import checkpoint_of
from tuner.architecture.blocks import PlainBlock, ResidualBlock
from tuner.architecture.factory import build_model
from tuner.architecture.flip_test import FlipTest
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve
from tuner.data.dataset import DataSpec
from tuner.deliver.classifier import classifier_from, load_classifier, load_model, with_flip_test
from tuner.deliver.evaluate import Part, evaluate
from tuner.deliver.export_check import check, reference_of, save_images
from tuner.deliver.export_formats import FORMAT_NAMES, FORMATS, FormatName
from tuner.deliver.export_readme import StoredScore, readme_of
from tuner.deliver.flip_tested import add_flip_test
from tuner.deliver.safetensors_file import save_safetensors
from tuner.deliver.source_file import named_weights, source_of
from tuner.deliver.traced_program import traced_program
from tuner.errors import CheckpointError
from tuner.training.checkpoint import (
    FLAT_FORMAT,
    NESTED_FORMAT,
    Checkpoint,
    checkpoint_from,
    description_of,
    load_checkpoint,
    save_checkpoint,
)

PLAIN = checkpoint_of()
FLIPPED = replace(PLAIN, flip_test=True)
IMAGES_NCHW = torch.randint(0, 256, (70, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
BLOCKS = (PlainBlock(4, normalization="batch"), ResidualBlock(4))
DIGITS = checkpoint_of(resolve(Architecture(InputSpec(1, 8, 8, 10), BLOCKS, Head("average"))))
DIGITS = replace(DIGITS, class_names=tuple(map(str, range(10))), origin={"split_seed": 0})


def mean_of_two_passes(checkpoint: Checkpoint, images_NCHW: Tensor) -> Tensor:
    logits = classifier_from(checkpoint).logits
    mirrored_NCHW = torch.stack([images_NCHW[..., column] for column in reversed(range(images_NCHW.shape[3]))], dim=3)
    return torch.stack([logits(images_NCHW), logits(mirrored_NCHW)]).mean(0)


def test_a_flip_test_is_the_mean_of_two_passes_with_the_same_names_of_weights() -> None:
    model = build_model(PLAIN.candidate.architecture).eval()
    flipped = FlipTest(*model).eval()
    assert flipped.state_dict().keys() == model.state_dict().keys()
    images_NCHW = IMAGES_NCHW.float()
    with torch.no_grad():
        expected_NK = (model(images_NCHW) + model(images_NCHW.flip(3))) / 2
        assert torch.equal(flipped(images_NCHW), expected_NK)
        assert not torch.allclose(flipped(images_NCHW), model(images_NCHW))


def network_of_source(folder: Path) -> Callable[[Tensor], Tensor]:
    namespace = {"__name__": "model"}
    exec(compile(source_of(FLIPPED), "model.py", "exec"), namespace)
    torch.save(named_weights(FLIPPED), folder / "weights.pt")
    network: Callable[[Tensor], Tensor] = namespace["load"](str(folder / "weights.pt"))  # type: ignore[operator]
    return network


def loaded_pt(folder: Path) -> Callable[[Tensor], Tensor]:
    save_checkpoint(FLIPPED, folder / "a.pt")
    assert load_checkpoint(folder / "a.pt").flip_test
    assert isinstance(load_model(folder / "a.pt"), FlipTest)
    return load_classifier(folder / "a.pt").logits


def loaded_safetensors(folder: Path) -> Callable[[Tensor], Tensor]:
    save_safetensors(FLIPPED, folder / "a.safetensors")
    return load_classifier(folder / "a.safetensors").logits


def loaded_onnx(folder: Path) -> Callable[[Tensor], Tensor]:
    FORMATS["onnx"].write(FLIPPED, folder / "a.onnx", lambda: traced_program(FLIPPED))
    classifier = load_classifier(folder / "a.onnx")
    assert classifier.flip_test
    assert with_flip_test(classifier) is classifier
    return classifier.logits


FORMS = [
    loaded_pt,
    loaded_safetensors,
    loaded_onnx,
    lambda folder: traced_program(FLIPPED).module(),
    network_of_source,
    lambda folder: with_flip_test(classifier_from(PLAIN)).logits,
]


@pytest.mark.parametrize("form", FORMS, ids=["pt", "safetensors", "onnx", "pt2", "python", "evaluation"])
def test_every_form_gives_the_mean_of_two_passes(
    form: Callable[[Path], Callable[[Tensor], Tensor]], tmp_path: Path
) -> None:
    with torch.inference_mode():
        found_NK = form(tmp_path)(IMAGES_NCHW)
    torch.testing.assert_close(found_NK, mean_of_two_passes(PLAIN, IMAGES_NCHW), rtol=1e-5, atol=1e-5)


def test_a_checkpoint_says_so_only_if_it_has_a_flip_test_and_then_older_versions_refuse_it() -> None:
    assert "flip_test" not in description_of(PLAIN)
    assert description_of(PLAIN)["format"] == FLAT_FORMAT
    assert description_of(FLIPPED)["format"] == NESTED_FORMAT
    with pytest.raises(CheckpointError, match="flip_test"):
        checkpoint_from({**description_of(FLIPPED), "weights": dict(PLAIN.weights), "flip_test": "yes"}, Path("a.pt"))


@pytest.fixture
def part() -> Part:
    labels_N = torch.arange(len(IMAGES_NCHW)) % 4
    return Part(IMAGES_NCHW, torch.arange(len(IMAGES_NCHW)), labels_N, PLAIN.class_names)


def test_the_scores_of_an_exported_checkpoint_are_with_the_flip_test_and_its_own_stand_beside_them(part: Part) -> None:
    own = replace(PLAIN, scores={"test_accuracy": 0.5, "test_loss": 2.0, "validation_accuracy": 0.6})
    exported, reference = add_flip_test(own, part, StoredScore("test", 35, 70))
    logits_NK = mean_of_two_passes(PLAIN, IMAGES_NCHW)
    assert exported.scores == {
        "test_accuracy": int((logits_NK.argmax(1) == part.labels_N).sum()) / 70,
        "test_loss": pytest.approx(torch.nn.functional.cross_entropy(logits_NK, part.labels_N).item(), rel=1e-5),
        "validation_accuracy": 0.6,
        "test_accuracy_without_flip_test": 0.5,
        "test_loss_without_flip_test": 2.0,
    }
    assert reference.num_correct == int((logits_NK.argmax(1) == part.labels_N).sum())


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_the_readmes_lines_for_each_form_compute_the_flip_test(name: FormatName, part: Part, tmp_path: Path) -> None:
    reference = reference_of(classifier_from(FLIPPED), part)
    save_images(part, tmp_path, names={FORMATS[name].images})
    FORMATS[name].write(FLIPPED, tmp_path / FORMATS[name].file_name, lambda: traced_program(FLIPPED))
    checked = check(FORMATS[name], tmp_path, reference, name=name, flip_test=True)
    assert checked.num_correct == reference.num_correct
    if name in ("pt", "safetensors"):
        with pytest.raises(CheckpointError, match="loaded again"):
            check(FORMATS[name], tmp_path, reference, name=name)


def test_the_readme_states_the_score_with_and_without_the_flip_test() -> None:
    checkpoint = replace(FLIPPED, origin={"study": "s", "trial": 3})
    files: dict[FormatName, str] = {"pt": "best.pt"}
    own = StoredScore("test", 35, 70)
    text = readme_of(checkpoint, StoredScore("test", 40, 70), files, without_flip_test=own)
    assert "test accuracy 57.14% (40 of 70 images)" in text
    assert "the network has test accuracy 50.00% (35 of 70 images)" in text
    assert "batch_NCHW.flip(3)" in text
    without = readme_of(replace(checkpoint, flip_test=False), own, files)
    assert "mirror" not in without
    assert "flip" not in without


def test_evaluating_with_a_flip_test_is_the_same_as_evaluating_a_file_that_has_one(tmp_path: Path) -> None:
    spec = DataSpec("digits", tmp_path / "data", tmp_path / "cache")
    own, of_evaluation, of_file, of_both = (
        evaluate(classifier_from(replace(DIGITS, flip_test=has_it)), spec, part="validation", flip_test=is_asked)
        for has_it in (False, True)
        for is_asked in (False, True)
    )
    assert of_evaluation == of_file == of_both
    assert own.loss != of_file.loss
    assert [one.to_json()["flip_test"] for one in (own, of_file)] == [False, True]
