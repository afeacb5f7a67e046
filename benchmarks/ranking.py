"""How well LogME and a cross-validated linear probe rank backbones, with the stages of one network as the backbones."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from benchmarks.own_search import Say
from benchmarks.pretrained_space import check_image_size
from benchmarks.rank_correlation import rank_correlation
from tuner.architecture.backbones import build_backbone, input_of
from tuner.data.dataset import DataSpec, ImageDataset
from tuner.data.image_rule import spec_for
from tuner.data.images import Preprocessing
from tuner.data.sealed import fix_parts, open_sealed
from tuner.errors import DataError
from tuner.hardware import device_name, num_cores
from tuner.pretrained.ranking import log_me
from tuner.pretrained.weights_file import read_weights

# Shape suffixes: N images, C channels, H height, W width, F features.

BATCH = 64
"""Number of images in a forward pass."""
FOLDS = 5


@dataclass(frozen=True)
class Plan:
    """What is measured. dataset: path of an image folder, or the name of a set. file: weights of the backbone.

    image_size: side in pixels; 0 is that of the weights. num_images: most training images, spread evenly over them.
    """

    dataset: str
    backbone: str
    file: Path
    image_size: int
    num_images: int
    seed: int


@dataclass(frozen=True)
class Ranked:
    """A stage whose feature maps, averaged over their pixels, are the features. Accuracies are in 0..1.

    weights: `pretrained` or `random`. test_accuracy: of a logistic regression on all training images.
    """

    weights: str
    stage: int
    num_features: int
    log_me: float
    log_me_seconds: float
    probe_accuracy: float
    probe_seconds: float
    test_accuracy: float


def measure(plan: Plan, *, say: Say) -> dict[str, Any]:
    """Score all stages with both estimates, and compare the two orders with that of the accuracies on the test set.

    Every stage counts twice: with the given weights and with random ones. Raises DataError for images and BackboneError
    for weights that cannot be used.
    """
    if plan.image_size:
        check_image_size(plan.backbone, plan.image_size)
    state = read_weights(plan.file, plan.backbone)
    torch.manual_seed(plan.seed)
    torch.set_num_threads(num_cores())
    say(f"{device_name(torch.device('cpu'))}, {num_cores()} cores, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        train, test = _open(plan, Path(folder))
        rows_N = torch.arange(len(train.labels_N))[:: -(-len(train.labels_N) // plan.num_images)]
        labels_N = train.labels_N[rows_N]
        if (fewest := int(labels_N.bincount(minlength=len(train.class_names)).min())) < FOLDS:
            raise DataError(
                f"every class must have at least {FOLDS} of the images that are used, and one has {fewest}; "
                "raise --images, or give more images"
            )
        found = []
        for weights in ("pretrained", "random"):
            backbone = build_backbone(plan.backbone)
            if weights == "pretrained":
                backbone.model.load_state_dict(state, strict=False)  # it has no classifier, and none is used
            backbone.model.eval()
            both = zip(
                _features(backbone.stages, train.images_NCHW[rows_N], plan.backbone),
                _features(backbone.stages, test.images_NCHW, plan.backbone),
                strict=True,
            )
            for stage, (features_NF, test_NF) in enumerate(both, start=1):
                ranked = _rank(weights, stage, features_NF, labels_N, test_NF, test.labels_N, seed=plan.seed)
                found.append(ranked)
                say(row(asdict(ranked)))
    return {
        **asdict(plan),
        "dataset": train.name,
        "file": plan.file.name,
        "num_train": len(labels_N),
        "num_test": len(test.labels_N),
        "stages": [asdict(one) for one in found],
        "all": correlations(found),
        "pretrained": correlations([one for one in found if one.weights == "pretrained"]),
        "log_me_seconds": sum(one.log_me_seconds for one in found),
        "probe_seconds": sum(one.probe_seconds for one in found),
    }


def correlations(found: list[Ranked]) -> dict[str, float]:
    """Spearman's correlation of both estimates with the test accuracy."""
    accuracies_N = np.array([one.test_accuracy for one in found])
    return {
        name: rank_correlation(np.array([getattr(one, name) for one in found]), accuracies_N)[0]
        for name in ("log_me", "probe_accuracy")
    }


