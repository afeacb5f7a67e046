"""A network whose images are resized as pretrained weights expect it: evaluated, predicted and exported identically."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.test_checkpoint import checkpoint_of
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve
from tuner.data.dataset import DataSpec
from tuner.data.image_rule import spec_for
from tuner.data.images import read_image
from tuner.data.sealed import load_test_set
from tuner.deliver.classifier import classifier_from, load_classifier
from tuner.deliver.evaluate import Part, evaluate, load_part
from tuner.deliver.export_check import check, reference_of, save_images
from tuner.deliver.export_formats import FORMAT_NAMES, FORMATS, FormatName
from tuner.deliver.export_readme import StoredScore, readme_of
from tuner.deliver.predict import predict
from tuner.deliver.source_file import LINE_LENGTH, source_of
from tuner.deliver.traced_program import traced_program
from tuner.errors import CheckpointError
from tuner.training.checkpoint import FORMAT, Checkpoint, checkpoint_from, description_of

BLOCKS = (PlainBlock(4, normalization="batch", pooling="max"),)
PLAIN = checkpoint_of(resolve(Architecture(InputSpec(3, 28, 28, 2), BLOCKS, Head("average"))))
PLAIN = replace(PLAIN, class_names=("cat", "dog"), origin={"split_seed": 0, "study": "s", "trial": 3})
WORDS = (
    "Every image is resized (Pillow's bicubic filter) to cover 32x32 pixels (height x width) and centre-cropped to "
    "28x28."
)


def with_resizing(checkpoint: Checkpoint) -> Checkpoint:
    resized = replace(checkpoint.preprocessing, interpolation="bicubic", crop_fraction=0.875)
    return replace(checkpoint, preprocessing=resized)


RESIZED = with_resizing(PLAIN)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> DataSpec:
    """Grey training images and test images of which half are in colour, of many sizes."""
    folder = tmp_path_factory.mktemp("pets")
    random = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 12)):
        for name in ("cat", "dog"):
            (folder / "pets" / part / name).mkdir(parents=True)
            for number in range(count):
                height, width = (int(side) for side in random.integers(20, 70, 2))
                pixels_HW3 = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
                image = Image.fromarray(pixels_HW3).convert("RGB" if part == "test" and number % 2 else "L")
                image.save(folder / "pets" / part / name / f"{number:02}.png")
    return DataSpec(str(folder / "pets"), folder / "data", folder / "cache")


@pytest.fixture(scope="module")
def part(spec: DataSpec) -> Part:
    return load_part(spec_for(spec, RESIZED.preprocessing), "test", split_seed=0)


@pytest.mark.parametrize("name", ["pt", "safetensors", "onnx"])
def test_a_file_keeps_the_resizing_and_evaluates_and_predicts_as_the_network(
    name: FormatName, spec: DataSpec, part: Part, tmp_path: Path
) -> None:
    path = tmp_path / FORMATS[name].file_name
    FORMATS[name].write(RESIZED, path, lambda: traced_program(RESIZED))
    classifier, own = load_classifier(path), classifier_from(RESIZED)
    assert classifier.preprocessing == RESIZED.preprocessing
    evaluation, expected = evaluate(classifier, spec), reference_of(own, part)
    assert evaluation.num_correct == expected.num_correct
    loss = torch.nn.functional.cross_entropy(expected.logits_NK, expected.labels_N).item()
    assert evaluation.loss == pytest.approx(loss, rel=1e-4)
    root = Path(str(spec.dataset)) / "test"
    predictions = predict(classifier, sorted(root.rglob("*.png")), top=2)
    probabilities = [dict(prediction.probabilities)["dog"] for prediction in predictions]
    assert probabilities == pytest.approx(expected.logits_NK.softmax(1)[:, 1].tolist(), abs=1e-4)


def test_another_resizing_gives_other_images_and_so_another_score(spec: DataSpec) -> None:
    one, other = (evaluate(classifier_from(network), spec) for network in (RESIZED, PLAIN))
    assert one.loss != other.loss
    assert any("resized (bicubic) to cover 32x32 pixels (height x width), and" in note for note in one.notes)


def test_a_set_of_grey_training_images_is_scored_in_colour_by_a_network_that_takes_colours(
    spec: DataSpec, part: Part
) -> None:
    in_colour_N = (part.images_NCHW != part.images_NCHW[:, :1]).flatten(1).any(1)
    assert in_colour_N.sum() == len(in_colour_N) / 2
    row = int(in_colour_N.nonzero()[0])
    path = sorted((Path(str(spec.dataset)) / "test").rglob("*.png"))[row]
    assert torch.equal(part.images_NCHW[row], read_image(path, RESIZED.preprocessing))
    assert load_test_set(spec).images_NCHW.shape[1] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_every_form_reproduces_the_network_on_the_resized_images(name: FormatName, part: Part, tmp_path: Path) -> None:
    reference = reference_of(classifier_from(RESIZED), part)
    save_images(part, tmp_path, names={FORMATS[name].images})
    FORMATS[name].write(RESIZED, tmp_path / FORMATS[name].file_name, lambda: traced_program(RESIZED))
    assert check(FORMATS[name], tmp_path, reference, name=name).num_correct == reference.num_correct


def test_the_readme_and_the_source_say_how_images_are_resized() -> None:
    files: dict[FormatName, str] = {"pt": "best.pt"}
    text, plain_text = (readme_of(one, StoredScore("test", 35, 70), files) for one in (RESIZED, PLAIN))
    scaled = "An image of another size is scaled to cover 28x28 pixels (height x width) and centre-cropped."
    assert (WORDS in text, scaled in text) == (True, False)
    assert (WORDS in plain_text, scaled in plain_text) == (False, True)
    source = source_of(RESIZED)
    assert WORDS in source
    assert source.replace(f"\n{WORDS}", "") == source_of(PLAIN)
    assert max(map(len, source.splitlines())) <= LINE_LENGTH


def test_older_versions_refuse_a_checkpoint_whose_images_are_resized_in_another_way() -> None:
    assert description_of(RESIZED)["format"] == FORMAT == 3
    assert description_of(PLAIN)["format"] == 1
    assert description_of(replace(PLAIN, flip_test=True))["format"] == 2
    stored = description_of(RESIZED)["preprocessing"]
    assert (stored.pop("interpolation"), stored.pop("crop_fraction")) == ("bicubic", 0.875)
    assert stored == description_of(PLAIN)["preprocessing"]


def test_a_checkpoint_with_a_resizing_that_cannot_be_is_refused() -> None:
    data = {**description_of(RESIZED), "weights": dict(RESIZED.weights)}
    data["preprocessing"] = {**data["preprocessing"], "interpolation": "lanczos"}
    with pytest.raises(CheckpointError, match=r"a\.pt: damaged checkpoint: preprocessing must have"):
        checkpoint_from(data, Path("a.pt"))
