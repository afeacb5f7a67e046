import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rehearsal import SETTINGS, Rehearsal

from tuner.architecture.factory import build_model
from tuner.data.images import Preprocessing
from tuner.errors import CheckpointError, StudyError
from tuner.search.checkpoints import load_trial_checkpoint, refuse_foreign_checkpoints
from tuner.search.record import StudyRecord
from tuner.search.study_files import checkpoint_path, confirmed_path
from tuner.search.summary import summarise
from tuner.search.tasks import training_seed
from tuner.search.trial_record import TrialRecord
from tuner.training.candidate import Candidate
from tuner.training.checkpoint import Checkpoint, save_checkpoint


def checkpoint_of(record: StudyRecord, trial: TrialRecord) -> Checkpoint:
    """What a runner leaves of a trial, but for the training."""
    assert trial.best_epoch is not None
    assert trial.validation_accuracy is not None
    return Checkpoint(
        candidate=trial.candidate,
        weights=build_model(trial.candidate.architecture).state_dict(),
        preprocessing=Preprocessing(1, 8, 8, mean=(0.3,), std=(0.4,)),
        class_names=tuple("0123456789"),
        scores={"validation_accuracy": trial.validation_accuracy},
        origin={
            "dataset": "digits",
            "dataset_digest": SETTINGS.dataset_digest,
            "study": record.name,
            "trial": trial.number,
            "epoch": trial.best_epoch,
            "seed": training_seed(SETTINGS.seed, trial.candidate),
        },
        versions={},
    )


@pytest.fixture
def study(tmp_path: Path) -> Rehearsal:
    """A study of four trials, whose best has its checkpoint."""
    study = Rehearsal(tmp_path)
    study.run(4)
    best = best_of(study)
    save_checkpoint(checkpoint_of(study.record(), best), checkpoint_path(study.study_folder, best.number))
    return study


def best_of(study: Rehearsal) -> TrialRecord:
    best = summarise(study.record(), studies=study.folder).best
    assert best is not None
    return best


def test_the_checkpoint_that_the_record_tells_of_is_loaded(study: Rehearsal) -> None:
    loaded = load_trial_checkpoint(study.record(), best_of(study), studies=study.folder)
    assert loaded.candidate == best_of(study).candidate
    refuse_foreign_checkpoints(study.study_folder, study.record(), study.name)


def of_another_study(checkpoint: Checkpoint) -> Checkpoint:
    recipe = replace(checkpoint.candidate.recipe, learning_rate=0.5)
    return replace(checkpoint, candidate=Candidate(checkpoint.candidate.architecture, recipe))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"study": "other"}, "its study is other, not rehearsal"),
        ({"trial": 77}, "its trial is 77, not"),
        ({"epoch": 77}, "its epoch is 77, not"),
        ({"seed": 77}, "its seed is 77, not"),
        ({"dataset_digest": "e"}, "its dataset_digest is e, not d"),
        ("score", "its score is 0.125, not"),
        ("candidate", "its candidate is"),
    ],
)
def test_a_checkpoint_of_something_else_is_not_believed(study: Rehearsal, changed: Any, said: str) -> None:
    best = best_of(study)
    checkpoint = checkpoint_of(study.record(), best)
    if changed == "score":
        checkpoint = replace(checkpoint, scores={"validation_accuracy": 0.125})
    elif changed == "candidate":
        checkpoint = of_another_study(checkpoint)
    else:
        checkpoint = replace(checkpoint, origin={**checkpoint.origin, **changed})
    path = checkpoint_path(study.study_folder, best.number)
    save_checkpoint(checkpoint, path)
    with pytest.raises(CheckpointError, match=re.escape(said)) as caught:
        load_trial_checkpoint(study.record(), best, studies=study.folder)
    assert str(caught.value).startswith(f"{path}: not the checkpoint of trial {best.number} of this study")
    assert "\n" not in str(caught.value)


def test_a_new_study_is_refused_a_folder_with_checkpoints_of_another_one(study: Rehearsal) -> None:
    with pytest.raises(StudyError, match=r"trial-0000\d\.pt: a checkpoint of another study 'rehearsal'.*--study NAME"):
        refuse_foreign_checkpoints(study.study_folder, None, study.name)


def test_a_new_study_is_refused_a_folder_with_the_confirmed_winner_of_another_one(tmp_path: Path) -> None:
    confirmed_path(tmp_path).write_bytes(b"anything")
    with pytest.raises(StudyError, match=r"confirmed\.pt: a checkpoint of another study"):
        refuse_foreign_checkpoints(tmp_path, None, "a")


def test_a_study_that_is_gone_on_with_is_refused_checkpoints_that_are_not_its_own(study: Rehearsal) -> None:
    foreign = of_another_study(checkpoint_of(study.record(), best_of(study)))
    save_checkpoint(foreign, checkpoint_path(study.study_folder, best_of(study).number))
    with pytest.raises(StudyError, match="a checkpoint of another study"):
        refuse_foreign_checkpoints(study.study_folder, study.record(), study.name)


def test_a_study_that_is_gone_on_with_is_refused_checkpoints_of_trials_that_it_does_not_have(study: Rehearsal) -> None:
    save_checkpoint(checkpoint_of(study.record(), best_of(study)), checkpoint_path(study.study_folder, 99))
    with pytest.raises(StudyError, match=r"trial-00099\.pt: a checkpoint of another study"):
        refuse_foreign_checkpoints(study.study_folder, study.record(), study.name)


def test_files_that_are_not_checkpoints_of_trials_are_nobodys_business(study: Rehearsal) -> None:
    (study.study_folder / "best.pt").write_bytes(b"an export of the user's own")
    refuse_foreign_checkpoints(study.study_folder, study.record(), study.name)
    refuse_foreign_checkpoints(study.folder / "empty", None, "empty")
