"""The cost of a trial that trains nothing: sampling, deciding, and writing it to SQLite with five reports."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from tuner.architecture.spec import InputSpec
from tuner.search.coordinator import search
from tuner.search.events import TrialEnded
from tuner.search.executors import InProcess
from tuner.search.search_plan import SearchPlan
from tuner.search.settings import StudySettings, space_to_json
from tuner.search.storage import open_storage
from tuner.search.study_lookup import open_study
from tuner.search.tasks import TrialTask
from tuner.search.trial_record import TrialRecord
from tuner.space.automatic_flip import choose_flip_without_images
from tuner.space.toml_file import load_space
from tuner.training.engine import Engine
from tuner.training.results import EpochResult

REPORTS = 5
WINDOWS = (100, 1_000, 10_000)
BETTER_EVERY = 100
"""Trials after which a better level is reached: each better one displaces another from the best few, as in a search."""


def train_nothing(task: TrialTask) -> Iterator[EpochResult]:
    """A learning curve, at once. No trial is worse than one before it, so that none is stopped; a few are better."""
    level = task.number // BETTER_EVERY
    for epoch in range(1, REPORTS + 1):
        yield EpochResult(epoch, 1.0, 1.0, 0.5 + 1e-3 * level + 1e-6 * epoch, 0.0)


def measure(num_trials: int, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Mean milliseconds of the trials up to each window and up to all of them, and of the last hundred before it.

    Raises RuntimeError if a trial made fewer reports than it should; one that repeats another makes none.
    """
    windows = sorted({window for window in WINDOWS if window < num_trials} | {num_trials})
    with tempfile.TemporaryDirectory() as folder:
        space, _ = choose_flip_without_images(load_space("cnn"))
        settings = StudySettings("none", "none", space_name="cnn", space=space_to_json(space), seed=0, epochs=REPORTS)
        record = open_study(open_storage(f"sqlite:///{folder}/tuner.db"), "overhead", settings, engine=Engine())
        plan = SearchPlan(
            space,
            InputSpec(1, 28, 28, 10),
            REPORTS,
            num_trials,
            seed=0,
            study_folder=Path(folder) / "overhead",
        )
        ends = [time.perf_counter()]
        for event in search(record, plan, InProcess(train_nothing)):
            if isinstance(event, TrialEnded):
                ends.append(time.perf_counter())
                if event.number + 1 in windows:
                    say(f"{event.number + 1} trials after {ends[-1] - ends[0]:.1f} s")
        check_reports(record.trials(), num_trials)
    milliseconds = [1e3 * (after - before) for before, after in itertools.pairwise(ends)]
    result: dict[str, Any] = {}
    for window in windows:
        result[f"ms_per_trial_up_to_{window}"] = mean(milliseconds[:window])
        result[f"ms_per_trial_at_{window}"] = mean(milliseconds[window - 100 : window])
    return result


def check_reports(trials: list[TrialRecord], num_trials: int) -> None:
    trained = [trial for trial in trials if trial.outcome != "repeated"]
    short = [trial for trial in trained if trial.outcome != "complete" or len(trial.curve) != REPORTS]
    if short or len(trained) != num_trials:
        raise RuntimeError(
            f"{num_trials} trials should have made {REPORTS} reports each; {len(trained) - len(short)} did: {short[:1]}"
        )
