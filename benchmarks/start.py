"""From pressing return to the first epoch in the record: `run` on digits, nothing measured or decoded before."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from tuner.errors import RunnerError

POLL_SECONDS = 0.02


def measure(num_runs: int, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Median seconds of `num_runs` first starts, with the engine still to be measured, and of as many second ones."""
    seconds: dict[str, list[float]] = {"first": [], "second": []}
    for number in range(num_runs):
        with tempfile.TemporaryDirectory() as folder:
            for which, taken in seconds.items():
                taken.append(seconds_to_first_epoch(Path(folder), studies=Path(folder) / which))
                say(f"run {number + 1}, {which} start: {taken[-1]:.1f} s")
    return {f"seconds_{which}_start": median(taken) for which, taken in seconds.items()}


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
