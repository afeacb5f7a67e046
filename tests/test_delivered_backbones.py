"""A finished study of pretrained networks: its exports, predictions, trials trained again, tables and report."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from tests.pretrained_networks import NAME
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.backbones import build_backbone
from tuner.cli import main
from tuner.data.dataset import DataSpec
from tuner.deliver.classifier import load_classifier, load_model
from tuner.deliver.evaluate import evaluate
from tuner.deliver.export import export
from tuner.deliver.export_formats import FORMATS, FormatName
from tuner.deliver.predict import predict
from tuner.deliver.train_trial import train_trial
from tuner.options import RunOptions
from tuner.pipeline import load_summary, run
from tuner.search.record import StudyRecord
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import load_study
from tuner.search.summary import summarise
from tuner.training.checkpoint import load_checkpoint
from tuner.ui.report.mistakes import judge
from tuner.ui.report.page import report_page

SPACE = f"""
[backbone]
name = "{NAME}"
trained_stages = [1, 0]
image_size = 32
crop_fraction = 0.75
views = 1
[recipe]
optimizer = "adamw"
learning_rate = {{ low = 1e-3, high = 1e-2, log = true }}
stage_decay = 0.3
batch_size = 64
translate = 0.1
"""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    """The options of a confirmed study of digits, whose weights are gone."""
    folder = tmp_path_factory.mktemp("study")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(build_backbone(NAME).model.state_dict(), folder / "weights.pth")
    (folder / "small.toml").write_text(SPACE, encoding="utf-8")
    options = RunOptions(
        dataset="digits",
        space=str(folder / "small.toml"),
        studies=folder / "studies",
        data_dir=folder,
        trials=2,
        epochs=1,
        workers=1,
        device="cpu",
        weights=(f"{NAME}={folder / 'weights.pth'}",),
    )
    run(options)
    (folder / "weights.pth").unlink()
    return options


@pytest.fixture
def record(options: RunOptions) -> StudyRecord:
    return load_study(existing_storage(options.studies, None), options.study_name)


def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str | Path
) -> tuple[int, str]:
    """The exit code of a command, and what it has printed."""
    monkeypatch.setattr(sys, "argv", ["tuner", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capfd.readouterr()
    return int(caught.value.code or 0), printed.out + printed.err


@pytest.mark.slow
def test_every_format_classifies_exactly_as_many_test_images_correctly(
    record: StudyRecord, options: RunOptions, tmp_path: Path
) -> None:
    confirmed = record.confirmed
    assert confirmed is not None
    exported = export(record, studies=options.studies, output=tmp_path / "all", format="all")
    num_correct = round(confirmed.delivered_test_accuracy * exported.score.num_images)
    assert [path.name for path in exported.files] == [one.file_name for one in FORMATS.values()]
    assert {one.num_correct for one in exported.files.values()} == {exported.score.num_correct} == {num_correct}
    spec = DataSpec("digits", tmp_path, options.cache_dir)
    for name in ("best.pt", "best.safetensors", "best.onnx"):
        assert evaluate(load_classifier(tmp_path / "all" / name), spec).num_correct == num_correct


@pytest.mark.slow
@pytest.mark.parametrize("format", ["safetensors", "python"])
def test_a_flip_test_is_exported_with_the_score_that_evaluating_with_one_gives(
    record: StudyRecord, options: RunOptions, tmp_path: Path, format: FormatName
) -> None:
    exported = export(record, studies=options.studies, output=tmp_path / "a", format=format, flip_test=True)
    delivered = load_summary(options).delivered
    assert delivered is not None
    found = evaluate(load_classifier(delivered), DataSpec("digits", tmp_path, options.cache_dir), flip_test=True)
    assert found.num_correct == exported.score.num_correct
    assert exported.without_flip_test is not None


@pytest.mark.slow
def test_files_of_images_are_prepared_for_the_backbone_and_classified(options: RunOptions, tmp_path: Path) -> None:
    delivered = load_summary(options).delivered
    assert delivered is not None
    images_NHW = (load_digits().images[:4] * (255 / 16)).round().astype("uint8")
    paths = [tmp_path / f"{row}.png" for row in range(4)]
    for image_HW, path in zip(images_NHW, paths, strict=True):
        Image.fromarray(image_HW).save(path)
    predictions = predict(load_checkpoint(delivered), paths, top=10)
    assert [one.image for one in predictions] == paths
    assert all(sum(share for _, share in one.probabilities) == pytest.approx(1, rel=1e-5) for one in predictions)
    assert load_model(delivered)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.slow
def test_a_trial_is_trained_again_as_in_the_search(record: StudyRecord, options: RunOptions, tmp_path: Path) -> None:
    trained = train_trial(record, 1, epochs=1, studies=options.studies, output=tmp_path / "again.pt")
    assert trained.validation_accuracy == trained.search_accuracy
    checkpoint = load_checkpoint(tmp_path / "again.pt")
    assert checkpoint.preprocessing.crop_fraction == 0.75  # that of the weights is 0.875
    assert isinstance(checkpoint.candidate.architecture, BackboneNetwork)
    assert checkpoint.scores["validation_accuracy"] == trained.validation_accuracy


@pytest.mark.slow
def test_the_report_has_the_stages_and_the_mistakes_and_no_drawing(record: StudyRecord, options: RunOptions) -> None:
    page = report_page(record, studies=options.studies)
    assert "<td>conv5, SpatialMean</td>" in page
    assert "class='layers'" in page
    assert "Augmented views of training images, with shifts of up to 10 %" in page
    assert 'id="augmented-absent"' not in page
    assert 'id="confusion-absent"' not in page
    judged = judge(record, summarise(record, studies=options.studies), studies=options.studies)
    assert record.confirmed is not None
    assert 1 - judged.num_wrong / judged.num_images == pytest.approx(record.confirmed.delivered_test_accuracy)


@pytest.mark.slow
def test_commands_show_the_network(
    options: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    name, studies = options.study_name, ("--studies", options.studies)
    rc, printed = command(monkeypatch, capfd, "inspect", name, "--trial", "0", *studies)
    assert rc == 0, printed
    assert "stage 1, frozen" in printed
    assert "trained on every image and 1 augmented view of it" in printed
    rc, printed = command(
        monkeypatch, capfd, "inspect", name, "--trial", "0", "--augmented", "-o", "sheet.png", *studies
    )
    assert rc == 0, printed
    assert (tmp_path / "sheet.png").is_file()
    rc, printed = command(monkeypatch, capfd, "show", name, *studies)
    assert rc == 0, printed
    assert f"{NAME} 32x32" in " ".join(printed.split())
    rc, printed = command(monkeypatch, capfd, "compare", name, name, *studies)
    assert rc == 0, printed
    assert NAME in printed


def test_a_space_of_backbones_is_inspected_without_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(SPACE, encoding="utf-8")
    rc, printed = command(monkeypatch, capfd, "inspect", "small.toml", "--classes", "7")
    assert rc == 0, printed
    assert "Linear(1024, 7)" in printed
    assert "weights  pretrained;" in printed
    rc, printed = command(monkeypatch, capfd, "inspect", "small.toml", "--input", "3x64x64")
    assert rc == 2
    assert "--input must be omitted for a space of pretrained networks" in printed
    assert len(printed.splitlines()) == 1
    (tmp_path / "fixed.toml").write_text(SPACE.replace(NAME, "vit_b_16").replace("[1, 0]", "1"), encoding="utf-8")
    rc, printed = command(monkeypatch, capfd, "inspect", "fixed.toml")
    assert rc == 2
    assert "vit_b_16 cannot take images of 32x32 pixels" in printed
    assert len(printed.splitlines()) == 1
    rc, printed = command(monkeypatch, capfd, "spaces")
    assert rc == 0, printed
    assert "backbone.name" in printed
