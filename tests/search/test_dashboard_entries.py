"""What a search leaves for optuna-dashboard: read back by the functions of the dashboard and of Optuna themselves."""

import json
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.trial import FrozenTrial
from optuna_dashboard._note import get_note_from_system_attrs
from optuna_dashboard.artifact._backend import list_trial_artifacts
from rehearsal import Rehearsal, curve_of, ended

from tuner.search.dashboard_entries import (
    NOTE_LENGTH,
    note_attributes,
    recipe_in_words,
    save_artifacts,
    study_note,
)
from tuner.search.study_files import NUM_KEPT, artifact_path, artifacts_folder, checkpoint_path
from tuner.search.tasks import TrialTask
from tuner.search.trial_pictures import confusion_picture, curve_picture
from tuner.training.candidate import Recipe
from tuner.training.engine import Engine
from tuner.training.results import EpochResult

NAMES = ("<script>alert(1)</script>", "b & c", "d")


def train_with_all(folder: Path) -> Any:
    """Curves by the candidate, with a checkpoint, a confusion matrix that names its epoch, and a latency at the end."""

    def train(task: TrialTask) -> Iterator[EpochResult]:
        curve = curve_of(task)
        for epoch, accuracy in enumerate(curve, start=1):
            path = checkpoint_path(folder, task.number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_text(f"{task.number} {epoch}")
            confusion = ((epoch, 0, 0), (0, 5, 1), (2, 0, 9))
            latency_ms = 0.25 if epoch == len(curve) else None
            yield EpochResult(epoch, 0.1, 0.1, accuracy, 0.0, confusion=confusion, latency_ms=latency_ms)

    return train


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Rehearsal:
    """A study of 20 trials under a memory limit, run in two goes."""
    study = Rehearsal(tmp_path_factory.mktemp("shown"))
    for num_trials in (9, 20):
        events = study.run(
            num_trials, trainer=train_with_all(study.study_folder), class_names=NAMES, memory_bytes=1_500_000
        )
        assert ended(events)
    return study


def shown(study: Rehearsal) -> list[tuple[FrozenTrial, str, dict[str, str]]]:
    """Every trial with its note and the ids of its artifacts by file name, as the dashboard reads them."""
    storage = study.record().storage
    attributes = storage.get_study_system_attrs(study.record().study_id)
    return [
        (
            trial,
            get_note_from_system_attrs(attributes, trial._trial_id)["body"],
            {
                meta["filename"]: meta["artifact_id"]
                for meta in list_trial_artifacts(attributes, trial.system_attrs, trial)
            },
        )
        for trial in storage.get_all_trials(study.record().study_id)
    ]


def test_every_trial_has_a_note_with_its_outcome_its_reason_its_score_and_its_network(study: Rehearsal) -> None:
    records = {trial.number: trial for trial in study.record().trials()}
    outcomes = set()
    for trial, note, _ in shown(study):
        record = records[trial.number]
        outcomes.add(record.outcome)
        assert f"**{record.outcome}**" in note
        assert record.reason in note
        assert trial.user_attrs["architecture"] in note
        assert f"{record.num_parameters:,} parameters" in note
        if record.validation_accuracy is not None:
            assert f"{record.validation_accuracy:.2%}, in epoch {record.best_epoch}" in note
        assert ("0.25 ms" in note) == (record.latency_ms == 0.25) == (record.outcome == "complete")
    assert outcomes >= {"complete", "pruned", "rejected"}


def test_the_memory_that_a_trial_needs_is_its_constraint_and_rejected_ones_break_it(study: Rehearsal) -> None:
    for trial, _, _ in shown(study):
        (beyond,) = trial.system_attrs["constraints"]
        assert (beyond > 0) == (trial.user_attrs["outcome"] == "rejected")
    loaded = optuna.load_study(study_name=study.name, storage=study.url)
    assert all(value <= 0 for value in loaded.best_trial.constraints.values())


def test_the_best_show_their_checkpoint_which_takes_no_disk_of_its_own_and_goes_with_them(study: Rehearsal) -> None:
    with_checkpoint = set()
    for trial, _, artifacts in shown(study):
        path = checkpoint_path(study.study_folder, trial.number)
        if path.name in artifacts:
            with_checkpoint.add(trial.number)
            linked = artifacts_folder(study.study_folder) / artifacts[path.name]
            identity = study.record().make_id()
            assert linked == artifact_path(study.study_folder, trial.number, "checkpoint", study=identity)
            assert os.path.samefile(linked, path)
    complete = [trial for trial in study.record().trials() if trial.outcome == "complete"]
    best = sorted(complete, key=lambda trial: (-(trial.validation_accuracy or 0.0), trial.number))[:NUM_KEPT]
    assert with_checkpoint == {trial.number for trial in best}
    assert len(complete) > NUM_KEPT
    left = {path for path in artifacts_folder(study.study_folder).iterdir() if path.read_bytes()[:4] != b"<svg"}
    assert len(left) == NUM_KEPT


@pytest.mark.slow
def test_pictures_are_artifacts_of_optunas_own_kind_of_the_best_epoch(study: Rehearsal) -> None:
    storage, num_pictures = study.record().storage, 0
    for trial in study.record().trials():
        frozen = storage.get_all_trials(study.record().study_id)[trial.number]
        metas = sorted(get_all_artifact_meta(frozen, storage=storage), key=lambda meta: meta.filename, reverse=True)
        if not metas:
            continue
        assert trial.outcome == "complete"
        assert [meta.filename for meta in metas] == ["learning-curve.svg", "confusion-matrix.svg"]
        curve, confusion = (
            ElementTree.parse(artifacts_folder(study.study_folder) / meta.artifact_id).getroot() for meta in metas
        )
        assert f"epoch {trial.best_epoch}: {trial.validation_accuracy:.2%}" in "".join(curve.itertext())
        words = [element.text for element in confusion.iter() if element.text]
        assert str(trial.best_epoch) in words
        assert "<script>ale…" in words
        num_pictures += 1
    assert num_pictures > NUM_KEPT


def test_a_trial_that_is_gone_on_with_names_the_runner_that_trained_it(study: Rehearsal) -> None:
    assert {trial.runner for trial in study.record().trials()} == {0}


def test_a_long_note_is_cut_so_that_the_dashboard_reads_it_from_one_attribute() -> None:
    attributes = note_attributes("x" * 5_000, version=3)
    note = get_note_from_system_attrs(attributes, None)
    assert note == {"version": 3, "body": "x" * (NOTE_LENGTH - 1) + "…"}


def test_a_picture_of_one_epoch_and_of_many_classes_is_still_a_picture() -> None:
    assert ElementTree.fromstring(curve_picture({1: 0.5}, best_epoch=1)) is not None
    confusion = tuple(tuple(int(row == column) for column in range(100)) for row in range(100))
    root = ElementTree.fromstring(confusion_picture(confusion, [str(index) for index in range(100)]))
    assert sum(element.tag.endswith("rect") for element in root.iter()) == 102


def test_where_files_cannot_be_linked_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("this file system has no hard links")

    monkeypatch.setattr(os, "link", refuse)
    checkpoint = tmp_path / "study" / "trial-00000.pt"
    checkpoint.parent.mkdir()
    checkpoint.write_text("weights")
    options: dict[str, Any] = {"curve": {1: 0.5}, "best_epoch": 1, "confusion": None, "class_names": ()}
    pictures, linked = save_artifacts(checkpoint.parent, 0, study="a", checkpoint=checkpoint, **options)
    assert linked is not None
    assert [picture.filename for picture in pictures] == ["learning-curve.svg"]
    assert (artifacts_folder(checkpoint.parent) / linked.id).read_text() == "weights"
    assert json.loads(linked.to_json())["filename"] == "trial-00000.pt"


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            Recipe("adamw", 3e-3, "one_cycle", weight_decay=0.01),
            "adamw, learning rate 0.003, one_cycle schedule, batches of 64, weight decay 0.01",
        ),
        (
            Recipe("muon", 0.01, label_smoothing=0.1, warm_up=0.05, ema=0.9995, class_weights="balanced"),
            "muon, learning rate 0.01, constant schedule, batches of 64, weight decay 0, momentum 0.9, "
            "label smoothing 0.1, warm-up in 0.05 of the steps, moving average of weights with decay 0.9995, "
            "balanced class weights",
        ),
        (
            Recipe("adamw", 1e-3, stage_decay=0.3),
            "adamw, learning rate 0.001, constant schedule, batches of 64, weight decay 0, "
            "learning rate times 0.3 for each stage before the head",
        ),
        (
            Recipe("sgdw", 0.1, momentum=0.8),
            "sgdw, learning rate 0.1, constant schedule, batches of 64, weight decay 0, momentum 0.8",
        ),
    ],
)
def test_a_recipe_in_words_names_what_differs_from_plain_training(recipe: Recipe, words: str) -> None:
    assert recipe_in_words(recipe) == words


def test_the_note_of_a_study_says_how_its_networks_are_trained(study: Rehearsal) -> None:
    settings = study.record().settings
    pretrained = replace(settings, space={**settings.space, "backbone": {"name": {"choices": ["resnet18"]}}})
    for one, words in ((settings, "in bf16; blocks: fused"), (pretrained, "in fp32; blocks: layers")):
        engine = Engine(precision="bf16", blocks="fused")
        assert words in study_note("a", one, engine, data={}, result="", confirmed=None)
