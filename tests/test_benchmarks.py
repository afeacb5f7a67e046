"""The benchmarks: what they print on tiny images of noise, and how they end when something is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from torchvision import datasets, transforms

from benchmarks import convolutions, memory, start, throughput
from benchmarks.cli import main
from benchmarks.every_core import run_processes
from benchmarks.subset import Rows, SubsetTrainer, choose_rows
from benchmarks.textbook import DecodedImages, train_textbook
from benchmarks.throughput import load_list, networks
from tests.data.sample_data import write_mnist
from tuner.architecture.cost import network_cost
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.parts import layers_of
from tuner.architecture.spec import InputSpec
from tuner.architecture.trace import trace
from tuner.data.dataset import DataSpec
from tuner.data.development_part import load_development
from tuner.errors import DataError, RunnerError
from tuner.interrupts import EXIT_CODE, LINE_RESTART
from tuner.search.executors import InProcess
from tuner.training.candidate import Candidate
from tuner.training.engine import Engine

Printed = Callable[..., dict[str, Any]]
ROOT = Path(__file__).resolve().parents[1]
ROWS = Rows(tuple(range(30)), tuple(range(30, 40)))


class TakesItsProcessAlong:
    """A candidate that ends the process in which it arrives, as a killed one would."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return os._exit, (9,)


def listed(input_spec: InputSpec, *, name: str = "plain") -> list[Candidate]:
    return networks(load_list(name), input_spec)


