"""Runs and the command `check` on data sets with faults."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tuner.cli import main
from tuner.data.reading import Reading
from tuner.deliver.classifier import load_classifier
from tuner.deliver.evaluate import evaluate
from tuner.deliver.predict import predict
from tuner.errors import DataError, OptionError, StudyError
from tuner.options import RunOptions
from tuner.pipeline import load_summary, run, run_events
from tuner.search.events import DataReady
from tuner.search.record import SETTINGS
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import load_study
from tuner.ui.report import write_report
from tuner.ui.winner_lines import winner_lines

SPACE = "[block]\nout_channels = [4]\n[recipe]\nlearning_rate = [0.01]\nbatch_size = [16]\n"


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.search.study_runners.num_cores", lambda: 1)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Noise in two classes, whose test images are all training images too, and two files that are not images."""
    root = tmp_path / "pets"
    for label, name in enumerate(("ant", "bee")):
        (root / "train" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng(100 * label + number).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "train" / name / f"{number:02}.png")
    shutil.copytree(root / "train", root / "test")
    (root / "train" / "ant" / "one.HEIC").write_bytes(b"x")
    (root / "readme.md").write_text("x")
    (tmp_path / "tiny.toml").write_text(SPACE, encoding="utf-8")
    return root


def options_of(root: Path, **changes: Any) -> RunOptions:
    defaults = {"trials": 1, "epochs": 1, "workers": 1, "device": "cpu", "confirm": "no"}
    folder = root.parent
    return RunOptions(str(root), space=str(folder / "tiny.toml"), studies=folder / "studies", **(defaults | changes))


def test_a_set_whose_scores_mean_nothing_is_refused_before_there_is_a_study(pets: Path) -> None:
    with pytest.raises(DataError, match=r"24 of the 24 test images .* \(--allow duplicates\)"):
        next(run_events(options_of(pets)))
    with pytest.raises(DataError, match="--allow duplicates"):
        next(run_events(options_of(pets, allow=("labels", "constant"))))
    assert not (pets.parent / "studies" / "tuner.db").exists()
    with pytest.raises(OptionError, match=r"allow must be .*'duplicates', 'constant', 'labels', got \('all',\)"):
        next(run_events(options_of(pets, allow=("all",))))


def test_what_is_allowed_is_stored_and_kept_when_the_study_resumes(pets: Path) -> None:
    first = next(event for event in run_events(options_of(pets, allow=("duplicates",))) if isinstance(event, DataReady))
    assert first.checks is not None
    assert first.checks.problems == ("duplicates",)
    resumed = options_of(pets, trials=2)
    ready = next(event for event in run_events(resumed) if isinstance(event, DataReady))
    assert any("--allow duplicates" in note for note in ready.notes)
    run(options_of(pets, trials=2, allow=("labels",)))
    summary = load_summary(resumed)
    assert summary.checks is not None
    assert summary.to_json()["checks"]["test_in_development"] == 24
    assert summary.to_json()["checks"]["unused"] == {".heic": 1, ".md": 1}
    record = load_study(existing_storage(resumed.studies))
    page = pets.parent / "page.html"
    write_report(record, studies=resumed.studies, output=page)
    assert "pixel for pixel (allowed by --allow duplicates)" in page.read_text(encoding="utf-8")
    assert next(run_events(resumed)).checks is not None  # type: ignore[union-attr]


def test_uneven_depth_images_are_scored_by_class_and_read_alike_from_training_to_prediction(tmp_path: Path) -> None:
    root = tmp_path / "depth"
    for part, counts in (("train", (60, 8)), ("test", (20, 3))):
        for label, (name, count) in enumerate(zip(("far", "near"), counts, strict=True)):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                random = np.random.default_rng(1000 * label + number + 500 * (part == "test"))
                levels_HW = random.integers(1000, 1120, (8, 8)).astype(np.uint16)
                Image.fromarray(levels_HW).save(root / part / name / f"{number:02}.png")
    (tmp_path / "tiny.toml").write_text(SPACE, encoding="utf-8")
    options = options_of(root, confirm="in time")
    summary = run(options)
    found = summary.confirmed
    assert found is not None
    assert found.class_scores is not None
    assert summary.delivered is not None
    assert (found.class_scores.largest_class, found.class_scores.largest_share) == ("far", 20 / 23)
    assert summary.best_class_scores is not None
    assert summary.best_class_scores.are_uneven
    classifier = load_classifier(summary.delivered)
    assert classifier.preprocessing.reading == Reading((1000, 1119))
    evaluation = evaluate(classifier, options.data_spec)
    assert evaluation.accuracy == found.delivered_test_accuracy
    recalls = [recall for recall in evaluation.class_accuracies.values() if recall is not None]
    assert evaluation.class_scores is not None
    assert evaluation.class_scores.balanced_accuracy == pytest.approx(sum(recalls) / 2)
    right = [
        predict(classifier, [path], top=1)[0].probabilities[0][0] == path.parent.name
        for path in sorted((root / "test").rglob("*.png"))
    ]
    assert sum(right) == evaluation.num_correct
    said = "\n".join(winner_lines(summary))
    assert "test     balanced accuracy " in said
    assert "; the largest class, 'far', has 86.96% of the test images" in said
    for name in found.class_scores.unrecognised:
        assert f"class {name!r} is never recognised" in said
    record = load_study(existing_storage(options.studies))
    write_report(record, studies=options.studies, output=tmp_path / "page.html")
    assert "<dt>balanced accuracy</dt>" in (tmp_path / "page.html").read_text(encoding="utf-8")
    record.storage.set_study_user_attr(record.study_id, SETTINGS, record.settings.to_json() | {"levels": [0, 65535]})
    with pytest.raises(StudyError, match=r"grey values .* scaled from 0\.\.65535, and would now be from 1000\.\.1119"):
        run(options)


