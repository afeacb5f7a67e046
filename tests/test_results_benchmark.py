"""The table of results: the search like Optuna's own example on digits, and rows that are read from stored studies."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import optuna
import pytest
import torch

from benchmarks import optuna_example
from benchmarks.cli import main
from benchmarks.example_result import ExampleResult, load_example, save_example
from benchmarks.result_row import HEADER
from tests.system.conftest import ROOT
from tuner.search.storage import open_storage
from tuner.search.study_location import DATABASE
from tuner.search.study_lookup import load_study

Benchmarks = Callable[..., int]
EXAMPLE = ExampleResult(
    dataset="digits",
    machine="a CPU",
    torch="2.14",
    optuna="5.0",
    minutes=3.0,
    seed=0,
    num_train=1149,
    num_validation=288,
    num_test=360,
    num_complete=9,
    num_pruned=4,
    seconds=185.4,
    best_trial=3,
    best_params={},
    num_parameters=125_371,
    validation_accuracy=0.98,
    test_accuracy=0.9722,
    test_interval=(0.95, 0.985),
)


@pytest.fixture
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> Benchmarks:
    """The command, run in this process, which has torch already; returns the exit code."""

    def run(*arguments: str | Path) -> int:
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0)

    return run


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    """A folder with a confirmed study on digits, `stored`."""
    return Path(shutil.copytree(ROOT / "tests" / "assets" / "study-1" / "studies", tmp_path / "studies"))


@pytest.mark.parametrize(
    ("image_shape", "most_blocks"), [((1, 8, 8), 3), ((1, 28, 28), 3), ((3, 32, 32), 3), ((3, 5, 9), 2), ((1, 2, 2), 1)]
)
def test_a_network_of_the_example_has_as_many_blocks_as_its_images_can_be_halved(
    image_shape: tuple[int, int, int], most_blocks: int
) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    params = {"num_blocks": most_blocks, "kernel_size_0": 5, "hidden_features": 32}
    study.enqueue_trial(params)
    trial = study.ask()
    model = optuna_example.define_model(trial, image_shape, 10)
    assert trial.distributions["num_blocks"].high == most_blocks  # type: ignore[attr-defined]
    assert sum(isinstance(layer, torch.nn.MaxPool2d) for layer in model) == most_blocks
    assert model(torch.zeros(2, *image_shape)).shape == (2, 10)


def test_the_example_searches_digits_and_scores_the_weights_of_its_best_trial(
    tmp_path: Path, benchmarks: Benchmarks, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(optuna_example, "EPOCHS", 1)
    monkeypatch.setattr(optuna_example, "num_cores", lambda: 1)  # the tests may share the cores with others
    file = tmp_path / "digits.json"
    folders = ("--data-dir", tmp_path, "--cache-dir", tmp_path / "cache")
    assert benchmarks("optuna-example", *folders, "--minutes", "0.02", "-o", file, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    result = load_example(file)
    assert printed == json.loads(json.dumps(asdict(result)))
    assert (result.num_train, result.num_validation, result.num_test) == (1149, 288, 360)  # those of a search
    assert result.num_complete >= 1
    low, high = result.test_interval
    assert low < result.test_accuracy < high
    # A share of whole images.
    assert result.test_accuracy * 360 == pytest.approx(round(result.test_accuracy * 360))
    best = optuna.trial.FixedTrial(result.best_params)
    model = optuna_example.define_model(best, (1, 8, 8), 10)
    assert result.num_parameters == sum(parameter.numel() for parameter in model.parameters())


def test_an_existing_file_is_not_overwritten(
    tmp_path: Path, benchmarks: Benchmarks, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "digits.json"
    file.touch()
    assert benchmarks("optuna-example", "-o", file) == 2
    assert "--output must be a new file" in capsys.readouterr().err
    assert file.read_text() == ""


def test_a_row_has_the_figures_of_the_study_and_of_the_example(
    tmp_path: Path, studies: Path, benchmarks: Benchmarks, capsys: pytest.CaptureFixture[str]
) -> None:
    save_example(EXAMPLE, tmp_path / "example.json")
    options = ("--studies", studies, "--budget", "3m", "--epochs", "2")
    assert benchmarks("results", "stored", *options, "--example", tmp_path / "example.json") == 0
    header, line, row = capsys.readouterr().out.splitlines()
    assert [header, line] == HEADER.splitlines()
    assert header.count("|") == line.count("|") == row.count("|")
    record = load_study(open_storage(f"sqlite:///{studies / DATABASE}"), "stored")
    confirmed = record.confirmed
    assert confirmed is not None
    assert confirmed.interval is not None
    winner = record.trials()[confirmed.number]
    assert f"| {confirmed.test_accuracy:.2%} ({confirmed.interval[0]:.2%} to " in row
    assert f"| {winner.num_parameters:,} |" in row
    assert "| 97.22% (95.00% to 98.50%) | 125,371 | 185 |" in row
    assert row.endswith("| `tuner run --dataset digits --space tiny.toml --budget 3m --epochs 2 --seed 0` |")


def test_several_studies_have_a_row_each_and_the_mean_of_their_accuracies(
    studies: Path, benchmarks: Benchmarks, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmarks("results", "stored", "stored", "--studies", studies, "--budget", "3m") == 0
    printed = capsys.readouterr().out
    record = load_study(open_storage(f"sqlite:///{studies / DATABASE}"), "stored")
    assert record.confirmed is not None
    assert printed.count("| - | - | - | `tuner run --dataset digits --space tiny.toml --budget 3m --seed 0` |") == 2
    assert printed.endswith(f"mean of the confirmed test accuracies: {record.confirmed.test_accuracy:.2%}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--budget", "3x"), "--budget must be a time"),
        (("--budget", "3m", "--epochs", "5"), "--epochs must be that of study 'stored', 2; got 5"),
        (("--budget", "3m", "--example", "of-mnist.json"), "data set of study 'stored', digits; got mnist"),
        (("--budget", "3m", "--example", "nothing.json"), "nothing.json: must be a file that `python -m benchmarks"),
        (
            ("--budget", "3m", "--example", "a", "--example", "b"),
            "once for each of the 1 studies, or not at all; got 2",
        ),
    ],
)
def test_a_row_that_would_be_wrong_is_refused(
    arguments: tuple[str, ...],
    message: str,
    studies: Path,
    benchmarks: Benchmarks,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(studies)
    save_example(replace(EXAMPLE, dataset="mnist"), Path("of-mnist.json"))
    Path("nothing.json").write_text("{}")
    assert benchmarks("results", "stored", "--studies", ".", *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_study_without_a_confirmation_has_no_row(
    studies: Path, benchmarks: Benchmarks, capsys: pytest.CaptureFixture[str]
) -> None:
    load_study(open_storage(f"sqlite:///{studies / DATABASE}"), "stored").save_confirmed(None)
    assert benchmarks("results", "stored", "--studies", studies, "--budget", "3m") == 2
    assert "a row needs a confirmed study; 'stored' is not: run `tuner confirm stored`" in capsys.readouterr().err