def noise_folder(root: Path, *, num_train: int) -> Path:
    """An image folder of two classes with coloured images of noise, 32x32 pixels."""
    random = np.random.default_rng(0)
    for part, count in (("train", num_train // 2), ("test", 5)):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels_HWC = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels_HWC).save(root / part / name / f"{number}.png")
    return root


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_throughput_of_the_residual_list_reads_an_image_folder_and_its_figures_agree(
    tmp_path: Path, printed_by: Printed
) -> None:
    folder = noise_folder(tmp_path / "noise", num_train=120)
    result = printed_by("throughput", "--list", "residual", "--dataset", folder, "--images", "100", "--seeds", "1")
    rows = result["networks"]
    convolutions, ours = [sum(row[key] for row in rows) for key in ("seconds_in_convolutions", "seconds_ours")]
    assert result["list"] == "residual"
    assert result["images"] == 100
    assert len(rows) == 8
    assert result["share_in_convolutions"] == pytest.approx(convolutions / ours)
    for row in rows:
        assert row["share_in_convolutions"] == pytest.approx(row["seconds_in_convolutions"] / row["seconds_ours"])
    if result["engine"]["device"] == "cpu":
        bound = result["ratio_if_only_convolutions"] * result["share_in_convolutions"]
        assert bound == pytest.approx(result["evenly_best_textbook"] / result["evenly_ours"])
        assert min(row["ratio_vs_best_textbook"] for row in rows) > 0


def test_the_residual_list_has_four_residual_and_four_mobile_networks() -> None:
    architectures = [one.architecture for one in listed(InputSpec(3, 32, 32, 10), name="residual")]
    are_mobile = ["inverted" in str(one) for one in architectures]
    assert are_mobile == [False] * 4 + [True] * 4
    assert all("residual" in str(one) for one in architectures[:4])
    words = " ".join(map(str, architectures)).split()
    assert {"gn", "bn", "k3", "k5", "pre-residual", "projection", "max2", "average2", "se4", "se8"} <= {*words}


@pytest.mark.parametrize("name", ["plain", "residual"])
def test_the_networks_that_start_the_runners_are_small_and_of_the_space(name: str) -> None:
    space = throughput.small(load_list(name), 3)
    candidates = networks(space, InputSpec(3, 32, 32, 10))
    assert len({one.fingerprint for one in candidates}) == 3
    assert max(network_cost(trace(one.architecture)).num_parameters for one in candidates) < 300_000


def test_the_textbook_is_served_the_images_and_labels_of_torchvision(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw", num_train=120)
    served = DecodedImages(load_development(DataSpec("mnist", tmp_path, tmp_path / "cache")).folder)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    expected = datasets.MNIST(tmp_path, train=True, transform=transform)
    assert len(served) == len(expected) == 120
    for row in (0, 57, 119):
        assert torch.equal(served[row][0], expected[row][0])
        assert served[row][1] == expected[row][1]


def test_the_textbook_trains_networks_with_shortcuts(tmp_path: Path) -> None:
    folder = noise_folder(tmp_path / "noise", num_train=40)
    images = load_development(DataSpec(str(folder), tmp_path, tmp_path / "cache"))
    for number in (0, 6):
        candidate = listed(InputSpec(3, 32, 32, 2), name="residual")[number]
        ((seconds, accuracy),) = train_textbook(candidate, images.folder, ROWS, seed=0, device=torch.device("cpu"))
        assert seconds > 0
        assert 0 <= accuracy <= 1


def test_the_convolutions_of_an_epoch_are_timed_for_its_number_of_images(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = listed(InputSpec(3, 32, 32, 10), name="residual")[0]
    timed: list[tuple[Layer, bool]] = []

    def note(layer: Layer, candidate: Candidate, *, engine: Engine, is_first: bool) -> float:
        timed.append((layer, is_first))
        return 1.0

    assert convolutions.step_seconds(conv_layers(candidate)[0], candidate, engine=Engine(), is_first=True) > 0
    monkeypatch.setattr(convolutions, "step_seconds", note)
    seconds = convolutions.seconds_in_convolutions(candidate, engine=Engine(), num_images=640)
    assert seconds == len(conv_layers(candidate)) * 640 / 64
    assert [is_first for _, is_first in timed] == [True] + [False] * (len(timed) - 1)
    assert len(timed) < len(conv_layers(candidate))  # equal layers are timed once


def conv_layers(candidate: Candidate) -> list[Layer]:
    return [layer for layer in layers_of(trace(candidate.architecture)) if layer.kind == "Conv2d"]


@pytest.mark.slow
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


@pytest.mark.slow
def test_memory_tells_what_each_network_added_at_its_peak_and_what_stayed(tmp_path: Path, printed_by: Printed) -> None:
    result = printed_by("memory", "--data-dir", tmp_path, "--dataset", "digits", "--images", "100")
    added = [row["mib"] for row in result["networks"]]
    assert len(added) == 12
    assert min(added) > 0
    assert result["largest_mib"] == max(added)
    assert result["kept_mib"] > 0
    assert result["base_mib"] == max(row["base_mib"] for row in result["networks"]) > 0
    assert result["largest_share_of_estimate"] == max(row["mib"] / row["estimate_mib"] for row in result["networks"])


@pytest.mark.slow
def test_recipe_compares_each_addition_with_the_base_recipe(tmp_path: Path, printed_by: Printed) -> None:
    folder = noise_folder(tmp_path / "noise", num_train=120)
    arguments = ("--dataset", folder, "--images", "100", "--epochs", "1", "--seeds", "2", "--only", "ema,muon")
    result = printed_by("recipe", *arguments)
    rows = {row["name"]: row for row in result["recipes"]}
    assert list(rows) == ["base", "flip test", "ema", "muon"]
    assert rows["muon"]["recipe"] == {"optimizer": "muon", "learning_rate": 0.01, "weight_decay": 0.05, "epochs": 1}
    for row in rows.values():
        assert row["accuracy"] == pytest.approx(sum(row["accuracy_by_seed"]) / 2)
        assert row["difference"] == pytest.approx(row["accuracy"] - rows["base"]["accuracy"])
        assert row["ratio_of_seconds"] == pytest.approx(row["seconds"] / rows["base"]["seconds"])
        assert row["interval"][0] <= row["accuracy"] <= row["interval"][1]
    assert rows["base"]["difference_interval"] is None


def processes_with(cache_dir: Path) -> list[int]:
    """Those that were started with this folder for what the tuner keeps."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_one = process.environ().get("TUNER_CACHE_DIR") == str(cache_dir)
            found += [process.pid] * (is_one and process.status() != psutil.STATUS_ZOMBIE)
    return found


@pytest.mark.slow
def test_start_tells_the_seconds_of_both_kinds(printed_by: Printed) -> None:
    result = printed_by("start", "--runs", "1")
    commands = [f"seconds_{name}" for name in start.COMMANDS]
    assert list(result) == ["seconds_first_start", "seconds_second_start", *commands]
    assert min(result.values()) > 0


@pytest.mark.slow
def test_a_start_leaves_nothing_behind_that_trains(tmp_path: Path) -> None:
    assert start.seconds_to_first_epoch(tmp_path, studies=tmp_path / "studies") > 0
    assert processes_with(tmp_path) == []


@pytest.mark.slow
def test_a_run_that_ends_before_its_first_epoch_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunnerError, match="ended before, with exit code 2: what it printed is above"):
        start.seconds_to_first_epoch(tmp_path, studies=tmp_path / "file")


@pytest.mark.slow
def test_a_textbook_process_that_dies_as_it_starts_is_an_error(tmp_path: Path) -> None:
    candidates = listed(InputSpec(1, 28, 28, 10))
    with pytest.raises(RunnerError, match="must live until all networks are trained"):
        run_processes(candidates, tmp_path / "nothing", ROWS, num_processes=2)


@pytest.mark.slow
def test_a_textbook_process_that_dies_at_work_is_an_error(tmp_path: Path) -> None:
    images = load_development(DataSpec("digits", tmp_path, tmp_path / "cache"))
    candidates: list[Any] = [listed(InputSpec(1, 8, 8, 10))[0], TakesItsProcessAlong()]
    with pytest.raises(RunnerError, match="must live until all networks are trained"):
        run_processes(candidates, images.folder, ROWS, num_processes=2)


def test_a_training_that_fails_under_the_memory_benchmark_is_an_error(tmp_path: Path) -> None:
    images = load_development(DataSpec("digits", tmp_path, tmp_path / "cache"))
    trainer = SubsetTrainer(images.folder, "memory", tmp_path / "checkpoints", 0, Engine(), rows=ROWS)
    coloured = listed(InputSpec(3, 8, 8, 10))[0]  # and digits are grey
    with pytest.raises(RunnerError, match="ended with exit code 1: what it printed is above"):
        memory.train_in_a_process(trainer, [coloured])


def test_a_training_that_fails_under_the_throughput_benchmark_is_an_error(tmp_path: Path) -> None:
    images = load_development(DataSpec("digits", tmp_path, tmp_path / "cache"))
    trainer = SubsetTrainer(images.folder, "throughput", tmp_path / "checkpoints", 0, Engine(), rows=ROWS)
    space = throughput.small(load_list("plain"), 1)
    coloured = InputSpec(3, 8, 8, 10)  # and digits are grey
    with pytest.raises(
        RunnerError, match="the first 5 trials all failed in the same way in their first epoch: RuntimeError"
    ):
        throughput.run_ours(InProcess(trainer), space, coloured, tmp_path / "run", 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("throughput --images 99", "'--images'"),
        ("throughput --seeds 0", "'--seeds'"),
        ("throughput --dataset nix", "'nix' is neither: did you mean 'mnist'?"),
        ("throughput --list nix", "'--list'"),
        ("throughput --engine foo=bar", "engine: 'foo' is no choice on "),
        ("throughput --data-dir /proc/nix", "mnist needs files that do not exist"),
        ("search --trials 0", "'--trials'"),
        ("search --epochs 0", "'--epochs'"),
        ("search --patience 0", "'--patience': must be a number above 0, got '0'"),
        ("search --patience nan", "'--patience': must be a number above 0, got 'nan'"),
        ("search --data-dir /proc/nix", "mnist needs files that do not exist"),
        ("overhead --trials 99", "'--trials'"),
        ("start --runs 0", "'--runs'"),
        ("memory --images 0", "'--images'"),
        ("memory --dataset nix", "'nix' is neither: did you mean 'mnist'?"),
        ("recipe --seeds 0", "'--seeds'"),
        ("recipe --only nix", "'--only': 'nix' is none of base, warm-up, "),
        ("recipe --dataset nix", "'nix' is neither: did you mean 'mnist'?"),
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


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no disk that is always full")
def test_what_cannot_be_written_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "benchmarks", "start", "--help"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.stderr, done.returncode) == ("benchmarks: error: [Errno 28] No space left on device\n", 2)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the processes are others")
@pytest.mark.parametrize(
    ("arguments", "last_line", "num_processes"),
    [
        ("throughput --images 100 --seeds 1", "(c) ours, seed 0", 3),
        ("search --trials 4 --epochs 1 --patience inf", "textbook ", 0),
        ("start", "run 1, first start", 3),
        ("memory --images 100 --dataset digits", "engine ", 3),
    ],
)
def test_an_interrupt_is_one_line_and_leaves_nothing_that_trains(
    arguments: str, last_line: str, num_processes: int, tmp_path: Path
) -> None:
    """All processes of the terminal's group hear it, once those that train are there, beside two that make them."""
    write_mnist(tmp_path / "MNIST" / "raw", num_train=120)
    command = [sys.executable, "-m", "benchmarks", *arguments.split()]
    if not arguments.startswith("start"):
        command += ["--data-dir", str(tmp_path)]
    environment = {**os.environ, "TUNER_CACHE_DIR": str(tmp_path / "cache")}
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith(last_line):
                break
        while process.poll() is None and len(psutil.Process(process.pid).children(recursive=True)) < num_processes:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stderr.read() == f"{LINE_RESTART}\n"
        assert process.wait() == EXIT_CODE
    until = time.monotonic() + 10  # the process that makes others ends by itself when it has nobody to make them for
    while time.monotonic() < until and processes_with(tmp_path / "cache"):
        time.sleep(0.05)
    assert processes_with(tmp_path / "cache") == []
