"""Training on augmented images: soft labels, seeds of epochs, and an untouched validation part."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from real_data import candidate, small_digits
from torch import Tensor
from torch.nn import functional

from tests.strategies import candidates
from tests.training.measurements import FUSED
from tuner.data.resident import ResidentData
from tuner.training.augmentation import augmentation_of, draw_augmentation, has_soft_labels
from tuner.training.candidate import Candidate, Recipe
from tuner.training.engine import Engine
from tuner.training.loop import epoch_batches, train
from tuner.training.results import EpochResult
from tuner.training.step import _mean_loss
from tuner.training.synthetic_step import rehearse

ENGINE = Engine("cpu")
MOVED: dict[str, Any] = {"translate": 0.125, "cutout": 0.25, "brightness": 0.2, "contrast": 0.2}
MIXED: dict[str, Any] = {"mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ResidentData:
    return small_digits(tmp_path_factory.mktemp("digits"))


def batches(data: ResidentData, candidate: Candidate, *, seed: int = 0, epoch: int = 1) -> list[tuple[Tensor, Tensor]]:
    return list(epoch_batches(data, candidate, engine=ENGINE, seed=seed, epoch=epoch))


@given(num_models=st.integers(1, 4), num_images=st.integers(1, 6), smoothing=st.sampled_from([0.0, 0.2]))
def test_the_loss_of_soft_labels_is_torchs_for_one_model_and_for_several(
    num_models: int, num_images: int, smoothing: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits_MNK = torch.randn(num_models, num_images, 7, generator=generator)
    labels_MNK = torch.rand(num_models, num_images, 7, generator=generator).softmax(2)
    expected = [
        functional.cross_entropy(logits_NK, labels_NK, label_smoothing=smoothing)
        for logits_NK, labels_NK in zip(logits_MNK, labels_MNK, strict=True)
    ]
    losses_M = _mean_loss(logits_MNK, labels_MNK, label_smoothing=smoothing)
    assert torch.allclose(losses_M, torch.stack(expected))
    assert torch.equal(_mean_loss(logits_MNK[0], labels_MNK[0], label_smoothing=smoothing), expected[0])


def test_soft_labels_of_one_class_have_the_loss_of_that_class() -> None:
    logits_NK, labels_N = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 0, 6, 6])
    one_hot_NK = functional.one_hot(labels_N, 7).float()
    for smoothing in (0.0, 0.2):
        hard, soft = (_mean_loss(logits_NK, labels, label_smoothing=smoothing) for labels in (labels_N, one_hot_NK))
        assert torch.allclose(hard, soft)


@pytest.mark.parametrize("engine", [ENGINE, FUSED], ids=["plain", "fused"])
@pytest.mark.parametrize("recipe", [MOVED, MIXED], ids=["moved", "mixed"])
def test_a_network_learns_real_digits_from_augmented_ones(
    data: ResidentData, recipe: dict[str, Any], engine: Engine
) -> None:
    results = list(train(candidate(**recipe, epochs=6), data, engine=engine, seed=0))
    assert results[-1].train_loss < results[0].train_loss
    assert max(result.validation_accuracy for result in results) > 0.85  # chance is 0.1


def test_the_training_loss_of_an_epoch_is_the_mean_over_its_images(data: ResidentData) -> None:
    # A learning rate that changes no weight, a block without dropout, and batches of 32 images with a last one of 24.
    still = candidate(**MIXED, learning_rate=1e-30, optimizer="sgd", epochs=1)
    still = replace(still, architecture=replace(still.architecture, blocks=still.architecture.blocks[:1]))
    (result,) = train(still, data, engine=ENGINE, seed=0)
    run = rehearse(ENGINE, still.architecture, still.recipe)
    run.batches[:] = batches(data, still)
    losses = [run.losses(number, 0.0)[0] * len(images) for number, (images, _) in enumerate(run.batches)]
    assert result.train_loss == pytest.approx(sum(losses) / 600, rel=1e-4)


@pytest.mark.parametrize("batch_size", [599, 600, 700, 1])
def test_a_last_batch_of_one_image_is_mixed_with_itself(data: ResidentData, batch_size: int) -> None:
    *_, (images, labels) = batches(data, candidate(**MIXED, batch_size=batch_size))
    assert labels.shape == (len(images), 10)
    if len(images) == 1:
        assert sorted(labels[0].tolist()) == [0.0] * 9 + [1.0]


def test_each_epoch_and_each_seed_has_an_augmentation_of_its_own_and_the_same_when_repeated() -> None:
    # Not only another order: what is drawn for an image differs.
    moved = candidate(**MOVED)
    drawn = {
        (seed, epoch): draw_augmentation(moved, engine=ENGINE, seed=seed, epoch=epoch, num_images=50)
        for seed in (0, 1)
        for epoch in (1, 2)
    }
    factors = [one.brightness_N for one in drawn.values() if one is not None and one.brightness_N is not None]
    assert len(factors) == 4
    assert not any(torch.equal(one, other) for number, one in enumerate(factors) for other in factors[:number])
    again = draw_augmentation(moved, engine=ENGINE, seed=1, epoch=2, num_images=50)
    assert again is not None
    assert again.brightness_N is not None
    assert torch.equal(again.brightness_N, factors[-1])


def test_an_epoch_does_not_depend_on_those_before_it(data: ResidentData) -> None:
    whole = candidate(**MOVED, **MIXED)
    _ = batches(data, whole, epoch=1)
    torch.manual_seed(3)
    for (images, labels), (same_images, same_labels) in zip(
        batches(data, whole, epoch=2), batches(data, replace(whole), epoch=2), strict=True
    ):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_the_order_of_the_images_is_the_same_with_and_without_augmentation(data: ResidentData) -> None:
    plain, moved = (torch.cat([labels for _, labels in batches(data, candidate(**recipe))]) for recipe in ({}, MOVED))
    assert torch.equal(plain, moved)


def test_validation_images_are_never_augmented(data: ResidentData) -> None:
    def validation() -> Iterator[tuple[Tensor, Tensor]]:
        return data.validation_batches(64, dtype=torch.float32, channels_last=False)

    before = list(validation())
    results: list[EpochResult] = list(train(candidate(**MOVED, **MIXED, epochs=1), data, engine=ENGINE, seed=0))
    assert len(results) == 1
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    images_NCHW = (data.images_NCHW[data.validation_indices_N] / 255 - mean) / std
    assert torch.allclose(torch.cat([images for images, _ in before]), images_NCHW, atol=1e-5)
    for (images, labels), (same_images, same_labels) in zip(before, validation(), strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


@given(candidates(max_side=12))
def test_a_recipe_draws_only_what_it_asks_for(candidate: Candidate) -> None:
    recipe = candidate.recipe
    drawn = draw_augmentation(candidate, engine=ENGINE, seed=0, epoch=1, num_images=3)
    kinds = (recipe.translate, recipe.cutout, recipe.mixup, recipe.cutmix, recipe.brightness, recipe.contrast)
    assert (drawn is None) == (recipe.flip == "none" and not any(kinds))
    if drawn is not None:
        assert (drawn.moves is None) == (recipe.flip == "none" and not recipe.translate)
        assert (drawn.brightness_N is None, drawn.contrast_N is None) == (not recipe.brightness, not recipe.contrast)
        assert (drawn.mixing is not None) == has_soft_labels(recipe)


def test_a_recipe_of_defaults_has_no_augmentation() -> None:
    assert augmentation_of(Recipe(), seed=0, epoch=1) is None
    assert not has_soft_labels(Recipe())
