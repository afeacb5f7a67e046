"""A study whose trials train nothing, and what a confirmation of it would have found."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.strategies import BUNDLED
from tuner.architecture.spec import InputSpec
from tuner.search.confirmation import Confirmation
from tuner.search.coordinator import search
from tuner.search.executors import InProcess
from tuner.search.record import StudyRecord
from tuner.search.search_plan import SearchPlan
from tuner.search.settings import StudySettings
from tuner.search.storage import open_storage
from tuner.search.study_lookup import open_study
from tuner.search.tasks import TrialTask
from tuner.training.engine import Engine
from tuner.training.results import EpochResult

EPOCHS = 4
SETTINGS = StudySettings("digits", "d", space_name="cnn", space={}, seed=0, epochs=EPOCHS)
CONFIRMED: dict[str, Any] = {
    "number": 0,
    "epochs": 3,
    "seeds": [1, 2, 3],
    "test_accuracy": 0.9712,
    "interval": [0.96, 0.98],
    "validation_mean": 0.975,
    "search_accuracy": 0.99,
    "gap": 0.0188,
    "baseline": "the first configuration",
    "baseline_number": 1,
    "baseline_test_accuracy": 0.95,
    "difference": 0.0212,
    "difference_interval": [0.01, 0.0312],
    "beats_baseline": "yes",
    "delivered_test_accuracy": 0.9733,
    "num_test_images": 360,
    "num_shared_test_images": 0,
    "class_scores": None,
    "candidates": [{"number": 0, "validation_accuracies": [0.97, 0.98], "dropped": ""}],
    "num_trials": 2,
    "test_set_openings": 1,
    "is_full": False,
    "seconds": 61.0,
    "notes": ["<b>in haste</b>; `tuner confirm --full` uses all of them"],
}


NOT_COMPARED: dict[str, Any] = {
    "baseline_test_accuracy": None,
    "difference": None,
    "difference_interval": None,
    "beats_baseline": "undecided",
    "notes": ["the first configuration, trial 1, could not be trained again"],
}
"""What is else in a confirmation whose first configuration could not be trained again."""


def confirmation(**changes: Any) -> Confirmation:
    """The confirmation with these changes."""
    return Confirmation.from_json(CONFIRMED | changes)


def train_nothing(task: TrialTask) -> Iterator[EpochResult]:
    """A rising curve by the task's seed, with a latency at its end."""
    generator = random.Random(task.seed)
    height = generator.uniform(0.5, 0.99)
    for epoch in range(1, EPOCHS + 1):
        latency_ms = generator.uniform(0.1, 2.0) if epoch == EPOCHS else None
        yield EpochResult(epoch, 1.0, 1.0, height * (1 - 0.5**epoch), 0.0, latency_ms=latency_ms)


def make_study(folder: Path, num_trials: int, *, name: str = "synthetic") -> StudyRecord:
    """A study whose trials train nothing."""
    record = open_study(open_storage(f"sqlite:///{folder / 'tuner.db'}"), name, SETTINGS, engine=Engine("cpu"))
    plan = SearchPlan(BUNDLED["cnn"], InputSpec(1, 8, 8, 10), EPOCHS, num_trials, seed=0, study_folder=folder / name)
    for _ in search(record, plan, InProcess(train_nothing)):
        pass
    return record
