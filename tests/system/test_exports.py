"""A finished study leaves the house in every form, and every form comes to the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tuner
from tests.system.conftest import ROOT, run_tuner
from tuner.cli import main
from tuner.data.sealed import load_test_set
from tuner.deliver.classifier import classifier_from, load_classifier
from tuner.deliver.evaluate import evaluate
from tuner.deliver.export import export
from tuner.deliver.export_formats import FORMATS, Format, FormatName, Program
from tuner.deliver.predict import predict
from tuner.errors import CheckpointError, DataError, InstallationError
from tuner.search.record import StudyRecord
from tuner.search.study_files import confirmed_path
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import load_study
from tuner.search.summary import summarise
from tuner.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint

FILES = {"best.pt", "best.safetensors", "best.onnx", "best.pt2", "model.py", "weights.pt", "README.md"}


def study_of(folder: Path) -> StudyRecord:
    return load_study(existing_storage(folder / "studies"))


def spec_of(folder: Path) -> tuner.DataSpec:
    return study_of(folder).data_spec(folder / "studies" / ".cache")


@pytest.fixture(scope="module")
def exported(workplace: Path) -> Path:
    """The folder of `tuner export --format all`, and what it printed, in a file beside it."""
    done = run_tuner("export", "--format", "all", "-o", "out/all", cwd=workplace)
    assert done.returncode == 0, done.stderr
    (workplace / "export.log").write_text(done.stdout, encoding="utf-8")
    assert done.stderr == "study digits-auto (the latest)\n"
    return workplace / "out" / "all"


@pytest.fixture
def copied(workplace: Path, tmp_path: Path) -> Path:
    """A copy of the study, to be changed."""
    shutil.copytree(workplace / "studies", tmp_path / "studies")
    return tmp_path


@pytest.fixture(scope="module")
def sealed(workplace: Path) -> tuple[torch.Tensor, list[str]]:
    """The images of the sealed test set, and the names of their classes."""
    dataset = load_test_set(spec_of(workplace))
    return dataset.images_NCHW.clone(), [dataset.class_names[label] for label in dataset.labels_N]


@pytest.mark.slow
def test_all_writes_five_forms_and_a_readme_and_says_what_each_came_to(workplace: Path, exported: Path) -> None:
    assert {path.name for path in exported.iterdir()} == FILES
    assert [path.name for path in exported.parent.iterdir()] == ["all"]
    lines = (workplace / "export.log").read_text(encoding="utf-8").splitlines()
    confirmed = study_of(workplace).confirmed
    assert confirmed is not None
    accuracy = confirmed.delivered_test_accuracy
    assert [line.partition(":")[0] for line in lines] == [
        str(Path("out") / "all" / one.file_name) for one in FORMATS.values()
    ]
    assert all(f"test accuracy {accuracy:.2%} ({round(accuracy * 360)} of 360 images)" in line for line in lines)


@pytest.mark.slow
def test_the_readmes_lines_name_the_same_classes_in_every_form_without_tuner(
    exported: Path, sealed: tuple[torch.Tensor, list[str]], tmp_path: Path
) -> None:
    folder = shutil.copytree(exported, tmp_path / "elsewhere")
    images_NCHW, truth = sealed
    torch.save(images_NCHW, folder / "images.pt")
    np.save(folder / "images.npy", images_NCHW.numpy())
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 5
    commands = [["-c", f"import sys\nsys.modules['tuner'] = None\nsys.path.insert(0, '')\n{code}"] for code in blocks]
    processes = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in [*commands, ["model.py"]]
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 6, outputs
    named = [eval(printed) for printed, _ in outputs[:5]] + [outputs[5][0].split()]
    assert all(classes == named[0] for classes in named)
    right = sum(one == other for one, other in zip(named[0], truth, strict=True))
    assert right / len(truth) == load_checkpoint(folder / "best.pt").scores["test_accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["best.pt", "best.safetensors", "best.onnx"])
def test_an_exported_file_scores_what_is_stored_in_it(workplace: Path, exported: Path, name: str) -> None:
    classifier = load_classifier(exported / name)
    evaluation = evaluate(classifier, spec_of(workplace), part="test")
    assert evaluation.accuracy == classifier.scores["test_accuracy"]
    assert evaluation.loss == pytest.approx(classifier.scores["test_loss"], rel=1e-4)
    assert evaluation.num_images == 360
    of_all = {part: evaluate(classifier, spec_of(workplace), part=part).num_images for part in ("train", "validation")}
    assert of_all == {"train": 1149, "validation": 288}
    of_training = {
        part: evaluate(classifier, spec_of(workplace), part=part).is_of_training
        for part in ("train", "validation", "test")
    }
    assert of_training == {"train": True, "validation": True, "test": False}  # a confirmed winner saw both


@pytest.mark.slow
def test_files_with_a_flip_test_score_exactly_what_evaluating_with_one_says(
    workplace: Path, exported: Path, tmp_path: Path
) -> None:
    done = run_tuner("export", "--format", "all", "--flip-test", "-o", tmp_path / "flipped", cwd=workplace)
    assert done.returncode == 0, done.stderr
    evaluation = evaluate(load_classifier(exported / "best.pt"), spec_of(workplace), flip_test=True)
    score = f"test accuracy {evaluation.accuracy:.2%} ({evaluation.num_correct} of 360 images)"
    own = load_checkpoint(exported / "best.pt").scores["test_accuracy"]
    without = f"test accuracy {own:.2%} ({round(own * 360)} of 360 images)"
    *lines, last = done.stdout.splitlines()
    assert len(lines) == 5
    assert all(score in line for line in lines)
    assert last == f"the scores are of the mean over each image and its mirror image; without: {without}"
    readme = (tmp_path / "flipped" / "README.md").read_text(encoding="utf-8")
    assert score in readme
    assert without in readme
    for name in ("best.pt", "best.safetensors", "best.onnx"):
        classifier = load_classifier(tmp_path / "flipped" / name)
        assert classifier.scores["test_accuracy"] == evaluation.accuracy
        assert classifier.scores["test_accuracy_without_flip_test"] == own
        found = evaluate(classifier, spec_of(workplace))
        assert (found.num_correct, found.class_accuracies) == (evaluation.num_correct, evaluation.class_accuracies)
    printed = run_tuner("evaluate", exported / "best.pt", "--dataset", "digits", "--flip-test", cwd=workplace)
    assert printed.stdout.startswith(f"digits, test: accuracy {evaluation.accuracy:.2%} ")
    assert printed.stdout.splitlines()[0].endswith(", with a flip test")


@pytest.mark.slow
def test_evaluate_prints_accuracy_loss_and_accuracy_by_class(
    workplace: Path, exported: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("evaluate", exported / "best.onnx", "--dataset", "digits")
    done = run_tuner(*arguments, "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    given = json.loads(done.stdout)
    assert (given["dataset"], given["part"], given["num_images"]) == ("digits", "test", 360)
    assert given["accuracy"] == given["num_correct"] / 360
    assert list(given["class_accuracies"]) == [str(digit) for digit in range(10)]
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", ["tuner", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 0
    words = capfd.readouterr().out
    assert words.startswith(f"digits, test: accuracy {given['accuracy']:.2%} ({given['num_correct']} of 360 ")
    assert f"  7: {given['class_accuracies']['7']:.2%}\n" in words


@pytest.mark.slow
def test_evaluate_takes_an_image_folder_and_matches_its_classes_by_name(
    exported: Path, sealed: tuple[torch.Tensor, list[str]], tmp_path: Path
) -> None:
    images_NCHW, truth = sealed
    for part in ("train", "test"):
        for row, name in enumerate(truth):
            if name in "357":
                path = tmp_path / "some" / part / name / f"{row}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images_NCHW[row, 0].numpy()).resize((16, 16), Image.Resampling.NEAREST).save(path)
    spec = tuner.DataSpec(str(tmp_path / "some"), tmp_path / "data", tmp_path / "cache")
    evaluation = evaluate(load_classifier(exported / "best.pt"), spec)
    assert evaluation.num_images == sum(name in "357" for name in truth)
    assert {name for name, accuracy in evaluation.class_accuracies.items() if accuracy is not None} == set("357")
    assert any("resized" in note for note in evaluation.notes)
    (tmp_path / "empty").mkdir()
    printed = run_tuner("evaluate", exported / "best.pt", "--dataset", tmp_path / "some", cwd=tmp_path / "empty")
    assert "resized to cover 8x8" in printed.stdout
    assert not list((tmp_path / "empty").iterdir())
    assert evaluation.accuracy > 0.7  # labels in the order of the folders, 0 to 2, would give next to nothing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "colour", "said"),
    [(("cat", "dog"), "L", "it does not know 'cat', 'dog'"), (("0", "1"), "RGB", "those of .* are in colour")],
)
def test_evaluate_refuses_images_that_are_not_of_the_networks_kind(
    exported: Path, tmp_path: Path, classes: tuple[str, str], colour: str, said: str
) -> None:
    for name in classes:
        for number in range(3):
            path = tmp_path / "pets" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new(colour, (8, 8), number if colour == "L" else (number, 9, 5)).save(path)
    spec = tuner.DataSpec(str(tmp_path / "pets"), tmp_path / "data", tmp_path / "cache")
    with pytest.raises(DataError, match=said) as caught:
        evaluate(load_classifier(exported / "best.pt"), spec)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_predict_goes_through_folders_and_prints_json(
    exported: Path, sealed: tuple[torch.Tensor, list[str]], tmp_path: Path
) -> None:
    images_NCHW, _ = sealed
    paths = [tmp_path / "in" / "b.png", tmp_path / "in" / "deep" / "er" / "a.png", tmp_path / "one.png"]
    for row, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images_NCHW[row, 0].numpy()).save(path)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / ".hidden.png").write_text("no image")
    done = run_tuner("predict", exported / "best.safetensors", "one.png", "in", "--json", "--top", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    given = json.loads(done.stdout)
    relative = [str(path.relative_to(tmp_path)) for path in (paths[2], paths[0], paths[1])]
    assert [one["image"] for one in given] == relative
    assert done.stderr == "files that are not used: 1 .txt\n"
    wanted = predict(load_checkpoint(exported / "best.pt"), [paths[2], paths[0], paths[1]], top=2)
    for one, prediction in zip(given, wanted, strict=True):
        assert one["classes"] == [name for name, _ in prediction.probabilities]
        assert one["probabilities"] == pytest.approx([share for _, share in prediction.probabilities], rel=1e-4)
        assert len(one["classes"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "{out}/best.pt2", "x.png"], "unpickles"),
        (["evaluate", "{out}/model.py", "--dataset", "digits"], "runs the code"),
        (["evaluate", "{out}/weights.pt", "--dataset", "digits"], "not a checkpoint of tuner"),
        (["evaluate", "{out}/best.pt", "--dataset", "digitz"], "did you mean 'digits'"),
        (["evaluate", "{out}/best.pt", "--dataset", "digits", "--part", "all"], "--part"),
        (["predict", "{out}/best.pt", "nowhere"], "there is no nowhere"),
        (["predict", "{out}/best.pt", "empty"], "empty holds none"),
        (["export", "--format", "jpeg"], "--format"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["tuner", *(argument.format(out=exported) for argument in arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capfd.readouterr()
    assert caught.value.code == 2
    assert said in printed.err
    assert len(printed.err.strip().splitlines()) == 1, printed.err
    assert not printed.out


def with_other_weights(one: Format, change: Callable[[str, torch.Tensor], torch.Tensor]) -> Format:
    """The format, if it wrote other weights than it was given."""

    def write(checkpoint: Checkpoint, path: Path, program: Program) -> None:
        weights = {name: change(name, weight) for name, weight in checkpoint.weights.items()}
        one.write(replace(checkpoint, weights=weights), path, program)

    return replace(one, write=write)


def rolled(_: str, weight: torch.Tensor) -> torch.Tensor:
    return weight.roll(1, 0) if weight.ndim == 2 else weight


def slightly_larger(_: str, weight: torch.Tensor) -> torch.Tensor:
    """By far less than it takes to change a class, and by more than rounding."""
    return weight * 1.0005 if weight.ndim == 2 else weight


@pytest.mark.slow
@pytest.mark.parametrize(
    ("format", "change", "said"),
    [
        ("pt", rolled, r"it classifies \d+ of 360 images correctly, and the network \d+; nothing was exported"),
        (
            "python",
            slightly_larger,
            r"its logits differ from the network's by up to [\d.e-]+, more than the [\d.e-]+ that",
        ),
        (
            "safetensors",
            slightly_larger,
            r"its logits differ from the network's by up to [\d.e-]+, more than the [\d.e-]+ that",
        ),
    ],
)
def test_a_form_that_comes_to_something_else_fails_with_both_numbers_and_leaves_nothing(
    workplace: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: FormatName,
    change: Callable[[str, torch.Tensor], torch.Tensor],
    said: str,
) -> None:
    monkeypatch.setitem(FORMATS, format, with_other_weights(FORMATS[format], change))
    with pytest.raises(CheckpointError, match=said):
        export(study_of(workplace), studies=workplace / "studies", output=tmp_path / "out", format=format)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_form_that_cannot_be_loaded_fails_with_the_reason_and_an_old_file_stays(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(checkpoint: Checkpoint, path: Path, program: Program) -> None:
        FORMATS["pt"].write(checkpoint, path, program)
        path.write_bytes(path.read_bytes()[:-100])

    monkeypatch.setitem(FORMATS, "safetensors", replace(FORMATS["safetensors"], write=write))
    path = tmp_path / "old.safetensors"
    path.write_text("as it was")
    with pytest.raises(CheckpointError, match=r"old\.safetensors was written, but cannot be used \(.*Error: "):
        export(study_of(workplace), studies=workplace / "studies", output=path, format="safetensors")
    assert path.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_a_score_that_the_network_does_not_come_to_is_refused_with_both_numbers(copied: Path, tmp_path: Path) -> None:
    study_of(copied).save_confirmed(None)
    summary = summarise(study_of(copied), studies=copied / "studies")
    assert summary.checkpoint is not None
    assert not export(study_of(copied), studies=copied / "studies", output=tmp_path / "b.pt").is_confirmed
    checkpoint = load_checkpoint(summary.checkpoint)
    scores = {**checkpoint.scores, "validation_accuracy": 288 / 288}
    save_checkpoint(replace(checkpoint, scores=scores), summary.checkpoint)
    with pytest.raises(
        CheckpointError,
        match=r"its score is|classifies \d+ of 288 validation images correctly, but its stored score is 288\.00",
    ):
        export(study_of(copied), studies=copied / "studies", output=tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()


def confirm(folder: Path) -> int:
    """Make the study's best network a confirmed one, with its own test score; how many images it gets right."""
    record = study_of(folder)
    summary = summarise(record, studies=folder / "studies")
    assert summary.checkpoint is not None
    checkpoint = load_checkpoint(summary.checkpoint)
    test = evaluate(classifier_from(checkpoint), spec_of(folder))
    scored = replace(checkpoint, scores={"test_accuracy": test.accuracy})
    save_checkpoint(scored, confirmed_path(folder / "studies" / record.name))
    assert record.confirmed is not None
    number = int(checkpoint.origin["trial"])
    record.save_confirmed(replace(record.confirmed, number=number, delivered_test_accuracy=test.accuracy))
    return test.num_correct