def test_a_test_part_of_one_class_has_its_baseline_beside_every_score(tmp_path: Path) -> None:
    """Bright and dark images, which are told apart at once."""
    random = np.random.default_rng(0)
    train, test = ({"dark": random.integers(0, 60, (count, 8, 8), dtype=np.uint8)} for count in (40, 20))
    train["light"] = random.integers(196, 256, (40, 8, 8), dtype=np.uint8)
    path = tmp_path / "one.npz"
    images = np.concatenate([train["dark"], train["light"]])
    labels = np.repeat([0, 1], 40)
    np.savez(
        path,
        train_images=images,
        train_labels=labels,
        test_images=test["dark"],
        test_labels=np.zeros(20, np.int64),
        class_names=np.array(["dark", "light"]),
    )
    (tmp_path / "tiny.toml").write_text(SPACE, encoding="utf-8")
    summary = run(options_of(path, confirm="in time", epochs=3))
    found = summary.confirmed
    assert found is not None
    assert found.test_accuracy == 1.0
    assert found.class_scores is not None
    assert found.class_scores.missing == ("light",)
    said = "\n".join(winner_lines(summary))
    assert "; the largest class, 'dark', has 100.00% of the test images" in said
    assert "class 'light' has no test images, so the accuracy says nothing about it" in said
    assert summary.delivered is not None
    scores = evaluate(load_classifier(summary.delivered), options_of(path).data_spec).class_scores
    assert scores == found.class_scores
    assert summary.best_class_scores is not None
    assert not summary.best_class_scores.are_uneven


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["tuner", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    code = caught.value.code
    assert isinstance(code, int)
    return code


def test_check_prints_everything_and_fails_on_what_is_not_allowed(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pets.parent)
    assert call(monkeypatch, "check", "--dataset", "pets") == 2
    printed = capfd.readouterr()
    assert printed.out.splitlines() == [
        "pets: 24 training and validation images, 24 test images, 2 classes",
        "each of the 2 classes has the same number of training and validation images",
        "24 of the 24 test images (100.0%) are also among the training and validation images, pixel for pixel "
        "(an error without --allow duplicates)",
        "files that are not used: 1 .heic, 1 .md",
        "images are grey (1 channel), 8x8 pixels (height x width)",
    ]
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("tuner: error: scores must say something about new images; those of pets would not")
    assert call(monkeypatch, "check", "--dataset", "pets", "--allow", "duplicates", "--allow", "labels", "--json") == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["dataset"], found["problems"], found["test_in_development"]) == ("pets", ["duplicates"], 24)
    assert call(monkeypatch, "check", "--dataset", "pets", "--allow", "everything") == 2
    assert "allow must be" in capfd.readouterr().err
    assert not (pets.parent / "studies").exists()


def test_check_and_run_take_the_columns_and_groups_of_a_table_and_what_is_allowed(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(pets.parent)
    rows = ["where,kind,fold,patient"]
    for number, path in enumerate(sorted(pets.rglob("*.png"))):
        part, kind = path.relative_to(pets).parts[:2]
        rows.append(f"pets/{path.relative_to(pets).as_posix()},{kind},{part},{part}{number}")
    Path("pets.csv").write_text("\n".join(rows), encoding="utf-8")
    columns = ("--image-column", "where", "--label-column", "kind", "--split-column", "fold")
    call_check = ("check", "--dataset", "pets.csv", *columns, "--group-column", "patient")
    assert call(monkeypatch, *call_check) == 2
    assert "(--allow duplicates)" in capfd.readouterr().err
    assert call(monkeypatch, *call_check, "--allow", "duplicates") == 0
    printed = capfd.readouterr().out
    assert "24 of the 24 test images (100.0%)" in printed
    assert "files that are not used: 1 .heic" in printed
    assert "the images are in 48 groups" in printed
    given = ("--studies", "studies", "--space", "tiny.toml", "--trials", "1", "--epochs", "1", "--device", "cpu")
    run_once = ("run", "--dataset", "pets.csv", *columns, "--group", r"^pets/(\w+/\w+/\d+)", *given, "--workers", "1")
    assert call(monkeypatch, *run_once, "--no-confirm") == 2
    assert "(--allow duplicates)" in capfd.readouterr().err
    assert call(monkeypatch, *run_once, "--no-confirm", "--allow", "duplicates") == 0
    record = load_study(existing_storage(Path("studies")))
    assert record.checks is not None
    assert record.checks.unused == {".heic": 1}
    assert record.data_spec(Path("cache")).group == r"^pets/(\w+/\w+/\d+)"
