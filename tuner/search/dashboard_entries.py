"""What optuna-dashboard shows beside a trial's numbers: a note, and files as artifacts, where it looks for them.

Notes are system attributes of the study, artifacts of the trial. A checkpoint is dropped when others are better,
and a trial cannot be changed once it has ended: so a checkpoint's entry is kept with the study too, in a key of the
dashboard's own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.names import shown_name
from tuner.search.pictures import confusion_picture, curve_picture
from tuner.search.study_files import ArtifactKind, artifact_id, artifacts_folder
from tuner.training.candidate import Recipe
from tuner.training.engine import Engine
from tuner.training.results import Confusion

NOTE_LENGTH = 2_000
"""Characters; the dashboard cuts what is longer into several attributes."""
MAX_NOTES = 1_000
"""Trials of a study with a note: to open a study, the dashboard searches all notes for every trial. What a note says is
in the trial's attributes as well."""


@dataclass(frozen=True)
class Artifact:
    """A file of a trial, by its id in the folder of artifacts."""

    id: str
    filename: str
    mimetype: str

    def to_json(self) -> str:
        """What Optuna keeps of an artifact."""
        data = {"artifact_id": self.id, "filename": self.filename, "mimetype": self.mimetype, "encoding": None}
        return json.dumps(data)


@dataclass(frozen=True)
class Shown:
    """A note, the pictures of a trial, and its checkpoint. problem: why some of that could not be made."""

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
    """A note as optuna-dashboard keeps it; the prefix is `dashboard` for a study's own."""
    text = text if len(text) <= NOTE_LENGTH else f"{text[: NOTE_LENGTH - 1]}…"
    return {f"{prefix}:note_ver": version, f"{prefix}:note_str:0": text}


