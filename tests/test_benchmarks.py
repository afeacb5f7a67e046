"""The benchmarks: what they print on tiny images of noise, and how they end when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import memory, throughput
from benchmarks.__main__ import main
from benchmarks.every_core import run_processes
from benchmarks.subset import Rows, SubsetTrainer, choose_rows
from benchmarks.throughput import networks
from tests.data.sample_data import write_mnist
from tuner.architecture.spec import InputSpec
from tuner.data.dataset import DataSpec
from tuner.data.sources import load_development
from tuner.errors import DataError, RunnerError
from tuner.space.schema import load_space
from tuner.training.candidate import Candidate
from tuner.training.engine import Engine

Printed = Callable[..., dict[str, Any]]
ROOT = Path(__file__).resolve().parents[1]
ROWS = Rows(tuple(range(30)), tuple(range(30, 40)))


class TakesItsProcessAlong:
    """A candidate that ends the process in which it arrives, as a killed one would."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return os._exit, (9,)


def listed(input_spec: InputSpec) -> list[Candidate]:
    space = load_space(str(Path(throughput.__file__).with_name("throughput.toml")))
    return networks(space, input_spec)


@pytest.fixture
def printed_by(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """The command, run in this process, which has torch already; what it prints with --json."""

    def run(*arguments: str | Path) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["benchmarks", *map(str, arguments), "--json"])
        with pytest.raises(SystemExit) as caught:
            main()
        assert caught.value.code == 0
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


@pytest.mark.parametrize(
    ("num_all", "num_images", "num_train", "num_validation"),
    [
        (60_000, 20_000, 20_000, 5_000),
        (60_000, 60_000, 55_000, 5_000),
        (7_291, 20_000, 6_075, 1_216),
        (7_291, 100, 100, 5_000),
        (1_437, 4_000, 1_197, 240),
        (120, 100, 100, 20),
    ],
)
def test_some_rows_are_always_left_to_score(num_all: int, num_images: int, num_train: int, num_validation: int) -> None:
    rows = choose_rows(num_all, num_images)
    assert (len(rows.train), len(rows.validation)) == (num_train, num_validation)
    chosen = {*rows.train, *rows.validation}
    assert len(chosen) == num_train + num_validation
    assert chosen <= set(range(num_all))
    assert choose_rows(num_all, num_images) == rows


def test_a_set_that_leaves_too_few_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match=r"at least 100 images .* of the 118 of this set 98 are, and 20 to score"):
        choose_rows(118, 100)


def test_throughput_takes_what_a_small_set_has_and_its_figures_agree(tmp_path: Path, printed_by: Printed) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", num_train=120)
    result = printed_by("throughput", "--data-dir", tmp_path, "--images", "60000", "--seeds", "1")
    ours = result["seconds_ours"]
    assert result["images"] == 100
    assert len(result["networks"]) == 12
    assert result["images_per_second_ours"] == pytest.approx(12 * 100 / ours)
    flops = sum(1e6 * row["training_mflop"] for row in result["networks"]) * 100
    assert flops / result["seconds_floor"] > 1e9  # of a second of any core's matrix products
    assert result["share_of_floor"] == pytest.approx(result["seconds_floor"] / ours)
    assert result["ratio_vs_textbook"] == pytest.approx(result["seconds_textbook"] / ours)
    if result["engine"]["device"] == "cpu":
        assert result["ratio_vs_best_textbook"] == pytest.approx(result["seconds_best_textbook"] / ours)
    assert isinstance(result["bf16_is_faster"], bool)
    assert 0 <= result["mean_accuracy_textbook"] < 0.5  # noise cannot be learned
    assert 0 <= result["mean_accuracy_ours"] < 0.5


def test_search_prints_what_both_came_to(tmp_path: Path, printed_by: Printed) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", num_train=120)
    result = printed_by("search", "--data-dir", tmp_path, "--trials", "2", "--epochs", "1", "--patience", "inf")
    assert result["textbook_finished"] is True
    assert result["ratio_seconds"] == pytest.approx(result["seconds_textbook"] / result["seconds_ours"])
    assert 0 < result["best_ours"] < 0.986
    assert 0 < result["best_textbook"] < 0.986
    assert result["first_ours"] is result["first_textbook"] is None  # the goal is not reached on noise


def test_overhead_tells_of_the_number_of_trials_asked_for(printed_by: Printed) -> None:
    result = printed_by("overhead", "--trials", "130")
    assert list(result) == [
        "ms_per_trial_up_to_100",
        "ms_per_trial_at_100",
        "ms_per_trial_up_to_130",
        "ms_per_trial_at_130",
    ]
    assert min(result.values()) > 0


def test_a_textbook_process_that_dies_as_it_starts_is_an_error(tmp_path: Path) -> None:
    candidates = listed(InputSpec(1, 28, 28, 10))
    with pytest.raises(RunnerError, match="must live until all networks are trained"):
        run_processes(candidates, tmp_path / "nothing", ROWS, dataset="mnist", num_processes=2)


def test_a_textbook_process_that_dies_at_work_is_an_error(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    candidates: list[Any] = [listed(InputSpec(1, 28, 28, 10))[0], TakesItsProcessAlong()]
    with pytest.raises(RunnerError, match="must live until all networks are trained"):
        run_processes(candidates, tmp_path, ROWS, dataset="mnist", num_processes=2)


def test_a_training_that_fails_under_the_memory_benchmark_is_an_error(tmp_path: Path) -> None:
    images = load_development(DataSpec("digits", tmp_path, tmp_path / "cache"))
    trainer = SubsetTrainer(images.folder, "memory", tmp_path / "checkpoints", 0, Engine(), rows=ROWS)
    coloured = listed(InputSpec(3, 8, 8, 10))[0]  # and digits are grey
    with pytest.raises(RunnerError, match="ended with exit code 1: what it printed is above"):
        memory.train_in_a_process(trainer, [coloured])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("throughput --images 99", "'--images'"),
        ("throughput --seeds 0", "'--seeds'"),
        ("throughput --dataset nix", "'nix' is none of mnist, "),
        ("throughput --engine foo=bar", "engine: 'foo' is no choice on "),
        ("throughput --data-dir /proc/nix", "mnist needs files that are not there"),
        ("search --trials 0", "'--trials'"),
        ("search --epochs 0", "'--epochs'"),
        ("search --patience 0", "'--patience': must be a number above 0, got '0'"),
        ("search --patience nan", "'--patience': must be a number above 0, got 'nan'"),
        ("search --data-dir /proc/nix", "mnist needs files that are not there"),
        ("overhead --trials 99", "'--trials'"),
        ("start --runs 0", "'--runs'"),
        ("memory --images 0", "'--images'"),
        ("memory --dataset nix", "'nix' is neither: did you mean 'mnist'?"),
        ("nix", "No such command 'nix'"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    arguments: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmarks", *arguments.split()])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("benchmarks: error: ")
    assert message in lines[-1]
    assert not [line for line in lines[:-1] if "rror" in line or "Traceback" in line]


def test_the_real_command_ends_in_the_same_line() -> None:
    command = [sys.executable, "-m", "benchmarks", "memory", "--dataset", "nix"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("benchmarks: error: --dataset must be a known name")
    assert done.stderr.count("\n") == 1
