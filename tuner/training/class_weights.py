"""Weights of the classes in the training loss, from the labels of the training images."""

from __future__ import annotations

import torch
from torch import Tensor

from tuner.data.training_data import TrainingData
from tuner.training.candidate import Recipe


def class_weights_of(recipe: Recipe, data: TrainingData) -> Tensor | None:
    """Return the recipe's weights_K for the classes of a data set, on the CPU; None if all classes have weight 1."""
    return balanced_weights(data) if recipe.class_weights == "balanced" else None


def balanced_weights(data: TrainingData) -> Tensor:
    """Return weights_K = n / (K * n_k) in fp32 for n training images of K classes, n_k of them of class k.

    A class without training images has weight 0. Source: class_weight="balanced" of scikit-learn.
    """
    labels_N, num_classes = data.labels_N[data.train_indices_N].cpu(), len(data.class_names)
    counts_K = torch.bincount(labels_N, minlength=num_classes).double()
    weights_K = len(labels_N) / (num_classes * counts_K)
    return torch.where(counts_K > 0, weights_K, 0.0).float()
