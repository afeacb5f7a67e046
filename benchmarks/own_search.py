"""A search as a user runs it: `tuner run` with a time budget in a process of its own, and the result that it stores."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.start import end_with_all_it_started
from tuner.errors import RunnerError, StudyError
from tuner.search.confirmation import Confirmation
from tuner.search.objective import is_better
from tuner.search.record import StudyRecord
from tuner.search.study_files import checkpoint_path
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import load_study
from tuner.search.trial_record import TrialRecord

OPTIONS: tuple[str, ...] = ()
"""Further options of `tuner run`. Tests shorten the search with them."""
STUDY = "benchmark"
Say = Callable[[str], None]


@dataclass(frozen=True)
class OwnSearch:
    """A confirmed search. began: when its process was started, in local time. seconds: until that process had ended."""

    studies: Path
    record: StudyRecord
    confirmed: Confirmation
    began: datetime
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures of the search. accuracy and interval: on the test set, mean of the winner over seeds."""
        winner = self.record.trials()[self.confirmed.number]
        return {
            "seconds": self.seconds,
            "accuracy": self.confirmed.test_accuracy,
            "interval": None if self.confirmed.interval is None else list(self.confirmed.interval),
            "delivered_accuracy": self.confirmed.delivered_test_accuracy,
            "trials": sum(trial.counts for trial in self.record.trials()),
            "winner": winner.candidate.to_json(),
            "num_parameters": winner.num_parameters,
        }

    def best_so_far(self) -> list[tuple[float, TrialRecord]]:
        """Return every trial that was the best of the search when it ended, with the seconds since `began`."""
        ended = [(trial.ended, trial) for trial in self.record.trials() if trial.outcome == "complete" and trial.ended]
        best: list[tuple[float, TrialRecord]] = []
        for end, trial in sorted(ended, key=lambda one: (one[0], one[1].number)):
            if is_better(trial.validation_accuracy, best[-1][1].validation_accuracy if best else None):
                best.append(((end - self.began).total_seconds(), trial))
        return best

    def checkpoint_of(self, trial: TrialRecord) -> Path:
        """Path of a trial's checkpoint."""
        return checkpoint_path(self.studies / self.record.name, trial.number)


def run_search(options: Sequence[str], *, studies: Path, say: Say) -> OwnSearch:
    """Run a search to its end and return its result; `say` is called with every line that it prints.

    Raises RunnerError if it fails, and StudyError if its budget was too short for a confirmation.
    """
    command = [sys.executable, "-m", "tuner", "run", "--study", STUDY, "--studies", str(studies), *options, *OPTIONS]
    environment = {name: value for name, value in os.environ.items() if name != "TUNER_STORAGE"}
    began, started, last = datetime.now(), time.perf_counter(), ""
    # In a process group of its own it does not hear Ctrl-C, of which it would print a line, too.
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last = line.strip() or last
                say(f"  {line.rstrip()}")
            process.wait()
        finally:
            if process.poll() is None:
                end_with_all_it_started(process.pid)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RunnerError(f"`tuner run` must succeed, and ended with exit code {process.returncode}: {last}")
    record = load_study(existing_storage(studies), STUDY)
    if record.confirmed is None:
        raise StudyError("the search must end with a confirmed winner, and this one has none: give a longer --budget")
    return OwnSearch(studies, record, record.confirmed, began, seconds)


def in_words(own: dict[str, Any]) -> str:
    """Format the accuracy of a search with its interval, its trials and its seconds. own: as `to_json` returns it."""
    low_high = "no interval" if own["interval"] is None else "{:.2%} to {:.2%}".format(*own["interval"])
    return f"{own['accuracy']:.2%} ({low_high}), {own['trials']} trials, {own['seconds']:.0f} s"
