"""The options of a run that its study stores, for a later run that does not give them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuner.data.dataset import DataSpec
from tuner.search.record import StudyRecord
from tuner.search.storage import Storage
from tuner.search.study_lookup import list_studies

TRIALS = "tuner:trials"
"""The study attribute with the total of trials that its last run wanted. It may change, so it is no setting."""


@dataclass(frozen=True)
class StudyOptions:
    """The options that a study stores, each with its value.

    space: its name. epochs: None for a new study, if its data set is to decide.
    """

    data_spec: DataSpec
    space: str
    trials: int
    epochs: int | None
    seed: int


def find_named(storage: Storage, name: str) -> StudyRecord | None:
    """The study of a name; None where there is none that the tuner has made."""
    return next((record for record in list_studies(storage) if record.name == name), None)


def load_options(record: StudyRecord, defaults: StudyOptions, *, cache_dir: Path) -> StudyOptions:
    """The options that a study stores; `defaults` has those that a killed run had no time to store.

    Raises StudyError when they cannot be read.
    """
    settings = record.settings
    trials = record.storage.get_study_user_attrs(record.study_id).get(TRIALS, defaults.trials)
    return StudyOptions(
        defaults.data_spec if record.data_source is None else record.data_spec(cache_dir),
        space=settings.space_name,
        trials=trials,
        epochs=settings.epochs,
        seed=settings.seed,
    )


def save_wanted_trials(record: StudyRecord, trials: int) -> None:
    """Store the total of trials that a run wants, for the next run that does not give it."""
    record.storage.set_study_user_attr(record.study_id, TRIALS, trials)
