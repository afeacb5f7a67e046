"""The checkpoints in a study's folder: whether they are what the record tells of, or of another study of that name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tuner.errors import CheckpointError, StudyError
from tuner.search.record import StudyRecord, TrialRecord
from tuner.search.runner import checkpoint_path, confirmed_path, training_seed
from tuner.training.checkpoint import Checkpoint, load_checkpoint


def load_trial_checkpoint(record: StudyRecord, trial: TrialRecord, *, studies: Path) -> Checkpoint:
    """The checkpoint of an ended trial, of the epoch and the score that the record has.

    Raises CheckpointError when it is gone, cannot be read, or is of something else.
    """
    path = checkpoint_path(studies / record.name, trial.number)
    checkpoint = load_checkpoint(path)
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
    checkpoint, confirmed = load_checkpoint(path), record.confirmed or {}
    found = (checkpoint.origin.get("study"), checkpoint.origin.get("trial"), checkpoint.scores.get("test_accuracy"))
    if found != (record.name, confirmed.get("number"), confirmed.get("delivered_test_accuracy")):
        raise CheckpointError(
            f"{path}: not the confirmed winner of study {record.name!r}; `tuner confirm {record.name}` makes it anew"
        )
    return checkpoint


def refuse_foreign_checkpoints(folder: Path, record: StudyRecord | None, name: str) -> None:
    """Raise StudyError when the folder of a study holds another study's checkpoints, which it would overwrite.

    So it is where two storages have a study of one name, or where a database was deleted and the folder was not.
    record: of the study that is to be gone on with, None for a new one.
    """
    files = sorted(folder.glob("trial-*.pt"))
    if record is None:
        foreign = files or [path for path in [confirmed_path(folder)] if path.exists()]
    else:
        trials = {checkpoint_path(folder, trial.number): trial for trial in record.trials()} if files else {}
        foreign = [
            path
            for path in files
            if path not in trials or _differences(load_checkpoint(path), _identity(record, trials[path]))
        ]
    if foreign:
        raise StudyError(
            f"{foreign[0]}: a checkpoint of another study {name!r}, which this one would overwrite; "
            "move that folder away, or give --study NAME, or other --studies"
        )


def _identity(record: StudyRecord, trial: TrialRecord) -> dict[str, object]:
    """What a checkpoint of a trial has from its first epoch on."""
    settings = record.settings
    return {
        "study": record.name,
        "trial": trial.number,
        "candidate": trial.candidate.fingerprint,
        "seed": training_seed(settings["seed"], trial.candidate),
        "dataset_digest": settings["dataset_digest"],
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
