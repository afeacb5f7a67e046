"""The whole network of a checkpoint that is kept must agree with the features that it was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.pretrained_networks import NUM_STAGES, Pretrained, make_pretrained, opened_data
from tuner.data.feature_data import FeatureData
from tuner.errors import BackboneError
from tuner.search.image_trainer import ImageTrainer
from tuner.search.study_files import NUM_KEPT, checkpoint_path
from tuner.search.tasks import LongerTask, SearchTask, TrainingEnded
from tuner.search.trial_runner import TrialRunner
from tuner.training import whole_network
from tuner.training.checkpoint import Checkpoint, load_checkpoint
from tuner.training.whole_network import disagreement


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    return make_pretrained(tmp_path_factory.mktemp("pretrained"))


@pytest.fixture
def trainer(pretrained: Pretrained, tmp_path: Path) -> ImageTrainer:
    return pretrained.trainer(tmp_path)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the trials whose whole network is checked, in order."""
    numbers: list[int] = []

    def check(checkpoint: Checkpoint, *arguments: Any, **others: Any) -> str:
        numbers.append(int(checkpoint.origin["trial"]))
        return disagreement(checkpoint, *arguments, **others)

    monkeypatch.setattr("tuner.search.backbone_data.disagreement", check)
    return numbers


def data_of(trainer: ImageTrainer, task: SearchTask) -> tuple[FeatureData, Tensor]:
    """The features that a task is trained on, which may be changed in memory, and the images."""
    data = opened_data(trainer, task)
    assert isinstance(data, FeatureData)
    (dataset,) = trainer._open_backbones()._datasets.values()
    return data, dataset.images_NCHW


def feature_files(pretrained: Pretrained) -> list[Path]:
    return list((pretrained.cache_dir / "features").glob("*.npy"))


@pytest.mark.parametrize(
    ("trained_stages", "others"), [(0, {}), pytest.param(2, {"views": 1, "flip": "horizontal"}, marks=pytest.mark.slow)]
)
def test_a_trial_whose_features_are_not_those_of_its_images_fails_and_they_are_computed_again(
    pretrained: Pretrained, trainer: ImageTrainer, trained_stages: int, others: dict[str, Any]
) -> None:
    task = SearchTask(1, pretrained.candidate(trained_stages, **others), seed=3)
    data, _ = data_of(trainer, task)
    data.views_NX[0][data.validation_indices_N[7]] += 1.0
    files = feature_files(pretrained)
    runner = TrialRunner(trainer)
    runner.start(task)
    runner.next_epoch()
    ended = runner.next_epoch()
    assert isinstance(ended, TrainingEnded)
    assert ended.kind == "failed"
    assert ended.reason.startswith("the whole network does not agree with the cached features of its frozen stages (")
    assert "logits differ by" in ended.reason
    assert not checkpoint_path(trainer.study_folder, 1).exists()
    assert len(feature_files(pretrained)) == len(files) - len(data.views_NX)
    list(trainer(task))
    assert checkpoint_path(trainer.study_folder, 1).exists()


def test_training_for_longer_is_checked_too(pretrained: Pretrained, trainer: ImageTrainer, tmp_path: Path) -> None:
    candidate = pretrained.candidate()
    data, _ = data_of(trainer, SearchTask(1, candidate, seed=3))
    data.views_NX[0][data.validation_indices_N[-1]] += 1.0
    with pytest.raises(BackboneError, match=r"does not agree with the cached features") as caught:
        list(trainer(LongerTask(1, candidate, 3, tmp_path / "longer.pt")))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "longer.pt").exists()


def trained(trainer: ImageTrainer, task: SearchTask) -> Checkpoint:
    list(trainer(task))
    return load_checkpoint(checkpoint_path(trainer.study_folder, task.number))


