"""`tuner train` as a user types it, on a finished study."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

import tuner
from tests.system.conftest import run_tuner
from tuner.cli import main
from tuner.deliver.classifier import load_classifier
from tuner.deliver.evaluate import evaluate
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import load_study
from tuner.training.checkpoint import load_checkpoint


@pytest.fixture
def copied(workplace: Path, tmp_path: Path) -> Path:
    """A copy of the study, to be trained in."""
    shutil.copytree(workplace / "studies", tmp_path / "studies")
    return tmp_path


@pytest.mark.slow
def test_the_trial_that_the_search_trained_least_is_trained_longer_and_its_file_is_one_that_every_command_takes(
    copied: Path,
) -> None:
    record = load_study(existing_storage(copied / "studies"))
    number = min(record.trials(), key=lambda trial: len(trial.curve)).number
    done = run_tuner("train", "digits-auto", "--trial", str(number), "--epochs", "3", cwd=copied)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "digits: 1,149 images to train on, 288 to validate; device cpu"
    assert lines[1].startswith(f"study digits-auto: trial {number} for 3 epochs: ")
    epochs = [re.match(r"\[(\d)/3\] ([\d.]+%) validation accuracy", line) for line in lines[2:5]]
    assert [match and match.group(1) for match in epochs] == ["1", "2", "3"]
    file = copied / "studies" / "digits-auto" / f"trained-{number:05}.pt"
    checkpoint = load_checkpoint(file)
    accuracy = checkpoint.scores["validation_accuracy"]
    best = checkpoint.origin["epoch"]
    assert isinstance(best, int)
    assert f"score    {accuracy:.2%} validation accuracy at epoch {best}, the best of 3" in done.stdout
    assert f"[{best}/3] {accuracy:.2%} " in done.stdout
    assert "the test set stays sealed" in done.stdout
    assert f"file     {file.relative_to(copied)}" in done.stdout
    assert set(checkpoint.scores) == {"validation_accuracy", "validation_loss"}
    spec = record.data_spec(copied / "studies" / ".cache")
    assert evaluate(load_classifier(file), spec, part="validation").accuracy == accuracy
    assert tuner.load_model(file)(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_quiet_it_says_nothing_and_writes_the_file_asked_for(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(copied)
    monkeypatch.setattr("tuner.cli.options._notes", [])  # those of commands that other tests have run
    monkeypatch.setattr(
        sys, "argv", ["tuner", "train", "digits-auto", "--trial", "0", "--epochs", "1", "-q", "-o", "my.pt"]
    )
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capfd.readouterr()
    assert (caught.value.code, printed.out, printed.err) == (0, "", "")
    assert load_checkpoint(copied / "my.pt").candidate.recipe.epochs == 1
    assert not list(copied.glob("studies/digits-auto/trained-*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["digits-auto", "--trial", "99", "--epochs", "5"], "no trial 99"),
        (["nothing", "--trial", "0", "--epochs", "5"], "no study 'nothing'"),
        (["digits-auto", "--trial", "0", "--epochs", "0"], "--epochs"),
        (["digits-auto", "--trial", "0"], "--epochs"),
        (["digits-auto", "--epochs", "5"], "--trial"),
        (["digits-auto", "--trial", "0", "--epochs", "5", "-o", "run.log"], "-o run.log: already exists"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "argv", ["tuner", "train", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capfd.readouterr()
    assert caught.value.code == 2
    assert said in printed.err
    assert len(printed.err.strip().splitlines()) == 1, printed.err
    assert not printed.out