def _open(plan: Plan, folder: Path) -> tuple[ImageDataset, ImageDataset]:
    own = input_of(plan.backbone)
    height, width = (plan.image_size or side for side in (own.height, own.width))
    preprocessing = Preprocessing(
        3, height, width, own.mean, own.std, interpolation=own.interpolation, crop_fraction=own.crop_fraction
    )
    parts = fix_parts(spec_for(DataSpec(plan.dataset, folder / "data", folder / "cache"), preprocessing))
    return parts.development, open_sealed(parts.test)


@torch.inference_mode()
def _features(stages: tuple[torch.nn.Module, ...], images_NCHW: Tensor, backbone: str) -> Iterator[Tensor]:
    """Yield the features of each stage, in fp32."""
    own = input_of(backbone)
    mean_C11, std_C11 = (torch.tensor(values).view(-1, 1, 1) for values in (own.mean, own.std))
    batches: list[list[Tensor]] = []
    for pixels_NCHW in torch.split(images_NCHW, BATCH):
        x_NCHW = (pixels_NCHW / 255 - mean_C11) / std_C11
        batches.append([])
        for stage in stages:
            x_NCHW = stage(x_NCHW)
            batches[-1].append(x_NCHW.flatten(2).mean(2) if x_NCHW.ndim == 4 else x_NCHW)
    for of_stage in zip(*batches, strict=True):
        yield torch.cat(of_stage)


def _rank(
    weights: str,
    stage: int,
    features_NF: Tensor,
    labels_N: Tensor,
    test_NF: Tensor,
    test_labels_N: Tensor,
    *,
    seed: int,
) -> Ranked:
    started = time.perf_counter()
    evidence = log_me(features_NF, labels_N)
    log_me_seconds = time.perf_counter() - started
    started = time.perf_counter()
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    x_NF, y_N = features_NF.numpy(), labels_N.numpy()
    probe = float(cross_val_score(linear_probe(), x_NF, y_N, cv=folds).mean())
    probe_seconds = time.perf_counter() - started
    accuracy = float(linear_probe().fit(x_NF, y_N).score(test_NF.numpy(), test_labels_N.numpy()))
    return Ranked(weights, stage, x_NF.shape[1], evidence, log_me_seconds, probe, probe_seconds, accuracy)


def linear_probe() -> Pipeline:
    """A logistic regression on standardized features."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000))


def row(stage: dict[str, Any]) -> str:
    """Format a stage as a line."""
    return (
        f"{stage['weights']:<10} stage {stage['stage']:>2}  "
        f"LogME {stage['log_me']:6.3f} ({stage['log_me_seconds']:.2f} s)"
        f"  probe {stage['probe_accuracy']:6.2%} ({stage['probe_seconds']:.2f} s)  test {stage['test_accuracy']:6.2%}"
    )


def table(result: dict[str, Any]) -> str:
    """Format a result as text."""
    return "\n".join(
        [
            f"{result['dataset']}: {len(result['stages'])} sets of features of {result['backbone']}, "
            f"{result['num_train']:,} training images, {result['num_test']:,} test images",
            "rank correlation with the test accuracy of a logistic regression:   all sets   pretrained only",
            *(
                f"  {words:<66} {result['all'][name]:8.2f} {result['pretrained'][name]:17.2f}   in {seconds:.1f} s"
                for words, name, seconds in (
                    ("LogME", "log_me", result["log_me_seconds"]),
                    (f"logistic regression in {FOLDS}-fold validation", "probe_accuracy", result["probe_seconds"]),
                )
            ),
        ]
    )
