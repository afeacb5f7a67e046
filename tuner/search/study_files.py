"""The names of a study's files and their paths. A study's folder has the study's name, and its artifacts are beside it.

Nothing here reads or writes a file.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Literal

ID_FILE = ".study"
"""In a study's folder: the id of the study whose files it holds."""
LOCK = ".lock"
"""In a study's folder: locked by the process that writes there."""
OF_TRIALS, TRAINED_LATER = "trial-*.pt", "trained-*.pt"
"""The names that checkpoint_path and trained_path give, as patterns."""
ArtifactKind = Literal["checkpoint", "curve", "confusion"]
NAMESPACE = uuid.UUID("8a6f0b5e-3d0f-5e0a-9d57-6f6f1c6b7c11")


def checkpoint_path(study_folder: Path, number: int) -> Path:
    """The weights of a trial's best epoch."""
    return study_folder / f"trial-{number:05}.pt"


def confirmed_path(study_folder: Path) -> Path:
    """The confirmed winner's weights, which are what a study delivers."""
    return study_folder / "confirmed.pt"


def trained_path(study_folder: Path, number: int) -> Path:
    """The weights of a trial that was trained for longer, unless another file is asked for."""
    return study_folder / f"trained-{number:05}.pt"


def retrainings_folder(study_folder: Path) -> Path:
    """The folder of the weights that a confirmation has trained, until one of them is delivered."""
    return study_folder / ".confirm"


def retrained_path(study_folder: Path, number: int, *, seed_number: int) -> Path:
    """The weights of a trial that a confirmation has trained on all images, with the seed of this number."""
    return retrainings_folder(study_folder) / f"trial-{number:05}-seed-{seed_number}.pt"


def artifacts_folder(study_folder: Path) -> Path:
    """The folder of the artifacts of all studies beside a study: what `optuna-dashboard --artifact-dir` takes."""
    return study_folder.parent / ".artifacts"


def artifact_path(study_folder: Path, number: int, kind: ArtifactKind, *, study: str) -> Path:
    """The path of a trial's artifact, if there is one; `study` as for artifact_id."""
    return artifacts_folder(study_folder) / artifact_id(study, number, kind)


def artifact_id(study: str, number: int, kind: ArtifactKind) -> str:
    """The name of an artifact: the same for the same file, so that one which a killed process left is overwritten.

    study: its random id. Studies from before there was one have artifacts by their name, which two may share.
    """
    return str(uuid.uuid5(NAMESPACE, f"{study}/{number}/{kind}"))