@pytest.mark.parametrize("recipe", [{}, {"ema": 0.9}])
def test_a_network_agrees_with_its_features_and_its_score(
    pretrained: Pretrained, trainer: ImageTrainer, recipe: dict[str, float]
) -> None:
    task = SearchTask(1, pretrained.candidate(2, **recipe), seed=3)
    checkpoint = trained(trainer, task)
    data, images_NCHW = data_of(trainer, task)
    assert disagreement(checkpoint, data, images_NCHW, engine=trainer.engine) == ""
    accuracy = checkpoint.scores["validation_accuracy"]
    others = replace(checkpoint, scores={"validation_accuracy": accuracy - 0.1})
    reason = disagreement(others, data, images_NCHW, engine=trainer.engine)
    num = len(data.validation_indices_N)
    assert reason.startswith(f"{round(accuracy * num)} of {num} validation images are correct, and ")


def test_a_wrong_weight_of_a_frozen_stage_is_found(pretrained: Pretrained, trainer: ImageTrainer) -> None:
    task = SearchTask(1, pretrained.candidate(), seed=3)
    checkpoint = trained(trainer, task)
    data, images_NCHW = data_of(trainer, task)
    weights = {**checkpoint.weights, "conv5.1.bias": checkpoint.weights["conv5.1.bias"] + 1}
    wrong = replace(checkpoint, weights=weights)
    assert "logits differ by" in disagreement(wrong, data, images_NCHW, engine=trainer.engine)
    weights["conv5.1.bias"] = torch.full_like(weights["conv5.1.bias"], torch.nan)
    assert "logits differ by nan" in disagreement(wrong, data, images_NCHW, engine=trainer.engine)


def test_a_large_validation_part_is_checked_on_images_at_equal_distances(
    pretrained: Pretrained, trainer: ImageTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = SearchTask(1, pretrained.candidate(), seed=3)
    checkpoint = trained(trainer, task)
    data, images_NCHW = data_of(trainer, task)
    monkeypatch.setattr(whole_network, "MOST_IMAGES", 8)
    rows_V = data.validation_indices_N
    chosen = [rows_V[len(rows_V) * number // 8] for number in range(8)]
    for row in rows_V:
        if row not in chosen:
            data.views_NX[0][row] += 1e-3 * data.views_NX[0][row]
    assert disagreement(checkpoint, data, images_NCHW, engine=trainer.engine) == ""
    for row in chosen:
        own_X = data.views_NX[0][row].clone()
        data.views_NX[0][row] += 1.0
        assert "logits differ by" in disagreement(checkpoint, data, images_NCHW, engine=trainer.engine)
        data.views_NX[0][row] = own_X


def test_a_trial_is_not_checked_if_enough_of_its_runner_are_better(
    pretrained: Pretrained, trainer: ImageTrainer, checked: list[int]
) -> None:
    better = [pretrained.candidate(learning_rate=1e-2 - 1e-4 * number) for number in range(NUM_KEPT)]
    worse = pretrained.candidate(learning_rate=1e-7)
    for number, candidate in enumerate([*better, worse]):
        list(trainer(SearchTask(number, candidate, seed=3)))
    assert checked == list(range(NUM_KEPT))
    list(trainer(SearchTask(6, better[0], seed=3)))  # it is as good as trial 0, so it is better than some of them
    assert checked[NUM_KEPT:] in ([], [6])
    list(trainer(LongerTask(7, worse, 3, trainer.study_folder / "longer.pt")))
    assert checked[-1] == 7


def test_networks_that_were_not_trained_on_features_are_not_checked(
    pretrained: Pretrained, trainer: ImageTrainer, checked: list[int]
) -> None:
    task = SearchTask(1, pretrained.candidate(NUM_STAGES, epochs=1), seed=3)
    assert trained(trainer, task).scores
    assert checked == []


@pytest.fixture(autouse=True)
def _features_as_on_disk(pretrained: Pretrained) -> Iterator[None]:
    """Some tests change features in memory, which must not reach the file."""
    before = {path: path.read_bytes() for path in feature_files(pretrained)}
    yield
    assert all(path.read_bytes() == content for path, content in before.items() if path.exists())
