"""Data that optuna-dashboard shows for a trial: a note, and files as artifacts.

Notes are system attributes of the study, artifacts of the trial. A checkpoint is deleted when others are better, and a
trial cannot be changed after it has ended. A checkpoint's entry is therefore stored with the study too, under a key of
the dashboard.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.data.image_parts import STORED
from tuner.names import shown_name
from tuner.search.confirmation import Confirmation
from tuner.search.confirmation_sentences import counted, verdict_in_words
from tuner.search.settings import StudySettings
from tuner.search.study_files import ArtifactKind, artifact_id, artifacts_folder
from tuner.search.trial_pictures import confusion_picture, curve_picture
from tuner.training.candidate import WITH_MOMENTUM, Recipe
from tuner.training.engine import Engine, tail_engine
from tuner.training.results import Confusion

NOTE_LENGTH = 2_000
"""Number of characters; the dashboard splits longer notes into several attributes."""
MAX_NOTES = 1_000
"""Maximum number of trials of a study that get a note, because the dashboard searches all notes for every trial.

What a note says is in the trial's attributes as well.
"""


@dataclass(frozen=True)
class Artifact:
    """A file of a trial, by its id in the artifact folder."""

    id: str
    filename: str
    mimetype: str

    def to_json(self) -> str:
        """Return what Optuna stores for an artifact."""
        data = {"artifact_id": self.id, "filename": self.filename, "mimetype": self.mimetype, "encoding": None}
        return json.dumps(data)


@dataclass(frozen=True)
class Shown:
    """A trial's note, pictures and checkpoint. problem: why some of them could not be made."""

    note: str | None = None
    pictures: tuple[Artifact, ...] = ()
    checkpoint: Artifact | None = None
    problem: str = ""

    def trial_attributes(self) -> dict[str, Any]:
        """System attributes of the trial, as `optuna.artifacts.upload_artifact` writes them."""
        return {f"artifacts:{artifact.id}": artifact.to_json() for artifact in self.pictures}

    def study_attributes(self, trial_id: int) -> dict[str, Any]:
        """System attributes of the study, as optuna-dashboard writes them."""
        attributes: dict[str, Any] = {}
        if self.note is not None:
            attributes = note_attributes(self.note, version=1, prefix=f"dashboard:{trial_id}")
        if self.checkpoint is not None:
            attributes[checkpoint_key(trial_id, self.checkpoint.id)] = self.checkpoint.to_json()
        return attributes


def note_attributes(text: str, *, version: int, prefix: str = "dashboard") -> dict[str, Any]:
    """Return a note as optuna-dashboard stores it; the prefix is `dashboard` for the note of a study."""
    text = text if len(text) <= NOTE_LENGTH else f"{text[: NOTE_LENGTH - 1]}…"
    return {f"{prefix}:note_ver": version, f"{prefix}:note_str:0": text}


def checkpoint_key(trial_id: int, artifact: str) -> str:
    """Return the study attribute in which the dashboard looks for an artifact of a trial that may be removed later."""
    return f"dashboard:artifacts:{trial_id}:{artifact}"


def save_artifacts(
    study_folder: Path,
    number: int,
    *,
    study: str,
    curve: dict[int, float],
    best_epoch: int,
    confusion: Confusion | None,
    class_names: Sequence[str],
    checkpoint: Path,
) -> tuple[tuple[Artifact, ...], Artifact | None]:
    """Write a trial's pictures and link its checkpoint. Return the pictures, and the checkpoint if it has a file.

    study: the same as in `artifact_id`.
    """
    folder = artifacts_folder(study_folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"curve": curve_picture(curve, best_epoch=best_epoch)}
    if confusion is not None:
        names = class_names or [str(index) for index in range(len(confusion))]
        texts["confusion"] = confusion_picture(confusion, names)
    names_of: dict[str, tuple[ArtifactKind, str]] = {
        "curve": ("curve", "learning-curve.svg"),
        "confusion": ("confusion", "confusion-matrix.svg"),
    }
    pictures = []
    for name, text in texts.items():
        kind, filename = names_of[name]
        picture = Artifact(artifact_id(study, number, kind), filename, "image/svg+xml")
        (folder / picture.id).write_text(text, encoding="utf-8")
        pictures.append(picture)
    if not checkpoint.is_file():
        return tuple(pictures), None
    linked = Artifact(artifact_id(study, number, "checkpoint"), checkpoint.name, "application/octet-stream")
    _link(checkpoint, folder / linked.id)
    return tuple(pictures), linked