def checkpoint_key(trial_id: int, artifact: str) -> str:
    """The study attribute in which the dashboard looks for an artifact of a trial that may be taken back."""
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
    """Write a trial's pictures, link its checkpoint, and give both; the checkpoint is None where there is no file.

    study: as for artifact_id.
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
    """A trial in a few lines of Markdown: how it ended and why, its score, its network."""
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
    settings: Mapping[str, Any],
    engine: Engine,
    *,
    data: Mapping[str, Any],
    result: str,
    confirmed: Mapping[str, Any] | None,
) -> str:
    """A study in a few lines of Markdown: what it searches on what data, from which seed, how, and what was found."""
    dataset = data.get("dataset", settings.get("dataset", ""))
    is_looked_up = data.get("data_dir") and dataset != "digits" and not Path(dataset).is_absolute()
    where = f", looked for in {_code(data['data_dir'])}" if is_looked_up else ""
    lines = [
        f"## {name}",
        f"Convolutional networks for **{_code(dataset)}**{where}, from the "
        f"space {_code(settings.get('space_name', ''))}, {settings.get('epochs', '?')} epochs a trial, "
        f"seed {settings.get('seed', '?')}.",
        f"Trained on {engine.device} with {engine.num_threads} thread(s) a runner, in {engine.precision}; "
        f"blocks: {engine.blocks}.",
    ]
    lines += [result] if result else []
    if confirmed is None:
        lines.append("Not confirmed: the best of many validation scores is an optimistic one.")
    else:
        lines.append(verdict_in_words(confirmed))
    return "\n\n".join(lines)


BEATS_BASELINE = {
    "yes": "it beats {baseline}",
    "no": "it does not beat {baseline}",
    "undecided": "whether it beats {baseline} is undecided",
}
"""The verdict of a confirmation in words, for every place that shows it."""


def baseline_in_words(confirmed: Mapping[str, Any]) -> str:
    """What the winner is compared with: `the first configuration`, and what was changed so that it fits.

    Confirmations from before this was stored have taken the first trial that trained, whatever the space begins with.
    """
    return str(confirmed.get("baseline") or "the first configuration that was tried")


def beats_in_words(confirmed: Mapping[str, Any]) -> str:
    """Whether the winner beats the baseline, as a clause."""
    baseline = baseline_in_words(confirmed)
    if confirmed["baseline_number"] is None:
        return "there is no baseline to compare it with"
    if is_first(confirmed):
        others = [one for one in confirmed["candidates"] if one["number"] != confirmed["number"]]
        if any(one["validation_accuracies"] for one in others):
            return f"it is {baseline}: nothing else was found to be better"
        return f"it is {baseline}; nothing else was trained again"
    return BEATS_BASELINE[confirmed["beats_baseline"]].format(baseline=baseline)


def is_first(confirmed: Mapping[str, Any]) -> bool:
    """Whether the confirmed winner is the baseline itself, so that there is nothing to compare."""
    return bool(confirmed["number"] == confirmed["baseline_number"])


def is_compared(confirmed: Mapping[str, Any]) -> bool:
    """Whether there is a difference to speak of: the baseline is another trial, and could be trained again."""
    return not is_first(confirmed) and confirmed["difference"] is not None


def interval_in_words(confirmed: Mapping[str, Any]) -> str:
    """`95 % interval 97.10% to 98.20%`, or that there is none."""
    if confirmed["interval"] is None:
        return "no interval"
    low, high = confirmed["interval"]
    return f"95 % interval {low:.2%} to {high:.2%}"


def difference_in_words(confirmed: Mapping[str, Any]) -> str:
    """The difference between winner and baseline, with its interval: `+1.25 points, +0.30 to +2.20`."""
    points = f"{100 * confirmed['difference']:+.2f} points"
    if confirmed["difference_interval"] is None:
        return f"{points}, no interval"
    less, more = confirmed["difference_interval"]
    return f"{points}, {100 * less:+.2f} to {100 * more:+.2f}"


def later_trials(confirmed: Mapping[str, Any], num_counted: int, *, name: str) -> str:
    """A clause which says that a study has more trials than when it was confirmed; empty where it has not.

    name: of the study, as one types it.
    """
    known = confirmed["num_trials"]
    if num_counted <= known:
        return ""
    return (
        f"that was when the study had {counted(known, 'trial')}; now it has {num_counted:,}, and the later ones were "
        f"not looked at: `tuner confirm {name}` looks at them too"
    )


def counted(number: int, what: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def gap_in_words(confirmed: Mapping[str, Any]) -> str:
    """How far the search's own figure was off: `1.18 points higher`."""
    points = 100 * confirmed["gap"]
    if abs(points) < 0.005:
        return "the same"
    return f"{abs(points):.2f} points {'higher' if points > 0 else 'lower'}"


def verdict_in_words(confirmed: Mapping[str, Any]) -> str:
    """What the confirmation of a winner found, in two sentences."""
    found = (
        f"**Confirmed**: trial {confirmed['number']} has {confirmed['test_accuracy']:.2%} on the sealed test set "
        f"({interval_in_words(confirmed)}; the study had {counted(confirmed['num_trials'], 'trial')} then)."
    )
    beats = beats_in_words(confirmed).capitalize()
    if not is_compared(confirmed):
        return f"{found} {beats}."
    return (
        f"{found} {beats} (trial {confirmed['baseline_number']}, "
        f"{confirmed['baseline_test_accuracy']:.2%}): {difference_in_words(confirmed)}."
    )


def _code(text: object) -> str:
    """A name that a user gave, as Markdown shows it letter for letter."""
    letters = shown_name(str(text)).replace("`", "'")
    return f"`{letters}`"


def recipe_in_words(recipe: Recipe) -> str:
    """`adamw, learning rate 0.003, one_cycle schedule, batches of 64, weight decay 0.01`."""
    words = [
        f"{recipe.optimizer}, learning rate {recipe.learning_rate:.3g}, {recipe.schedule} schedule",
        f"batches of {recipe.batch_size}",
        f"weight decay {recipe.weight_decay:.3g}",
    ]
    words += [f"momentum {recipe.momentum:.3g}"] if recipe.optimizer == "sgd" else []
    words += [f"label smoothing {recipe.label_smoothing:.3g}"] if recipe.label_smoothing else []
    return ", ".join(words)


def _link(source: Path, target: Path) -> None:
    """Make one file of two names where the file system can, so that it takes no more of the disk; else copy it."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
