"""Stored trials of real digits, trained again for other numbers of epochs."""

import re
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.deliver.train_trial import (
    Trained,
    TrainingStarted,
    _told,
    train_trial,
    train_trial_events,
)
from tuner.errors import CheckpointError, DataError, DeviceError, OptionError, StudyError, TunerError
from tuner.options import RunOptions
from tuner.pipeline import run
from tuner.search.events import EpochFinished
from tuner.search.locks import hold
from tuner.search.record import ENGINE, StudyRecord
from tuner.search.study_files import checkpoint_path, trained_path
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import load_study
from tuner.temporary import temporary_beside
from tuner.training.candidate import Candidate, Recipe
from tuner.training.checkpoint import load_checkpoint
from tuner.training.results import Diverged

TINY = """
[network]
num_blocks = { low = 1, high = 2 }
[block]
out_channels = { low = 4, high = 16, step = 4 }
[recipe]
learning_rate = { low = 1e-3, high = 1e-2, log = true }
schedule = "cosine"
"""
EPOCHS = 2


class Study:
    """A study in a folder, and where its files are."""

    def __init__(self, studies: Path) -> None:
        self.studies, self.folder = studies, studies / "digits-tiny"

    @property
    def record(self) -> StudyRecord:
        return load_study(existing_storage(self.studies))

    def add(self, **recipe: object) -> int:
        """A trial that was never trained."""
        architecture = Architecture(InputSpec(1, 8, 8, 10), (PlainBlock(4),), Head())
        candidate = Candidate(architecture, Recipe(**recipe))  # type: ignore[arg-type]
        return self.record.begin(candidate, {}, {}, {"num_parameters": 1, "flops": 1})

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.name != ".lock"}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    (tmp_path / "tiny.toml").write_text(TINY, encoding="utf-8")
    studies = tmp_path / "studies"
    run(
        RunOptions(
            space=str(tmp_path / "tiny.toml"),
            studies=studies,
            trials=1,
            epochs=EPOCHS,
            workers=1,
            device="cpu",
            confirm="no",
        )
    )
    return Study(studies)


def weights(path: Path) -> dict[str, Tensor]:
    return dict(load_checkpoint(path).weights)


def test_as_many_epochs_as_in_the_search_give_the_trial_again_bit_for_bit(study: Study) -> None:
    trial = study.record.trials()[0]
    events = list(train_trial_events(study.record, 0, epochs=EPOCHS, studies=study.studies))
    curve = {one.result.epoch: one.result.validation_accuracy for one in events if isinstance(one, EpochFinished)}
    assert curve == trial.curve
    before, after = weights(checkpoint_path(study.folder, 0)), weights(trained_path(study.folder, 0))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_checkpoint_is_of_the_best_epoch_and_says_what_it_is_of(study: Study) -> None:
    started, *epochs, trained = train_trial_events(study.record, 0, epochs=5, studies=study.studies)
    results = [event.result for event in epochs if isinstance(event, EpochFinished)]
    best = max(results, key=lambda result: (result.validation_accuracy, -result.epoch))
    searched = study.record.trials()[0].validation_accuracy
    path = trained_path(study.folder, 0)
    assert trained == Trained("digits-tiny", 0, path, 5, best.epoch, best.validation_accuracy, searched)
    assert isinstance(started, TrainingStarted)
    assert (started.num_train, started.num_validation) == (1149, 288)
    checkpoint = load_checkpoint(path)
    assert checkpoint.scores == {
        "validation_accuracy": best.validation_accuracy,
        "validation_loss": best.validation_loss,
    }
    assert checkpoint.candidate.recipe.epochs == 5
    assert checkpoint.candidate.architecture == study.record.trials()[0].candidate.architecture
    origin = checkpoint.origin
    assert (origin["study"], origin["trial"], origin["epoch"], origin["split_seed"]) == (
        "digits-tiny",
        0,
        best.epoch,
        0,
    )
    assert origin["seed"] != load_checkpoint(checkpoint_path(study.folder, 0)).origin["seed"]


def test_a_schedule_spans_the_new_number_of_epochs(study: Study) -> None:
    first, last = (
        [
            event.result.train_loss
            for event in train_trial_events(study.record, 0, epochs=epochs, studies=study.studies)
            if isinstance(event, EpochFinished)
        ]
        for epochs in (2, 8)
    )
    # A cosine that had come to zero after two epochs would have risen again, or stood still.
    assert last[-1] < first[-1]
    falling = last[:6]  # in the last two epochs the rate is nearly zero, and the loss is noise
    assert falling == sorted(falling, reverse=True)


def test_a_trial_that_was_never_trained_will_do_and_a_file_elsewhere_leaves_the_study_alone(
    study: Study, tmp_path: Path
) -> None:
    number = study.add(learning_rate=1e-2)
    before = study.files()
    trained = train_trial(study.record, number, epochs=1, studies=study.studies, output=tmp_path / "new" / "mine.pt")
    assert trained.search_accuracy is None
    assert load_checkpoint(tmp_path / "new" / "mine.pt").origin["trial"] == number
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine.pt"]
    assert study.files() == before


def test_the_file_of_a_trial_is_replaced_by_the_next_one_and_any_other_is_refused(study: Study, tmp_path: Path) -> None:
    first, second = (
        load_checkpoint(train_trial(study.record, 0, epochs=epochs, studies=study.studies).checkpoint)
        for epochs in (1, 2)
    )
    assert (first.candidate.recipe.epochs, second.candidate.recipe.epochs) == (1, 2)
    before = study.files()
    (tmp_path / "mine.pt").write_text("mine")
    for taken in (tmp_path / "mine.pt", checkpoint_path(study.folder, 0), tmp_path):
        with pytest.raises(CheckpointError, match="already exists and will not be overwritten"):
            train_trial(study.record, 0, epochs=1, studies=study.studies, output=taken)
    assert (tmp_path / "mine.pt").read_text() == "mine"
    assert study.files() == before