def trial_note(
    *,
    outcome: str,
    reason: str,
    network: str,
    recipe: Recipe,
    num_parameters: int,
    flops: int,
    accuracy: float | None,
    best_epoch: int | None,
    num_epochs: int,
    latency_ms: float | None,
) -> str:
    """Describe a trial in a few lines of Markdown: how it ended and why, its score and its network."""
    lines = [f"**{outcome}**" + (f": {reason}" if reason else "")]
    if accuracy is not None:
        lines.append(f"validation accuracy {accuracy:.2%}, in epoch {best_epoch} of the {num_epochs} it trained")
    lines.append(f"`{network}`")
    cost = f"{num_parameters:,} parameters, {flops:,} FLOPs"
    lines.append(cost + (f", {latency_ms:.2f} ms for one image" if latency_ms is not None else ""))
    lines.append(recipe_in_words(recipe))
    return "\n\n".join(lines)


def study_note(
    name: str,
    settings: StudySettings,
    engine: Engine,
    *,
    data: Mapping[str, Any],
    result: str,
    confirmed: Confirmation | None,
) -> str:
    """Describe a study in a few lines of Markdown: its data and space, its seed, its engine, and what was found."""
    dataset = data.get("dataset", settings.dataset)
    if dataset.startswith(STORED):  # given by a program, so it has a name and no place
        dataset, data = settings.dataset, {}
    is_looked_up = data.get("data_dir") and dataset != "digits" and not Path(dataset).is_absolute()
    where = f", looked for in {_code(data['data_dir'])}" if is_looked_up else ""
    kind = "Convolutional"
    if settings.space.get("backbone"):
        kind, engine = "Pretrained", tail_engine(engine)
    lines = [
        f"## {name}",
        f"{kind} networks for **{_code(dataset)}**{where}, from the "
        f"space {_code(settings.space_name)}, {counted(settings.epochs, 'epoch')} a trial, "
        f"seed {settings.seed}.",
        f"Trained on {engine.device} with {engine.num_threads} thread(s) a runner, in {engine.precision}; "
        f"blocks: {engine.blocks}.",
    ]
    lines += [result] if result else []
    if confirmed is None:
        lines.append("Not confirmed: the best of many validation scores is an optimistic one.")
    else:
        lines.append(verdict_in_words(confirmed))
    return "\n\n".join(lines)


def _code(text: object) -> str:
    """Format a name that a user gave so that Markdown shows it literally."""
    letters = shown_name(str(text)).replace("`", "'")
    return f"`{letters}`"


def recipe_in_words(recipe: Recipe) -> str:
    """Describe a recipe, as in `adamw, learning rate 0.003, one_cycle schedule, batches of 64, weight decay 0.01`."""
    words = [
        f"{recipe.optimizer}, learning rate {recipe.learning_rate:.3g}, {recipe.schedule} schedule",
        f"batches of {recipe.batch_size}",
        f"weight decay {recipe.weight_decay:.3g}",
    ]
    words += [f"momentum {recipe.momentum:.3g}"] if recipe.optimizer in WITH_MOMENTUM else []
    words += [f"label smoothing {recipe.label_smoothing:.3g}"] if recipe.label_smoothing else []
    words += [f"warm-up in {recipe.warm_up:.3g} of the steps"] if recipe.warm_up else []
    words += [f"moving average of weights with decay {recipe.ema:.6g}"] if recipe.ema else []
    words += [f"learning rate times {recipe.stage_decay:.3g} for each stage before the head"] * (recipe.stage_decay < 1)
    words += [f"{recipe.class_weights} class weights"] if recipe.class_weights != "none" else []
    words += augmentation_in_words(recipe)
    return ", ".join(words)


def augmentation_in_words(recipe: Recipe) -> list[str]:
    """Describe each augmentation of a recipe, as in `horizontal flips`, `shifts of up to 12.5 %`, `mixup 0.2`."""
    words = ["horizontal flips"] if recipe.flip == "horizontal" else []
    words += [f"shifts of up to {100 * recipe.translate:.3g} %"] if recipe.translate else []
    words += [f"cutout of {100 * recipe.cutout:.3g} %"] if recipe.cutout else []
    words += [
        f"{name} {value:.3g}"
        for name, value in (
            ("mixup", recipe.mixup),
            ("cutmix", recipe.cutmix),
            ("brightness", recipe.brightness),
            ("contrast", recipe.contrast),
        )
        if value
    ]
    return words


def _link(source: Path, target: Path) -> None:
    """Make a hard link to a file, which needs no more disk space; if the file system cannot, copy the file."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