@pytest.mark.slow
def test_a_confirmed_winner_is_exported_and_checked_on_the_test_set(copied: Path) -> None:
    num_correct = confirm(copied)
    done = run_tuner("export", "-o", "best.pt", cwd=copied)
    assert done.returncode == 0, done.stderr
    assert f"test accuracy {num_correct / 360:.2%} ({num_correct} of 360 images)" in done.stdout
    assert "optimistic" not in done.stdout
    assert load_checkpoint(copied / "best.pt").scores == {"test_accuracy": num_correct / 360}
    confirmed_path(copied / "studies" / "digits-auto").unlink()
    with pytest.raises(
        CheckpointError, match="the checkpoint of the confirmed winner of study 'digits-auto' is not in"
    ):
        export(study_of(copied), studies=copied / "studies", output=copied / "again.pt")


def test_images_that_are_gone_or_have_changed_are_said_in_one_line(copied: Path) -> None:
    record, spec = study_of(copied), spec_of(copied)
    record.save_data_spec(replace(spec, image_size=(9, 9)))
    with pytest.raises(DataError, match="those of 'digits' have changed since"):
        export(record, studies=copied / "studies", output=copied / "a.pt")
    record.save_data_spec(replace(spec, dataset=str(copied / "gone")))
    with pytest.raises(DataError, match="gone does not exist"):
        export(record, studies=copied / "studies", output=copied / "a.pt")
    assert not (copied / "a.pt").exists()


