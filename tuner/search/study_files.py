"""The names and paths of a study's files: checkpoints, delivered weights and artifacts."""

from __future__ import annotations

from pathlib import Path


def checkpoint_path(study_folder: Path, number: int) -> Path:
    """Where the weights of a trial's best epoch lie."""
    return study_folder / f"trial-{number:05}.pt"


def confirmed_path(study_folder: Path) -> Path:
    """Where the confirmed winner's weights lie, which are what a study delivers."""
    return study_folder / "confirmed.pt"
