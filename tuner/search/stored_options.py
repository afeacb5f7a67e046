"""The options that a study stores for a later run that does not give them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuner.data.dataset import DataSpec
from tuner.search.record import StudyRecord
from tuner.search.storage import Storage
from tuner.search.study_lookup import list_studies

TRIALS = "tuner:trials"
"""Study attribute for the total number of trials that the last run wanted. It may change, so it is not a setting."""


@dataclass(frozen=True)
class StudyOptions:
    """The options that a study stores, with their values.

    space: name of the space. trials: None if the study has no total, because its runs were limited by a time budget
    or a killed run did not store it. epochs: None for a new study if its data
    set determines the number. is_space_bundled: whether the space has a name that `--space` accepts.
    """

    data_spec: DataSpec
    space: str
    trials: int | None
    epochs: int | None
    seed: int
    is_space_bundled: bool = True


def find_named(storage: Storage, name: str) -> StudyRecord | None:
    """Find tuner's study with a name; None if there is none."""
    return next((record for record in list_studies(storage) if record.name == name), None)


def load_options(record: StudyRecord, defaults: StudyOptions, *, cache_dir: Path) -> StudyOptions:
    """Load the options that a study stores; `defaults` replaces those that a killed run did not store.

    Raises StudyError if they cannot be read.
    """
    settings = record.settings
    trials = record.storage.get_study_user_attrs(record.study_id).get(TRIALS)
    with record.readable("the number of trials that it wants"):
        if trials is not None and (type(trials) is not int or trials < 1):
            raise ValueError(f"must be a whole number from 1, got {trials!r}")
    return StudyOptions(
        defaults.data_spec if record.data_source is None else record.data_spec(cache_dir),
        space=settings.space_name,
        trials=trials,
        epochs=settings.epochs,
        seed=settings.seed,
        is_space_bundled=settings.is_space_bundled,
    )


def save_wanted_trials(record: StudyRecord, trials: int) -> None:
    """Store the total number of trials that a run wants, for a later run that does not give it."""
    record.storage.set_study_user_attr(record.study_id, TRIALS, trials)