@pytest.mark.parametrize(
    ("output", "format", "said"),
    [
        ("best.onnx", "pt", "ends with .pt; give --format onnx or another name"),
        ("best.pt", "onnx", "ends with .onnx; give --format pt or another name"),
        ("best.bin", "safetensors", "ends with .safetensors; give another name"),
        ("file", "pt", "writes a folder here, and this is a file"),
        ("file", "all", "writes a folder here, and this is a file"),
        ("new.pt", "all", "writes a folder; give a name without an ending"),
        ("new.py", "python", "writes a folder; give a name without an ending"),
        ("mine", "all", "the folder holds other things"),
        ("mine", "pt", "the folder holds other things.* or the name of a file"),
        ("file/in.pt", "pt", "cannot be written"),
    ],
)
def test_a_target_that_does_not_fit_is_refused_in_one_line(
    workplace: Path, tmp_path: Path, output: str, format: FormatName, said: str
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "README.md").write_text("mine")
    with pytest.raises(CheckpointError, match=re.escape(f"-o {tmp_path / output}: ") + ".*" + said):
        export(study_of(workplace), studies=workplace / "studies", output=tmp_path / output, format=format)
    assert (tmp_path / "mine" / "README.md").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"file", "mine"}


@pytest.mark.slow
def test_an_export_into_the_folder_of_an_older_one_leaves_what_its_readme_lists_and_the_users_own(
    workplace: Path, exported: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(exported, tmp_path / "again")
    (folder / "notes.txt").write_text("mine")
    done = run_tuner("export", "--format", "safetensors", "-o", folder, cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in folder.iterdir()} == {"best.safetensors", "README.md", "notes.txt"}
    removed = "best.pt, best.onnx, best.pt2, model.py, weights.pt"
    assert done.stdout.splitlines()[1] == f"{folder}: removed what an older export had left there: {removed}"


@pytest.mark.slow
def test_a_file_of_the_users_that_an_export_has_not_listed_stays(workplace: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    export(study_of(workplace), studies=workplace / "studies", output=folder)
    (folder / "model.py").write_text("mine")
    again = export(study_of(workplace), studies=workplace / "studies", output=folder)
    assert again.removed == ()
    assert (folder / "model.py").read_text() == "mine"


@pytest.mark.slow
def test_a_file_can_be_called_as_one_that_the_check_needs(workplace: Path, tmp_path: Path) -> None:
    for name in ("images.pt", "images.npy"):
        export(study_of(workplace), studies=workplace / "studies", output=tmp_path / name)
        assert load_checkpoint(tmp_path / name).origin["study"] == "digits-auto"
    assert {path.name for path in tmp_path.iterdir()} == {"images.pt", "images.npy"}


@pytest.mark.slow
def test_one_form_in_a_folder_has_a_readme_beside_it_and_can_be_written_again(workplace: Path, tmp_path: Path) -> None:
    for _ in range(2):
        export(study_of(workplace), studies=workplace / "studies", output=tmp_path / "new", format="safetensors")
        assert {path.name for path in (tmp_path / "new").iterdir()} == {"best.safetensors", "README.md"}
    readme = (tmp_path / "new" / "README.md").read_text(encoding="utf-8")
    assert 'safe_open("best.safetensors", framework="pt")' in readme
    assert "best.onnx" not in readme


def test_a_missing_package_is_named_before_anything_is_written(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InstallationError, match=r"--format onnx needs onnxscript, .*pip install 'tuner\[export\]'"):
        export(study_of(workplace), studies=workplace / "studies", output=tmp_path / "out", format="all")
    assert list(tmp_path.iterdir()) == []


def test_the_documents_list_every_format() -> None:
    document = (ROOT / "docs" / "exports.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in document for name in FORMATS)
