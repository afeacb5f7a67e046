import math
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from rehearsal import DIGITS, EPOCHS, SPACE

from tests.training.peak_memory import private_bytes
from tuner.data.development_part import DataSpec, load_development
from tuner.data.image_rule import is_decoded_for
from tuner.data.resident import ResidentData
from tuner.search.image_trainer import ImageTrainer
from tuner.search.study_files import checkpoint_path
from tuner.search.tasks import AllImagesTask, FreshSplitTask, LongerTask, SearchTask, SeedGroup, SingleTask
from tuner.space.sampling import candidate_from, first_params
from tuner.training.checkpoint import load_checkpoint, model_from
from tuner.training.engine import Engine
from tuner.training.loop import evaluate
from tuner.training.unused_memory import keep_freed_memory

CANDIDATE = candidate_from(first_params(SPACE)[0], SPACE, DIGITS, epochs=EPOCHS)
TASK = SearchTask(3, CANDIDATE, seed=5)


@pytest.fixture
def trainer(tmp_path: Path) -> ImageTrainer:
    dataset = load_development(DataSpec("digits", tmp_path / "data", tmp_path / "cache"))
    return ImageTrainer(dataset.folder, "study", tmp_path / "study", 0, Engine("cpu"))


def test_the_real_trainer_keeps_the_weights_of_its_best_epoch_and_all_that_explains_them(
    trainer: ImageTrainer,
) -> None:
    path = checkpoint_path(trainer.study_folder, TASK.number)
    results = list(trainer(TASK))
    best = max(results, key=lambda result: (result.validation_accuracy, -result.epoch))
    checkpoint = load_checkpoint(path)
    assert checkpoint.candidate == CANDIDATE
    assert checkpoint.scores == {
        "validation_accuracy": best.validation_accuracy,
        "validation_loss": best.validation_loss,
    }
    assert checkpoint.origin["epoch"] == best.epoch
    assert (checkpoint.origin["trial"], checkpoint.origin["seed"], checkpoint.origin["study"]) == (3, 5, "study")
    assert checkpoint.class_names == tuple("0123456789")
    data = trainer._open(TASK)
    assert (checkpoint.preprocessing.mean, checkpoint.preprocessing.std) == (data.mean, data.std)
    loss, correct_N, _ = evaluate(model_from(checkpoint), data, engine=trainer.engine)
    assert correct_N.mean() == best.validation_accuracy
    assert math.isclose(loss, best.validation_loss, rel_tol=1e-5)


def test_the_real_trainer_travels_small_and_trains_the_same_elsewhere(trainer: ImageTrainer) -> None:
    first = next(trainer(TASK))
    sent = pickle.dumps(trainer)
    assert len(sent) < 2_000
    again = next(pickle.loads(sent)(TASK))
    assert (again.train_loss, again.validation_accuracy) == (first.train_loss, first.validation_accuracy)


TWO_EPOCHS = replace(CANDIDATE, recipe=replace(CANDIDATE.recipe, epochs=2))


def test_seeds_together_are_scored_as_each_would_be_alone_and_leave_no_file(trainer: ImageTrainer) -> None:
    tasks = [FreshSplitTask(3, TWO_EPOCHS, seed, split_seed=seed) for seed in (7, 8)]
    results = list(trainer(SeedGroup(tuple(tasks))))
    assert [(result.epoch, result.seed_index) for result in results] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    for task, result in zip(tasks, results[2:], strict=True):
        first, last = trainer(task)
        assert math.isnan(first.validation_accuracy)
        assert result.validation_accuracy == pytest.approx(last.validation_accuracy, abs=0.01)
    assert not trainer.study_folder.exists()


def test_the_real_trainer_keeps_the_weights_of_seeds_together_each_in_its_own_file_as_it_would_alone(
    trainer: ImageTrainer,
) -> None:
    tasks = [AllImagesTask(3, TWO_EPOCHS, seed, trainer.study_folder / f"{seed}.pt") for seed in (7, 8)]
    list(trainer(SeedGroup(tuple(tasks))))
    for task in tasks:
        together = load_checkpoint(task.output)
        assert together.scores == {}
        list(trainer(task))
        again = load_checkpoint(task.output)
        assert (together.candidate, together.origin, together.preprocessing) == (
            again.candidate,
            again.origin,
            again.preprocessing,
        )
        for name, weight in together.weights.items():
            torch.testing.assert_close(weight, again.weights[name], atol=1e-3, rtol=1e-2)


