"""Pretrained networks in the trainer: features, views, images, weights and the checkpoint of the whole network."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.pretrained_networks import NUM_STAGES, Pretrained, make_pretrained, opened_data
from tuner.architecture.backbone_modules import SplitNetwork
from tuner.data.feature_data import FeatureData
from tuner.data.resident import ResidentData
from tuner.pretrained import features
from tuner.search.image_trainer import ImageTrainer
from tuner.search.study_files import checkpoint_path
from tuner.search.tasks import AllImagesTask, FreshSplitTask, SearchTask
from tuner.training.checkpoint import Checkpoint, load_checkpoint, model_from
from tuner.training.loop import evaluate
from tuner.training.results import EpochResult, Preparing
from tuner.training.tail import head_alone


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    return make_pretrained(tmp_path_factory.mktemp("pretrained"))


def trained(pretrained: Pretrained, folder: Path, task: SearchTask) -> tuple[ImageTrainer, list[float], Checkpoint]:
    """The trainer, the accuracy of each epoch, and the checkpoint."""
    trainer = pretrained.trainer(folder)
    accuracies = [result.validation_accuracy for result in trainer(task)]
    return trainer, accuracies, load_checkpoint(checkpoint_path(trainer.study_folder, task.number))


def images_of(trainer: ImageTrainer, task: SearchTask) -> ResidentData:
    """The images that a network over the whole backbone is trained on."""
    every = Pretrained(Path(), task.candidate.architecture.weights, Path()).candidate(NUM_STAGES)
    backbones = trainer._open_backbones()
    data = backbones.open(every, backbones.network(every, seed=0), lambda dataset: trainer._split(dataset, task))
    assert isinstance(data, ResidentData)
    return data


@pytest.mark.parametrize("trained_stages", [0, 2, NUM_STAGES])
def test_the_whole_network_of_a_checkpoint_scores_as_its_features_did(
    pretrained: Pretrained, tmp_path: Path, trained_stages: int
) -> None:
    task = SearchTask(1, pretrained.candidate(trained_stages), seed=3)
    trainer, accuracies, checkpoint = trained(pretrained, tmp_path, task)
    loss, correct_N, _ = evaluate(model_from(checkpoint), images_of(trainer, task), engine=trainer.engine)
    assert correct_N.mean() == max(accuracies) == checkpoint.scores["validation_accuracy"]
    assert loss == pytest.approx(checkpoint.scores["validation_loss"], rel=1e-4)
    preprocessing = checkpoint.preprocessing
    assert (preprocessing.channels, preprocessing.image_size) == (3, (32, 32))
    assert preprocessing.mean == (0.485, 0.456, 0.406)
    assert preprocessing.crop_fraction == 0.875


def test_a_checkpoint_has_the_version_of_timm_only_if_its_backbone_is_one_of_timm(
    pretrained: Pretrained, tmp_path: Path
) -> None:
    own = SearchTask(1, pretrained.candidate(), seed=3)
    network = replace(own.candidate.architecture, backbone="timm/test_efficientnet")
    of_timm = replace(own, candidate=replace(own.candidate, architecture=network))
    trainer, result = pretrained.trainer(tmp_path), EpochResult(1, 0.0, 0.0, 0.5, 0.0)
    data = opened_data(trainer, own)
    assert "timm" not in trainer._checkpoint(own, data, result, {}).versions
    assert trainer._checkpoint(of_timm, data, result, {}).versions["timm"] == version("timm")


def weights_after(pretrained: Pretrained, folder: Path, trained_stages: int, **recipe: float) -> dict[str, Tensor]:
    _, _, checkpoint = trained(pretrained, folder, SearchTask(1, pretrained.candidate(trained_stages, **recipe), 3))
    return dict(checkpoint.weights)


def test_frozen_stages_keep_their_weights_and_statistics_and_the_others_do_not(
    pretrained: Pretrained, tmp_path: Path
) -> None:
    before = torch.load(pretrained.file, weights_only=True)
    after = weights_after(pretrained, tmp_path, 2)
    changed = {name for name, value in after.items() if name in before and not torch.equal(value, before[name])}
    of_head = {name for name in after if name.startswith("fc.")}
    assert changed - of_head
    assert all(name.startswith(("conv5", "stage4")) for name in changed - of_head)
    assert {name.rpartition(".")[2] for name in changed} == {"weight", "bias"}  # statistics stay, trained or not
    only_head = weights_after(pretrained, tmp_path / "frozen", 0)
    assert all(torch.equal(only_head[name], before[name]) for name in before if not name.startswith("fc."))


@pytest.mark.parametrize("trained_stages", [2, NUM_STAGES])
def test_stages_are_trained_after_a_head_that_was_trained_alone(
    pretrained: Pretrained, tmp_path: Path, trained_stages: int
) -> None:
    task = AllImagesTask(0, head_alone(pretrained.candidate(trained_stages)), 3, tmp_path / "alone.pt")
    trainer = pretrained.trainer(tmp_path)
    for _ in trainer(task):
        pass
    alone = load_checkpoint(task.output).weights
    still = replace(task, candidate=pretrained.candidate(trained_stages, learning_rate=1e-12), output=tmp_path / "2.pt")
    for _ in trainer(still):
        pass
    begun = load_checkpoint(still.output).weights
    for name in ("fc.0.weight", "fc.0.bias"):
        assert torch.allclose(begun[name], alone[name], atol=1e-6)


def test_training_on_features_is_training_with_frozen_stages(
    pretrained: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_features = weights_after(pretrained, tmp_path / "features", 2)
    monkeypatch.setattr(features, "LARGEST_SHARE", 0.0)
    on_images = weights_after(pretrained, tmp_path / "images", 2)
    assert on_features.keys() == on_images.keys()
    for name, value in on_features.items():
        torch.testing.assert_close(value, on_images[name], rtol=1e-3, atol=1e-4)


def test_the_progress_of_features_is_yielded_and_can_be_stopped(pretrained: Pretrained, tmp_path: Path) -> None:
    own = replace(pretrained, cache_dir=tmp_path / "cache")
    shutil.copytree(pretrained.cache_dir / "weights", own.cache_dir / "weights")
    task = SearchTask(1, own.candidate(), seed=3)
    steps = own.trainer(tmp_path, progress_seconds=0.0)(task)
    assert next(steps) == Preparing("computing features", 32, 1437)
    steps.close()
    assert not [path for path in (own.cache_dir / "features").iterdir() if path.suffix != ".lock"]
    whole = list(own.trainer(tmp_path, progress_seconds=0.0)(task))
    assert whole[44] == Preparing("computing features", 1437, 1437)
    assert [one.epoch for one in whole[45:] if isinstance(one, EpochResult)] == [1, 2]


def test_the_progress_of_features_names_the_view(pretrained: Pretrained, tmp_path: Path) -> None:
    own = replace(pretrained, cache_dir=tmp_path / "cache")
    shutil.copytree(pretrained.cache_dir / "weights", own.cache_dir / "weights")
    candidate = own.candidate(views=2, flip="horizontal", epochs=1)
    steps = own.trainer(tmp_path, progress_seconds=0.0)(SearchTask(1, candidate, seed=3))
    names = [step.what for step in steps if isinstance(step, Preparing) and step.done == step.total == 1437]
    assert names == [f"computing features{of}" for of in ("", " of view 1 of 2", " of view 2 of 2")]


def test_views_are_augmented_and_the_scores_are_not(pretrained: Pretrained, tmp_path: Path) -> None:
    trainer = pretrained.trainer(tmp_path)
    candidate = pretrained.candidate(views=2, flip="horizontal", translate=0.1)
    backbones = trainer._open_backbones()
    network = backbones.network(candidate, seed=0)
    data = backbones.open(candidate, network, lambda dataset: trainer._split(dataset, SearchTask(0, candidate, 0)))
    assert isinstance(data, FeatureData)
    plain_NF, *views = data.views_NX
    assert len(views) == 2
    assert not any(torch.equal(one, other) for one, other in ((plain_NF, views[0]), (*views,), (plain_NF, views[1])))
    (batch, _), *_ = data.validation_batches(16, dtype=torch.float32, channels_last=True)
    assert torch.equal(batch, plain_NF[data.validation_indices_N[:16]])
    drawn = set()
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        (batch, _), *_ = data.train_batches(1, generator=generator, dtype=torch.float32, channels_last=False)
        drawn |= {number for number, view in enumerate(data.views_NX) if (view == batch).all(1).any()}
    assert drawn == {0, 1, 2}


def test_the_same_seed_gives_the_same_network_and_another_seed_another_head(
    pretrained: Pretrained, tmp_path: Path
) -> None:
    trainer = pretrained.trainer(tmp_path)
    backbones = trainer._open_backbones()

    def head(seed: int) -> Tensor:
        split: SplitNetwork = backbones.network(pretrained.candidate(1), seed=seed)
        return split.head[0].weight  # type: ignore[return-value]

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))
    task = SearchTask(1, pretrained.candidate(1), seed=3)
    first, again = ([result.validation_loss for result in pretrained.trainer(tmp_path)(task)] for _ in range(2))
    assert first == again


def test_fresh_splits_and_all_images_are_trained_on_the_same_features(
    pretrained: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = pretrained.trainer(tmp_path)
    list(trainer(SearchTask(1, pretrained.candidate(), seed=3)))

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("features were computed again")

    monkeypatch.setattr("tuner.search.backbone_data.cached_features", fail)
    *_, last = trainer(FreshSplitTask(1, pretrained.candidate(), seed=4, split_seed=9))
    assert 0 < last.validation_accuracy <= 1
    assert last.latency_ms is not None
    output = tmp_path / "all.pt"
    list(trainer(AllImagesTask(1, pretrained.candidate(), seed=4, output=output)))
    assert load_checkpoint(output).scores == {}


def test_the_trainer_travels_without_what_it_has_opened(pretrained: Pretrained, tmp_path: Path) -> None:
    trainer = pretrained.trainer(tmp_path)
    task = SearchTask(1, pretrained.candidate(), seed=3)
    first = next(trainer(task))
    sent = pickle.dumps(trainer)
    assert len(sent) < 4_000
    assert next(pickle.loads(sent)(task)).validation_loss == first.validation_loss


def test_a_stage_decay_slows_the_stages_by_their_depth(pretrained: Pretrained, tmp_path: Path) -> None:
    before = torch.load(pretrained.file, weights_only=True)
    full = weights_after(pretrained, tmp_path / "full", 2, weight_decay=0.0)
    slow = weights_after(pretrained, tmp_path / "slow", 2, weight_decay=0.0, stage_decay=0.01)

    def moved(weights: dict[str, Tensor], name: str) -> float:
        return float((weights[name] - before[name]).abs().mean())

    for name, at_most in (("conv5.0.weight", 0.1), ("stage4.0.branch2.0.weight", 0.01)):
        assert moved(slow, name) < at_most * moved(full, name) * 3
        assert moved(slow, name) > 0
