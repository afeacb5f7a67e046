"""The best trial's checkpoint as a file of the user's own, loaded again before it counts."""

from __future__ import annotations

from pathlib import Path

from tuner.errors import CheckpointError, StudyError
from tuner.search.checkpoints import load_trial_checkpoint
from tuner.search.record import StudyRecord
from tuner.search.summary import summarise
from tuner.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint


def export_checkpoint(record: StudyRecord, *, studies: Path, output: Path) -> Checkpoint:
    """Write the checkpoint of a study's best trial to `output`, and give what was read back from there.

    Raises StudyError when the study has no best trial yet, CheckpointError when its file is gone or cannot be written.
    """
    summary = summarise(record, studies=studies)
    if summary.best is None:
        raise StudyError(f"study {record.name!r} has no complete trial yet: go on with `tuner run`")
    if summary.checkpoint is None:
        raise CheckpointError(
            f"the checkpoint of trial {summary.best.number} of study {record.name!r} is not in "
            f"{studies / record.name}; give the folder it was run with (--studies)"
        )
    if output.is_dir():
        raise CheckpointError(f"-o {output} is a folder; give the name of a file in it")
    try:
        save_checkpoint(load_trial_checkpoint(record, summary.best, studies=studies), output)
    except OSError as error:
        raise CheckpointError(f"-o {output}: cannot be written: {error.strerror}") from error
    return load_checkpoint(output)