def test_a_longer_training_keeps_its_best_epoch_in_its_own_file(trainer: ImageTrainer) -> None:
    output = trainer.study_folder / "longer.pt"
    longer = [result.validation_accuracy for result in trainer(LongerTask(3, CANDIDATE, 5, output))]
    assert not checkpoint_path(trainer.study_folder, TASK.number).exists()
    assert longer == [result.validation_accuracy for result in trainer(TASK)]
    own, other = load_checkpoint(output), load_checkpoint(checkpoint_path(trainer.study_folder, TASK.number))
    assert (own.scores, own.origin) == (other.scores, other.origin)


def test_images_are_held_once_however_many_splits_are_trained_on(trainer: ImageTrainer) -> None:
    tasks: list[SingleTask] = [
        TASK,
        AllImagesTask(3, CANDIDATE, 5, trainer.study_folder / "all.pt"),
        FreshSplitTask(3, CANDIDATE, 5, split_seed=1),
    ]
    held = [trainer._open(task) for task in tasks]
    assert len({data.images_NCHW.data_ptr() for data in held if isinstance(data, ResidentData)}) == 1
    assert len({data.mean for data in held}) == 3


def test_no_image_of_an_own_validation_folder_is_trained_on_by_a_fresh_split(tmp_path: Path) -> None:
    for part, levels in {"train": range(40), "val": range(200, 210), "test": range(100, 104)}.items():
        for level in levels:
            file = tmp_path / "pets" / part / ("cat" if level % 2 else "dog") / f"{level}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), level).save(file)
    dataset = load_development(DataSpec(str(tmp_path / "pets"), tmp_path / "data", tmp_path / "cache"))
    trainer = ImageTrainer(dataset.folder, "study", tmp_path / "study", 0, Engine("cpu"))
    for seed in range(5):
        data = trainer._open(FreshSplitTask(3, CANDIDATE, 5, split_seed=seed))
        trained = dataset.images_NCHW[data.train_indices_N, 0, 0, 0]
        assert sorted(trained.tolist()) == list(range(40))
        assert len(data.validation_indices_N) == 10


def bytes_with_what_was_freed() -> int:
    """Private bytes of this process, 100 MiB of them freed and kept."""
    tensors = [torch.ones(2**18) for _ in range(101)]
    del tensors[:-1]  # the last one is above the freed memory
    return private_bytes()[0]


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc is told what to keep")
def test_the_real_trainer_gives_back_what_was_freed_before_a_training_and_when_it_is_over(
    trainer: ImageTrainer,
) -> None:
    trainer = replace(trainer, engine=Engine("cpu", keep_freed_memory=True))
    try:
        list(trainer(TASK))  # torch sets itself up, and the data set is open
        before = bytes_with_what_was_freed()
        epochs = trainer(TASK)
        next(epochs)
        assert before - private_bytes()[0] > 80 * 2**20
        before = bytes_with_what_was_freed()
        list(epochs)
        assert before - private_bytes()[0] > 80 * 2**20
    finally:
        keep_freed_memory(False)


def test_a_checkpoint_says_how_its_images_were_resized(tmp_path: Path) -> None:
    spec = DataSpec("digits", tmp_path / "data", tmp_path / "cache", interpolation="bicubic", crop_fraction=0.5)
    dataset = load_development(spec)
    trainer = ImageTrainer(dataset.folder, "study", tmp_path / "study", 0, Engine("cpu"), resizing=dataset.resizing)
    next(trainer(TASK))
    preprocessing = load_checkpoint(checkpoint_path(trainer.study_folder, TASK.number)).preprocessing
    assert is_decoded_for(dataset, preprocessing)
    assert (preprocessing.interpolation, preprocessing.crop_fraction) == ("bicubic", 0.5)
