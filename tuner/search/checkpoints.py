"""The checkpoints in a study's folder: load them, and check that they belong to the study and not to another one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tuner.errors import CheckpointError, StudyError
from tuner.search.record import StudyRecord
from tuner.search.study_files import OF_TRIALS, TRAINED_LATER, checkpoint_path, confirmed_path
from tuner.search.tasks import training_seed
from tuner.search.trial_record import TrialRecord

if TYPE_CHECKING:
    from tuner.training.checkpoint import Checkpoint


def load_trial_checkpoint(record: StudyRecord, trial: TrialRecord, *, studies: Path) -> Checkpoint:
    """Load the checkpoint of an ended trial, which must have the stored epoch and score.

    Raises CheckpointError if it is missing, cannot be read, or belongs to something else.
    """
    path = checkpoint_path(studies / record.name, trial.number)
    checkpoint = _load(path)
    expected = _identity(record, trial) | {"epoch": trial.best_epoch, "score": trial.validation_accuracy}
    differing = _differences(checkpoint, expected)
    if differing:
        raise CheckpointError(
            f"{path}: not the checkpoint of trial {trial.number} of this study {record.name!r}: {differing}; "
            "give the folder it was run with (--studies)"
        )
    return checkpoint


def load_confirmed_checkpoint(record: StudyRecord, path: Path) -> Checkpoint:
    """Load the delivered checkpoint of a confirmed study.

    Raises CheckpointError if it cannot be read or does not match the study's confirmation.
    """
    checkpoint, confirmed = _load(path), record.confirmed
    found = (checkpoint.origin.get("study"), checkpoint.origin.get("trial"), checkpoint.scores.get("test_accuracy"))
    if confirmed is None or found != (record.name, confirmed.number, confirmed.delivered_test_accuracy):
        raise CheckpointError(
            f"{path}: not the confirmed winner of study {record.name!r}; `tuner confirm {record.name}` makes it again"
        )
    return checkpoint


def refuse_foreign_checkpoints(folder: Path, record: StudyRecord | None, name: str) -> None:
    """Raise StudyError if a study's folder contains another study's checkpoints, which it would overwrite.

    This happens if two storages have a study with the same name, or if a database was deleted but not the folder.
    record: the study to resume, None for a new one.
    """
    files = sorted(folder.glob(OF_TRIALS))
    if record is None:
        foreign = files or [path for path in [confirmed_path(folder)] if path.exists()]
    else:
        trials = {trial.number: trial for trial in record.trials()} if files else {}
        foreign = [path for path in files if not _is_of_a_trial(path, record, trials)]
    if foreign:
        raise foreign_checkpoint(foreign[0], name)


def own_and_foreign(folder: Path, record: StudyRecord) -> tuple[list[Path], list[Path]]:
    """Return the checkpoints in a folder that belong to a study, and the others.

    They are checkpoints of trials, of confirmed winners, or of trials that were trained for longer. Raises
    CheckpointError if one cannot be read.
    """
    of_trials, made_later = sorted(folder.glob(OF_TRIALS)), sorted(folder.glob(TRAINED_LATER))
    made_later += [path for path in [confirmed_path(folder)] if path.exists()]
    if not of_trials and not made_later:
        return [], []
    trials = {trial.number: trial for trial in record.trials()}
    own = [path for path in of_trials if _is_of_a_trial(path, record, trials)]
    own += [path for path in made_later if _is_made_later(path, record, trials)]
    return own, [path for path in of_trials + made_later if path not in own]


def foreign_checkpoint(path: Path, name: str) -> StudyError:
    """Return the error for a checkpoint of another study that a study called `name` would overwrite or delete."""
    return StudyError(
        f"{path}: a checkpoint of another study {name!r}, which this one would overwrite; "
        "move that folder away, or give --study NAME, or other --studies"
    )


def _load(path: Path) -> Checkpoint:
    from tuner.training.checkpoint import load_checkpoint  # imports torch, which commands without a file do not need

    return load_checkpoint(path)


def _is_of_a_trial(path: Path, record: StudyRecord, trials: Mapping[int, TrialRecord]) -> bool:
    """Whether a file is the checkpoint of the trial whose number is in its name."""
    for number, trial in trials.items():
        if path == checkpoint_path(path.parent, number):
            return not _differences(_load(path), _identity(record, trial))
    return False


def _is_made_later(path: Path, record: StudyRecord, trials: Mapping[int, TrialRecord]) -> bool:
    """Whether a file contains a trial's network that was trained again with another seed or for other epochs."""
    checkpoint = _load(path)
    number, architecture = checkpoint.origin.get("trial"), checkpoint.candidate.architecture
    return (
        checkpoint.origin.get("study") == record.name
        and checkpoint.origin.get("dataset_digest") == record.settings.dataset_digest
        and any(trial.number == number and trial.candidate.architecture == architecture for trial in trials.values())
    )


def _identity(record: StudyRecord, trial: TrialRecord) -> dict[str, object]:
    """Return what a checkpoint of a trial contains from its first epoch on."""
    settings = record.settings
    return {
        "study": record.name,
        "trial": trial.number,
        "candidate": trial.candidate.fingerprint,
        "seed": training_seed(settings.seed, trial.candidate),
        "dataset_digest": settings.dataset_digest,
    }


def _differences(checkpoint: Checkpoint, expected: Mapping[str, object]) -> str:
    found: dict[str, object] = {
        **checkpoint.origin,
        "candidate": checkpoint.candidate.fingerprint,
        "score": checkpoint.scores.get("validation_accuracy"),
    }
    return ", ".join(
        f"its {key} is {found.get(key)}, not {value}" for key, value in expected.items() if found.get(key) != value
    )
