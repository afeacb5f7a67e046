"""The checkpoints in a study's folder: whether they match the record, or are of another study of that name."""

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
    """The checkpoint of an ended trial, of the epoch and the score that the record has.

    Raises CheckpointError when it is gone, cannot be read, or is of something else.
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
    """The delivered checkpoint of a confirmed study.

    Raises CheckpointError when it cannot be read, or is not what the study's confirmation tells of.
    """
    checkpoint, confirmed = _load(path), record.confirmed
    found = (checkpoint.origin.get("study"), checkpoint.origin.get("trial"), checkpoint.scores.get("test_accuracy"))
    if confirmed is None or found != (record.name, confirmed.number, confirmed.delivered_test_accuracy):
        raise CheckpointError(
            f"{path}: not the confirmed winner of study {record.name!r}; `tuner confirm {record.name}` makes it again"
        )
    return checkpoint


def refuse_foreign_checkpoints(folder: Path, record: StudyRecord | None, name: str) -> None:
    """Raise StudyError when the folder of a study holds another study's checkpoints, which it would overwrite.

    So it is where two storages have a study of one name, or where a database was deleted and the folder was not.
    record: of the study to resume, None for a new one.
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
    """The checkpoints in a folder: those of a study, and others. They are of trials, delivered, or trained longer.

    Raises CheckpointError where one cannot be read.
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
    """The error for a checkpoint that a study called `name` would overwrite or delete, and that is not its own."""
    return StudyError(
        f"{path}: a checkpoint of another study {name!r}, which this one would overwrite; "
        "move that folder away, or give --study NAME, or other --studies"
    )


def _load(path: Path) -> Checkpoint:
    from tuner.training.checkpoint import load_checkpoint  # imports torch, which commands without a file do not need

    return load_checkpoint(path)


def _is_of_a_trial(path: Path, record: StudyRecord, trials: Mapping[int, TrialRecord]) -> bool:
    """Whether a file is the checkpoint of the trial whose number its name has."""
    for number, trial in trials.items():
        if path == checkpoint_path(path.parent, number):
            return not _differences(_load(path), _identity(record, trial))
    return False


def _is_made_later(path: Path, record: StudyRecord, trials: Mapping[int, TrialRecord]) -> bool:
    """Whether a file is of a trial's network, trained again with another seed or for other epochs."""
    checkpoint = _load(path)
    number, architecture = checkpoint.origin.get("trial"), checkpoint.candidate.architecture
    return (
        checkpoint.origin.get("study") == record.name
        and checkpoint.origin.get("dataset_digest") == record.settings.dataset_digest
        and any(trial.number == number and trial.candidate.architecture == architecture for trial in trials.values())
    )


def _identity(record: StudyRecord, trial: TrialRecord) -> dict[str, object]:
    """What a checkpoint of a trial has from its first epoch on."""
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