def test_a_training_that_is_given_up_leaves_everything_as_it_was(study: Study) -> None:
    train_trial(study.record, 0, epochs=1, studies=study.studies)
    before = study.files()
    with closing(train_trial_events(study.record, 0, epochs=3, studies=study.studies)) as events:
        while not isinstance(next(events), EpochFinished):
            pass
    assert study.files() == before


def test_a_training_beside_others_removes_only_what_processes_that_are_gone_have_left(
    study: Study, tmp_path: Path
) -> None:
    living, other = temporary_beside(tmp_path / "mine.pt"), temporary_beside(tmp_path / "other.pt")
    gone = living.with_name(re.sub(r"-\d+-(\w+\.tmp)$", r"-1-\1", living.name))  # of a process before this one
    gone_other = other.with_name(re.sub(r"-\d+-(\w+\.tmp)$", r"-1-\1", other.name))
    for path in (living, other, gone, gone_other):
        path.write_text("half")
    train_trial(study.record, 0, epochs=1, studies=study.studies, output=tmp_path / "mine.pt")
    assert [path.exists() for path in (living, other, gone, gone_other)] == [True, True, False, True]


def test_a_loss_that_is_not_finite_is_one_line_and_leaves_everything_as_it_was(study: Study) -> None:
    number = study.add(optimizer="sgd", learning_rate=100.0)
    before = study.files()
    with pytest.raises(
        StudyError, match=rf"trial {number} cannot be trained for 2 epochs: the .* loss of epoch"
    ) as caught:
        train_trial(study.record, number, epochs=2, studies=study.studies)
    assert "\n" not in str(caught.value)
    assert study.files() == before


def test_want_of_memory_is_one_line_and_a_fault_of_the_program_is_not_hidden() -> None:
    with (
        pytest.raises(StudyError, match=r"^trial 3 cannot be trained for 5 epochs: there is not enough memory"),
        _told(3, 5),
    ):
        torch.empty(2**60)
    with pytest.raises(StudyError, match="the loss is nan"), _told(3, 5):
        raise Diverged("the loss is nan")
    with pytest.raises(RuntimeError, match="a bug"), _told(3, 5):
        raise RuntimeError("a bug")


def test_a_study_that_runs_keeps_its_folder_to_itself_and_a_file_elsewhere_is_written_all_the_same(
    study: Study, tmp_path: Path
) -> None:
    with hold(study.folder, "digits-tiny"):
        with pytest.raises(StudyError, match=r"is being run by another process; wait for it, or give -o FILE"):
            train_trial(study.record, 0, epochs=1, studies=study.studies)
        train_trial(study.record, 0, epochs=1, studies=study.studies, output=tmp_path / "mine.pt")
    assert not trained_path(study.folder, 0).exists()
    with closing(train_trial_events(study.record, 0, epochs=1, studies=study.studies)) as events:
        next(events)
        with pytest.raises(StudyError, match="is being run"), hold(study.folder, "digits-tiny"):
            pass


def other_images(record: StudyRecord) -> None:
    record.save_data_spec(replace(record.data_spec(Path("cache")), image_size=(6, 6)))


def no_images(record: StudyRecord) -> None:
    record.save_data_spec(replace(record.data_spec(Path("cache")), dataset="./gone"))


def other_machine(record: StudyRecord) -> None:
    engine = replace(record.engine, device="cuda:99")
    record.storage.set_study_user_attr(record.study_id, ENGINE, engine.to_json())


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (other_images, StudyError, "the images of digits are not those that study 'digits-tiny' was run with"),
        (no_images, DataError, "gone"),
        (other_machine, DeviceError, "study 'digits-tiny' trains on cuda:99, as its search did, and torch finds no"),
    ],
)
def test_what_is_not_as_it_was_in_the_search_is_refused_in_one_line(
    study: Study, change: Callable[[StudyRecord], None], error: type[TunerError], said: str
) -> None:
    change(study.record)
    with pytest.raises(error, match=said) as caught:
        train_trial(study.record, 0, epochs=1, studies=study.studies)
    assert "\n" not in str(caught.value)
    assert not trained_path(study.folder, 0).exists()


def test_a_trial_a_number_of_epochs_and_a_place_that_cannot_be_are_refused_in_one_line(
    study: Study, tmp_path: Path
) -> None:
    record, studies = study.record, study.studies
    with pytest.raises(StudyError, match="study 'digits-tiny' has no trial 7: its last is trial 0"):
        train_trial(record, 7, epochs=1, studies=studies)
    for epochs in (0, 100_001, True, 2.5):
        with pytest.raises(OptionError, match=rf"epochs must be a whole number from 1 to 100,000, got {epochs}"):
            train_trial(record, 0, epochs=epochs, studies=studies)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CheckpointError, match=r"mine\.pt: cannot be written"):
        train_trial(record, 0, epochs=1, studies=studies, output=tmp_path / "file" / "mine.pt")
    for name in ("mine.onnx", "mine.safetensors", "mine.pt2", "mine.py"):
        with pytest.raises(CheckpointError, match=r"whose name ends with \.pt"):
            train_trial(record, 0, epochs=1, studies=studies, output=tmp_path / name)
