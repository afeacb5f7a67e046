"""Ctrl-C, wherever it hits, and processes that cannot start: one line each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from tuner.architecture.backbones import build_backbone
from tuner.interrupts import EXIT_CODE, LINE, LINE_RESTART

pytestmark = pytest.mark.slow

HALF_IMPORTED = """
import signal
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    raise ImportError("what an interrupt becomes in the middle of an import") from None
"""
WITHIN_A_CALLBACK = """
import signal
import sys
import time
import weakref

from tuner import interrupts

class Anything:
    pass

interrupts.leave_at_once()
interrupts.leave_in_order()
anything = Anything()
reference = weakref.ref(anything, lambda _: signal.raise_signal(signal.SIGINT))
try:
    del anything
    time.sleep(3600)
except KeyboardInterrupt:
    interrupts.end()
"""
WITHIN_THE_HOOK = WITHIN_A_CALLBACK.replace(
    "anything = Anything()",
    """
hook = sys.unraisablehook

def press_again(frame, event, _):
    if frame.f_code is hook.__code__ and event == "call":
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)

sys.setprofile(press_again)
anything = Anything()
""",
)
FAILS_IN_A_CALLBACK = """
from tuner import interrupts

class Fails:
    def __del__(self):
        raise OSError("of a finalizer")

interrupts.leave_at_once()
interrupts.leave_in_order()
Fails()
"""
TRAINS_FOR_AN_HOUR = """
import os
import time

from tuner.search.executors import LocalProcesses
from tuner.search.tasks import SearchTask

def train(task):
    print(os.getpid(), flush=True)
    time.sleep(3600)
    yield

if __name__ == "__main__":
    executor = LocalProcesses([train])
    executor.start(0, SearchTask(0, None, seed=0))
    time.sleep(3600)
"""
UNGUARDED = """
import tuner

print(tuner.run(tuner.RunOptions(trials=4, epochs=1, workers=2)).num_counted)
"""


@pytest.mark.parametrize(
    ("library", "arguments"),
    [("typer", ["list"]), ("torch", ["run"]), ("torchvision", ["doctor"]), ("optuna", ["show"]), ("rich", ["spaces"])],
)
def test_an_interrupt_while_a_library_is_imported_is_one_line(
    tmp_path: Path, library: str, arguments: list[str]
) -> None:
    (tmp_path / f"{library}.py").write_text(HALF_IMPORTED)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "tuner.db").touch()
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tuner", *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.stderr, done.stdout, done.returncode) == (f"{LINE}\n", "", EXIT_CODE)


@pytest.mark.parametrize("script", [WITHIN_A_CALLBACK, WITHIN_THE_HOOK])
def test_an_interrupt_that_python_drops_is_repeated(script: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stderr, done.returncode) == (f"{LINE}\n", EXIT_CODE)


def test_other_dropped_exceptions_are_printed() -> None:
    command = [sys.executable, "-c", FAILS_IN_A_CALLBACK]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.startswith("Exception ignored in")
    assert done.stderr.endswith("OSError: of a finalizer\n")


def is_runner(process: psutil.Process) -> bool:
    """Whether a process trains, or is the one that such processes are forked from."""
    command = " ".join(process.cmdline())
    return "spawn_main" in command or "multiprocessing.forkserver" in command


def interrupt_all_while_they_start(process: subprocess.Popen[str]) -> None:
    """As a terminal does: every process hears it, also one that has only begun to import."""
    parent = psutil.Process(process.pid)
    while not (children := [one for one in parent.children(recursive=True) if is_runner(one)]):
        time.sleep(0.01)
    for child in children:
        child.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)


def interrupt_until_it_ends(process: subprocess.Popen[str]) -> None:
    """As whoever is impatient does."""
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("workers", "interrupt"),
    [("2", interrupt_all_while_they_start), ("2", interrupt_until_it_ends), ("1", interrupt_until_it_ends)],
)
def test_an_interrupt_of_a_search_is_one_line(
    tmp_path: Path, workers: str, interrupt: Callable[[subprocess.Popen[str]], None]
) -> None:
    command = [sys.executable, "-m", "tuner", "run", "--trials", "500", "--workers", workers]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith("study digits-auto:"):
                break
        interrupt(process)
        assert process.stderr.read() == f"{LINE}\n"
        assert process.wait() == EXIT_CODE


def test_an_interrupt_of_a_training_says_that_nothing_was_kept_and_nothing_is(workplace: Path, tmp_path: Path) -> None:
    arguments = ["--trial", "0", "--epochs", "100000", "--studies", str(workplace / "studies"), "-o", "mine.pt"]
    command = [sys.executable, "-m", "tuner", "train", *arguments]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if line.startswith("[1/100000]"):
                break
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == f"{LINE_RESTART}\n"
        assert process.wait() == EXIT_CODE
    assert list(tmp_path.iterdir()) == []


def test_a_script_without_the_guard_is_told_so_once(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.splitlines()[-1].startswith("tuner.errors.RunnerError: the script that starts the search is")
    assert 'if __name__ == "__main__":' in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_runner_ends_in_the_middle_of_an_epoch_when_its_coordinator_is_gone(
    tmp_path: Path, sent: signal.Signals
) -> None:
    (tmp_path / "script.py").write_text(TRAINS_FOR_AN_HOUR)
    with subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        runner = psutil.Process(int(process.stdout.readline()))
        process.send_signal(sent)
        process.wait()
        try:
            runner.wait(timeout=60)
        finally:
            if runner.is_running():
                runner.kill()


def test_an_interrupt_while_backbones_are_ranked_is_one_line_and_leaves_no_half_of_a_file(tmp_path: Path) -> None:
    torch.save(build_backbone("resnet34").model.state_dict(), tmp_path / "weights.pth")
    space = '[backbone]\nname = "resnet34"\n[recipe]\nlearning_rate = 0.001\n'
    (tmp_path / "own.toml").write_text(space, encoding="utf-8")
    command = [sys.executable, "-m", "tuner", "run", "--space", "own.toml", "--weights", "resnet34=weights.pth"]
    features = tmp_path / "studies" / ".cache" / "features"
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not list(features.glob("*.tmp")):  # the features of 1,437 images, which take minutes
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == f"{LINE}\n"
        assert process.wait() == EXIT_CODE
    assert not [path for path in features.iterdir() if path.suffix != ".lock"]
