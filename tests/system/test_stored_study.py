"""Stored studies, of this version and of each earlier format: every command reads them, and newer ones are refused."""

import json
import runpy
import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
import torch

from tests.system.conftest import ROOT, Tuner
from tuner.deliver.classifier import load_classifier
from tuner.search.record import StudyRecord
from tuner.search.settings import SETTINGS_FORMAT
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import create_study, load_study
from tuner.search.summary import summarise
from tuner.training.checkpoint import FORMAT
from tuner.training.engine import Engine

ASSETS = ROOT / "tests" / "assets"
FOLDERS = sorted(path.name for path in ASSETS.iterdir() if path.name.startswith("study-"))
TOLERANCE = 0.03
"""How far the accuracy of a retrained trial may be from the stored one, which another CPU has computed: 8 images of
288. Rounding decides the class of a few images, and on the same CPU the two are equal."""


@pytest.fixture(params=FOLDERS)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of a stored study, in a folder in which commands find it."""
    shutil.copytree(ASSETS / request.param, tmp_path, dirs_exist_ok=True)
    return tmp_path


def record_in(folder: Path) -> StudyRecord:
    return load_study(existing_storage(folder / "studies"), "stored")


def test_there_is_a_stored_study_of_this_format_and_it_is_small_and_names_no_folder_of_a_machine() -> None:
    assert f"study-{SETTINGS_FORMAT}" in FOLDERS
    files = [path for path in ASSETS.rglob("*") if path.is_file() and path.suffix in (".db", ".pt", ".pt2", ".onnx")]
    assert sum(path.stat().st_size for path in files) < 500_000 * len(FOLDERS)
    for path in files:
        data = path.read_bytes()
        of_a_machine = (tempfile.gettempdir(), str(Path.home()), "/home/", "site-packages")
        assert not any(name.encode() in data for name in of_a_machine), path


def test_a_stored_study_has_the_plain_engine_and_the_fingerprints_of_this_version(stored: Path) -> None:
    record = record_in(stored)
    assert record.engine == Engine()
    assert record.settings.dataset_digest == "89fd222693647c51fb077397899fbeee"  # of digits
    for trial in record.stored_trials():
        (read,) = [one for one in record.trials() if one.number == trial.number]
        assert read.candidate.fingerprint == trial.user_attrs["fingerprint"]


def test_a_stored_study_is_listed_shown_and_reported(stored: Path, tuner_here: Tuner) -> None:
    (listed,) = json.loads(tuner_here("list", "--json", cwd=stored).stdout)
    shown = json.loads(tuner_here("show", "stored", "--json", cwd=stored).stdout)
    for one in (listed, shown):
        assert (one["study"], one["dataset"], one["space"], one["trials"]["counted"]) == ("stored", "digits", "tiny", 4)
    summary = summarise(record_in(stored), studies=stored / "studies")
    assert summary.confirmed is not None
    assert shown["confirmed"]["test_accuracy"] == summary.confirmed.test_accuracy
    assert "confirmed.pt" in tuner_here("show", cwd=stored).stdout
    assert tuner_here("report", cwd=stored).returncode == 0
    page = (stored / "report.html").read_text(encoding="utf-8")
    assert f"{summary.confirmed.test_accuracy:.2%}" in page
    assert "the sealed test set" in page


def test_a_stored_study_resumes_by_its_name(stored: Path, tuner_here: Tuner) -> None:
    before = record_in(stored).trials()
    complete = tuner_here("run", "--study", "stored", "--workers", "1", cwd=stored)
    assert complete.returncode == 0, complete.stderr
    assert "study stored is complete: it has 4 trials" in complete.stdout
    assert "options taken from the study: --dataset digits --trials 4 --epochs 2 --seed 0" in (
        " ".join(complete.stdout.split())
    )
    one_more = tuner_here("run", "--study", "stored", "--trials", "5", "--no-confirm", "--workers", "1", cwd=stored)
    assert one_more.returncode == 0, one_more.stderr
    after = record_in(stored).trials()
    assert after[: len(before)] == before
    assert sum(trial.counts for trial in after) == 5
    assert not (stored / "data").exists()


def test_a_stored_trial_that_is_trained_again_reaches_its_stored_accuracy(stored: Path, tuner_here: Tuner) -> None:
    trial = summarise(record_in(stored), studies=stored / "studies").best
    assert trial is not None
    assert trial.validation_accuracy is not None
    trained = tuner_here("train", "--trial", str(trial.number), "--epochs", "2", "-o", "again.pt", cwd=stored)
    assert trained.returncode == 0, trained.stderr
    scores = load_classifier(stored / "again.pt").scores
    assert scores["validation_accuracy"] == pytest.approx(trial.validation_accuracy, abs=TOLERANCE)


@pytest.mark.slow
def test_a_stored_study_is_exported_in_every_format(stored: Path, tuner_here: Tuner) -> None:
    done = tuner_here("export", "--format", "all", "-o", "best", cwd=stored)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (stored / "best").iterdir()} == {path.name for path in (stored / "exports").iterdir()}


def test_every_stored_export_still_gives_the_same_logits(stored: Path) -> None:
    exports = stored / "exports"
    images_NCHW = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    wanted_NK = load_classifier(stored / "studies" / "stored" / "confirmed.pt").logits(images_NCHW)
    for name in ("best.pt", "best.safetensors", "best.onnx"):
        logits_NK = load_classifier(exports / name).logits(images_NCHW)
        torch.testing.assert_close(logits_NK, wanted_NK, rtol=1e-4, atol=1e-4)
    model = runpy.run_path(str(exports / "model.py"))["load"](exports / "weights.pt")
    program = torch.export.load(exports / "best.pt2").module()
    with torch.inference_mode():
        for network in (model, program):
            torch.testing.assert_close(network(images_NCHW), wanted_NK, rtol=1e-4, atol=1e-4)


STUDY, TRIAL = "study_user_attributes", "trial_user_attributes"


@pytest.mark.parametrize(
    ("table", "key", "what"),
    [
        (STUDY, "tuner:settings", "settings"),
        (STUDY, "tuner:engine", "engines"),
        (STUDY, "tuner:confirmed", "confirmations"),
        (TRIAL, "candidate", "candidates"),
    ],
)
def test_a_study_of_a_newer_format_is_refused_by_name_and_the_others_are_listed(
    tmp_path: Path, tuner_here: Tuner, table: str, key: str, what: str
) -> None:
    shutil.copytree(ASSETS / f"study-{SETTINGS_FORMAT}", tmp_path, dirs_exist_ok=True)
    record = record_in(tmp_path)
    create_study(record.storage, "other", record.settings, engine=record.engine)
    record.storage.engine.dispose()
    with sqlite3.connect(tmp_path / "studies" / "tuner.db") as database:
        condition = "key = ? AND json_extract(value_json, '$.format') = 1"
        changed = "value_json = json_set(value_json, '$.format', 2, '$.of_a_newer_version', 1)"
        if table == STUDY:
            condition += f" AND study_id = {record.study_id}"
        assert database.execute(f"UPDATE {table} SET {changed} WHERE {condition}", (key,)).rowcount > 0
    database.close()
    refused = tuner_here("run", "--study", "stored", "--workers", "1", "--no-confirm", cwd=tmp_path)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line == (
        f"tuner: error: study 'stored' was written by a newer version of tuner (format 2 of {what}, and this version "
        "reads format 1): use the newer version, or start another study with --study NAME"
    )
    listed = tuner_here("list", cwd=tmp_path)
    assert "other" in listed.stdout
    if what != "engines":  # a list shows nothing of them
        assert (listed.returncode, listed.stderr.strip()) == (2, line)


def test_a_checkpoint_of_a_newer_format_is_refused_by_name(tmp_path: Path, tuner_here: Tuner) -> None:
    shutil.copytree(ASSETS / f"study-{SETTINGS_FORMAT}", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "studies" / "stored" / "confirmed.pt"
    torch.save(torch.load(path, weights_only=True) | {"format": FORMAT + 1}, path)
    for command in (("export",), ("evaluate", path, "--dataset", "digits")):
        refused = tuner_here(*command, cwd=tmp_path)
        assert refused.returncode == 2
        (line,) = refused.stderr.splitlines()
        assert f"confirmed.pt: written by a newer version of tuner (format {FORMAT + 1} of checkpoints, " in line
    assert "stored" in tuner_here("list", cwd=tmp_path).stdout
