"""Estimate from features how well a backbone suits a set of images, before anything is trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_ITERATIONS, TOLERANCE = 100, 1e-4


def log_me(features_NF: Tensor, labels_N: Tensor) -> float:
    """Return LogME: the logarithm of the maximum evidence of labels given features, for each image and class.

    It is that of a Bayesian linear regression of each class against the others, with the precisions of weights and
    noise that maximize it. A larger value suggests a more accurate linear head. Source: You et al., LogME: Practical
    Assessment of Pre-trained Models for Transfer Learning, ICML 2021, algorithm 3.

    `python -m benchmarks ranking` compares it with a logistic regression in cross-validation: both rank pretrained
    features equally well (docs/performance.md), and LogME takes less time and has no parameter to choose.

    features_NF: of the training images. labels_N: int64. Raises ValueError for features that are not finite.
    """
    features_NF = features_NF.double()
    if not bool(features_NF.isfinite().all()):
        raise ValueError("features must be finite numbers")
    left_NR, singular_R, _ = torch.linalg.svd(features_NF, full_matrices=False)
    # Directions in which all features are 0 have no weight; only rounding would give them one.
    has_features_R = singular_R > max(features_NF.shape) * torch.finfo(torch.float64).eps * singular_R.max()
    left_NR, singular_R = left_NR[:, has_features_R], singular_R[has_features_R]
    one_hot_NK = torch.nn.functional.one_hot(labels_N).double()
    evidences = [
        _evidence(singular_R.square(), left_NR.T @ one_hot_N, float(one_hot_N.square().sum()), len(labels_N))
        for one_hot_N in one_hot_NK.T
        if bool(one_hot_N.any())
    ]
    return sum(evidences) / len(evidences)


def _evidence(eigenvalues_R: Tensor, projected_R: Tensor, squares: float, num_images: int) -> float:
    """Maximum log evidence of one target for each image, by MacKay's fixed-point iteration.

    eigenvalues_R: of the features' Gram matrix. projected_R: the target in the basis of the left singular vectors.
    squares: sum of the target's squares. alpha, beta: precisions of the weights and of the noise.
    """
    if not len(eigenvalues_R):
        return (math.log(num_images / squares) - math.log(2 * math.pi) - 1) / 2
    projected_R = projected_R.square()
    outside = max(0.0, squares - float(projected_R.sum()))
    alpha = beta = 1.0
    weights = errors = 0.0
    for _ in range(MAX_ITERATIONS):
        ratio = alpha / beta
        weights = float((eigenvalues_R * projected_R / (eigenvalues_R + ratio).square()).sum())
        errors = float((ratio**2 * projected_R / (eigenvalues_R + ratio).square()).sum()) + outside
        effective = float((eigenvalues_R / (eigenvalues_R + ratio)).sum())
        alpha, beta = effective / (weights + 1e-12), (num_images - effective) / (errors + 1e-12)
        if abs(alpha / beta - ratio) <= TOLERANCE * ratio:
            break
    ratio = alpha / beta
    weights = float((eigenvalues_R * projected_R / (eigenvalues_R + ratio).square()).sum())
    errors = float((ratio**2 * projected_R / (eigenvalues_R + ratio).square()).sum()) + outside
    determinant = float((alpha + beta * eigenvalues_R).log().sum())
    evidence = (
        len(eigenvalues_R) * math.log(alpha)
        + num_images * math.log(beta)
        - num_images * math.log(2 * math.pi)
        - determinant
        - beta * errors
        - alpha * weights
    ) / 2
    return evidence / num_images
