"""Names and paths of a study's files. A study's folder has the study's name, and its artifacts are beside it.

Nothing here reads or writes a file.
"""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Literal

ID_FILE = ".study"
"""File in a study's folder with the id of the study that owns it."""
LOCK = ".lock"
"""File in a study's folder, which the process that writes there locks."""
OF_TRIALS, TRAINED_LATER = "trial-*.pt", "trained-*.pt"
"""Patterns of the names that checkpoint_path and trained_path return."""
NUM_KEPT = 5
"""How many of the best trials keep their checkpoints."""
ArtifactKind = Literal["checkpoint", "curve", "confusion"]
NAMESPACE = uuid.UUID("8a6f0b5e-3d0f-5e0a-9d57-6f6f1c6b7c11")


def checkpoint_path(study_folder: Path, number: int) -> Path:
    """Path of the weights of a trial's best epoch."""
    return study_folder / f"trial-{number:05}.pt"


def confirmed_path(study_folder: Path) -> Path:
    """Path of the confirmed winner's weights, which a study delivers."""
    return study_folder / "confirmed.pt"


def trained_path(study_folder: Path, number: int) -> Path:
    """Default path of the weights of a trial that was trained for longer."""
    return study_folder / f"trained-{number:05}.pt"


def retrainings_folder(study_folder: Path) -> Path:
    """Folder of the weights that a confirmation has trained, until one of them is delivered."""
    return study_folder / ".confirm"


def retrained_path(study_folder: Path, number: int, *, seed_number: int) -> Path:
    """Path of the weights that a confirmation has trained on all images, for a trial and a seed number."""
    return retrainings_folder(study_folder) / f"trial-{number:05}-seed-{seed_number}.pt"


def artifacts_folder(study_folder: Path) -> Path:
    """Folder of the artifacts of all studies, for `optuna-dashboard --artifact-dir`; it is beside a study's folder."""
    return study_folder.parent / ".artifacts"


def artifact_path(study_folder: Path, number: int, kind: ArtifactKind, *, study: str) -> Path:
    """Path of a trial's artifact, which may not exist; `study` as for artifact_id."""
    return artifacts_folder(study_folder) / artifact_id(study, number, kind)


def artifact_id(study: str, number: int, kind: ArtifactKind) -> str:
    """Name of an artifact.

    It is always the same for the same file, so that a leftover of a killed process is overwritten. study: random id of
    the study. Artifacts of studies from before there were ids use the study's name, which two studies may share.
    """
    return str(uuid.uuid5(NAMESPACE, f"{study}/{number}/{kind}"))
