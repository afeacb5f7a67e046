"""From pressing return to an answer: `run` on digits up to its first epoch, and the commands that only read."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from tuner.architecture.spec import InputSpec
from tuner.errors import RunnerError
from tuner.search.coordinator import search
from tuner.search.executors import InProcess
from tuner.search.folder_owner import claim_folder
from tuner.search.search_plan import SearchPlan
from tuner.search.settings import StudySettings, space_to_json
from tuner.search.storage import open_storage
from tuner.search.study_files import checkpoint_path
from tuner.search.study_location import storage_url
from tuner.search.study_lookup import open_study
from tuner.search.tasks import TrialTask
from tuner.space.automatic_flip import choose_flip_without_images
from tuner.space.toml_file import load_space
from tuner.training.engine import Engine
from tuner.training.results import EpochResult

POLL_SECONDS = 0.02
NUM_TRIALS, EPOCHS = 20, 10
"""How many trials the study has that the commands read, and the epochs of each."""
COMMANDS = {
    "spaces": ("spaces",),
    "inspect": ("inspect", "cnn"),
    "inspect_trial": ("inspect", "digits-cnn", "--trial", "0"),
    "list": ("list",),
    "show": ("show",),
}
"""The commands that only read, by the names of their figures."""


def measure(num_runs: int, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Median seconds of `num_runs` first starts, with the engine still to be measured, and of as many second ones.

    Then those of the commands that only read, each run as often after one run that is not counted.
    """
    seconds: dict[str, list[float]] = {"first": [], "second": []}
    for number in range(num_runs):
        with tempfile.TemporaryDirectory() as folder:
            for which, taken in seconds.items():
                taken.append(seconds_to_first_epoch(Path(folder), studies=Path(folder) / which))
                say(f"run {number + 1}, {which} start: {taken[-1]:.1f} s")
    medians = {f"seconds_{which}_start": median(taken) for which, taken in seconds.items()}
    return medians | measure_commands(num_runs, say=say)


def measure_commands(num_runs: int, *, say: Callable[[str], None]) -> dict[str, float]:
    """Median seconds of each of COMMANDS, on a study of NUM_TRIALS trials that have trained nothing."""
    medians = {}
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder) / "studies"
        make_study(studies)
        for name, arguments in COMMANDS.items():
            taken = [seconds_of(arguments, cwd=Path(folder)) for _ in range(1 + num_runs)][1:]
            medians[f"seconds_{name}"] = median(taken)
            say(f"tuner {' '.join(arguments)}: {', '.join(f'{one:.2f}' for one in taken)} s")
    return medians


def seconds_of(arguments: Sequence[str], *, cwd: Path) -> float:
    """Seconds of a command in its own process. Raises RunnerError if it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "TUNER_STORAGE"}
    started = time.perf_counter()
    command = [sys.executable, "-m", "tuner", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunnerError(f"`tuner {' '.join(arguments)}` must succeed, and ended with: {done.stderr.strip()}")
    return time.perf_counter() - started


def make_study(studies: Path) -> None:
    """A study of the default space whose trials train nothing, in a folder with its id and its checkpoints' files."""
    studies.mkdir(parents=True, exist_ok=True)
    space, _ = choose_flip_without_images(load_space("cnn"))
    settings = StudySettings("digits", "none", space_name="cnn", space=space_to_json(space), seed=0, epochs=EPOCHS)
    name, storage = "digits-cnn", open_storage(storage_url(studies))
    record = open_study(storage, name, settings, engine=Engine())
    folder = studies / name
    folder.mkdir()
    claim_folder(folder, record)
    plan = SearchPlan(space, InputSpec(1, 8, 8, 10), EPOCHS, NUM_TRIALS, seed=0, study_folder=folder)

    def train_nothing(task: TrialTask) -> Iterator[EpochResult]:
        checkpoint_path(folder, task.number).write_bytes(bytes(1_000))
        for epoch in range(1, EPOCHS + 1):
            yield EpochResult(epoch, 0.5, 0.5, 0.9 - 0.5**epoch - 0.001 * task.number, 0.0)

    for _ in search(record, plan, InProcess(train_nothing)):
        pass


def seconds_to_first_epoch(cache_dir: Path, *, studies: Path) -> float:
    """Seconds of the real command in its own process, which is then ended. Raises RunnerError if it ends before."""
    command = [sys.executable, "-m", "tuner", "run", "--quiet", "--no-confirm", "--studies", str(studies)]
    started = time.perf_counter()
    environment = {**os.environ, "TUNER_CACHE_DIR": str(cache_dir)}
    # In a process group of its own it does not hear Ctrl-C, of which it would print a line, too.
    with subprocess.Popen(command, env=environment, start_new_session=True) as process:
        try:
            while not has_epoch(studies / "tuner.db"):
                if process.poll() is not None:
                    raise RunnerError(
                        f"`tuner run` must reach its first epoch, and ended before, with exit code "
                        f"{process.returncode}: what it printed is above; if that is nothing, it was killed"
                    )
                time.sleep(POLL_SECONDS)
            return time.perf_counter() - started
        finally:
            end_with_all_it_started(process.pid)


def end_with_all_it_started(pid: int) -> None:
    """End a process and all below it, and wait until they are gone: its runners would train on for a while."""
    try:
        process = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    family = [process, *process.children(recursive=True)]
    for one in family:
        with suppress(psutil.NoSuchProcess):
            one.terminate()
    while any(map(is_at_work, family)):
        time.sleep(POLL_SECONDS)


def is_at_work(process: psutil.Process) -> bool:
    """Whether a process is there and has not ended; one that has may still await being asked how."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def has_epoch(path: Path) -> bool:
    """Whether the record holds an epoch of any trial."""
    if not path.is_file():
        return False
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        try:
            return connection.execute("SELECT 1 FROM trial_intermediate_values LIMIT 1").fetchone() is not None
        except sqlite3.OperationalError:  # its tables are being made
            return False
