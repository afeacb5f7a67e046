"""The augmentation that a recipe asks for, in one epoch of one seed."""

from __future__ import annotations

from dataclasses import replace

import torch

from tuner.data.augmentation import Augmentation, EpochAugmentation, draw_epoch
from tuner.training.candidate import Candidate, Recipe
from tuner.training.engine import Engine
from tuner.training.seeds import derive_seed


def augmentation_of(recipe: Recipe, *, seed: int, epoch: int) -> Augmentation | None:
    """Return the augmentation of an epoch, with a seed of its own; None if the recipe asks for none."""
    augmentation = Augmentation(
        flip=recipe.flip,
        translate=recipe.translate,
        cutout=recipe.cutout,
        mixup=recipe.mixup,
        cutmix=recipe.cutmix,
        brightness=recipe.brightness,
        contrast=recipe.contrast,
    )
    if augmentation == Augmentation():
        return None
    return replace(augmentation, seed=derive_seed(seed, "augmentation", epoch))


def draw_augmentation(
    candidate: Candidate, *, engine: Engine, seed: int, epoch: int, num_images: int
) -> EpochAugmentation | None:
    """Draw what happens to each image of an epoch; None if the recipe asks for nothing."""
    augmentation = augmentation_of(candidate.recipe, seed=seed, epoch=epoch)
    if augmentation is None:
        return None
    input_spec = candidate.architecture.input
    return draw_epoch(
        augmentation,
        num_images=num_images,
        batch_size=candidate.recipe.batch_size,
        image_size=(input_spec.height, input_spec.width),
        num_classes=input_spec.num_classes,
        device=torch.device(engine.device),
    )


def has_soft_labels(recipe: Recipe) -> bool:
    """Whether the labels of training are shares of the classes, because images are mixed."""
    return recipe.mixup > 0 or recipe.cutmix > 0
