"""LogME, and the order of backbones that it gives."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from tests.pretrained_networks import NAME, Pretrained, make_pretrained
from tuner.architecture.backbones import build_backbone
from tuner.data.dataset import DataSpec
from tuner.data.development_part import load_development
from tuner.data.splits import split_development
from tuner.errors import BackboneError
from tuner.pretrained import features
from tuner.pretrained.ranking import log_me
from tuner.pretrained.weights import find_weights
from tuner.search.ranking_limit import RankingLimit
from tuner.search.study_backbones import decode_for_backbones, rank_backbones
from tuner.space.schema import SearchSpace
from tuner.space.toml_file import parse_space

OTHER = "mobilenet_v3_small"


def evidence(precisions: NDArray[np.float64], features_NF: NDArray[np.float64], target_N: NDArray[np.float64]) -> float:
    """Log evidence for each image, from the density of a multivariate normal distribution."""
    alpha, beta = np.exp(precisions)
    covariance_NN = features_NF @ features_NF.T / alpha + np.eye(len(target_N)) / beta
    _, log_determinant = np.linalg.slogdet(covariance_NN)
    squares = target_N @ np.linalg.solve(covariance_NN, target_N)
    return float(-(log_determinant + squares + len(target_N) * math.log(2 * math.pi)) / 2 / len(target_N))


@pytest.mark.parametrize(("num_images", "num_features"), [(40, 5), (20, 30)])
def test_log_me_is_the_maximum_of_the_evidence(num_images: int, num_features: int) -> None:
    generator = np.random.default_rng(0)
    features_NF = generator.normal(size=(num_images, num_features))
    labels_N = (features_NF[:, 0] + features_NF[:, 1] + 0.7 * generator.normal(size=num_images) > 0).astype(np.int64)
    expected = []
    for label in (0, 1):
        target_N = (labels_N == label).astype(np.float64)

        def negative(precisions: NDArray[np.float64], target_N: NDArray[np.float64] = target_N) -> float:
            return -evidence(precisions, features_NF, target_N)

        expected.append(-minimize(negative, np.zeros(2), method="Nelder-Mead", tol=1e-9).fun)
    assert log_me(torch.from_numpy(features_NF), torch.from_numpy(labels_N)) == pytest.approx(
        sum(expected) / 2, abs=1e-4
    )


def test_features_that_separate_the_classes_have_a_higher_log_me() -> None:
    torch.manual_seed(0)
    labels_N = torch.arange(60) % 3
    noise_NF = torch.randn(60, 8)
    separating_NF = noise_NF.clone()
    separating_NF[:, :3] += 3 * torch.nn.functional.one_hot(labels_N)
    assert log_me(separating_NF, labels_N) > log_me(noise_NF, labels_N) + 0.1


def test_features_that_are_all_equal_to_zero_have_the_evidence_of_noise_alone() -> None:
    labels_N = torch.tensor([0, 0, 1, 1])
    zeros = log_me(torch.zeros(4, 3), labels_N)
    assert zeros == pytest.approx(-(math.log(2 * math.pi * 0.5) + 1) / 2)


def test_features_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        log_me(torch.tensor([[math.nan], [1.0]]), torch.tensor([0, 1]))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    return make_pretrained(tmp_path_factory.mktemp("pretrained"))


def space_of(pretrained: Pretrained, folder: Path) -> SearchSpace:
    """A space of two backbones: one whose features are all equal, and one whose features tell images apart."""
    blind = build_backbone(OTHER).model
    for parameter in blind.parameters():
        torch.nn.init.zeros_(parameter)
    torch.save(blind.state_dict(), folder / "blind.pth")
    (found,), _ = find_weights([OTHER], {OTHER: folder / "blind.pth"}, cache_dir=pretrained.cache_dir)
    data = {
        "name": "two",
        "backbone": {"name": [OTHER, NAME], "image_size": 32},
        "recipe": {"learning_rate": 1e-3},
        "weights": {OTHER: found.digest, NAME: pretrained.digest},
    }
    return parse_space(data, origin="two")


@pytest.mark.parametrize(
    ("limit", "order", "words"),
    [
        (RankingLimit(), [NAME, OTHER], "in the order of LogME on the training images: shufflenet_v2_x0_5 ("),
        (RankingLimit(share_ends=0.0), [OTHER, NAME], "not ranked, and tried last: shufflenet_v2_x0_5"),
        (RankingLimit(gives_up=0.0), [OTHER, NAME], "not ranked, and tried last: shufflenet_v2_x0_5"),
        (RankingLimit(ends=0.0), [OTHER, NAME], "the time budget was used up before any backbone was ranked"),
    ],
)
def test_backbones_are_tried_in_the_order_of_their_features(
    pretrained: Pretrained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limit: RankingLimit,
    order: list[str],
    words: str,
) -> None:
    monkeypatch.setattr("tuner.search.study_backbones.num_cores", lambda: 1)
    shutil.rmtree(pretrained.cache_dir / "features", ignore_errors=True)
    space = space_of(pretrained, tmp_path)
    spec = DataSpec("digits", tmp_path / "data", pretrained.cache_dir)
    dataset = load_development(spec)
    decoded = decode_for_backbones(space, spec, dataset)
    assert decoded is not None
    split = split_development(dataset, seed=0)
    done: list[tuple[str, int, int]] = []
    ranked, notes = rank_backbones(
        space,
        decoded,
        dataset,
        split,
        device=torch.device("cpu"),
        limit=limit,
        report=lambda *progress: done.append(progress),
    )
    assert ranked.backbone is not None
    assert ranked.backbone.name.values == order
    assert ranked.weights == space.weights
    assert list(ranked.weights) == order
    assert any(words in note for note in notes)
    num_ranked = 2 if limit == RankingLimit() else 0 if limit.is_over else 1
    assert done.count(("computing features", len(dataset.labels_N), len(dataset.labels_N))) == num_ranked
    assert len(list((pretrained.cache_dir / "features").glob("*.npy"))) == num_ranked
    assert not list((pretrained.cache_dir / "features").glob("*.tmp"))


def test_backbones_whose_features_are_too_large_come_last(
    pretrained: Pretrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.search.study_backbones.num_cores", lambda: 1)
    monkeypatch.setattr(features, "LARGEST_SHARE", 0.0)
    space = space_of(pretrained, tmp_path)
    spec = DataSpec("digits", tmp_path / "data", pretrained.cache_dir)
    dataset = load_development(spec)
    decoded = decode_for_backbones(space, spec, dataset)
    assert decoded is not None
    split = split_development(dataset, seed=0)
    ranked, notes = rank_backbones(space, decoded, dataset, split, device=torch.device("cpu"), limit=RankingLimit())
    assert ranked.backbone is not None
    assert ranked.backbone.name.values == [OTHER, NAME]
    assert notes == []


@pytest.mark.slow
def test_features_that_are_not_finite_are_an_error(pretrained: Pretrained, tmp_path: Path) -> None:
    space = space_of(pretrained, tmp_path)
    state = torch.load(pretrained.file, weights_only=True)
    # Only in the last stage: arithmetic with infinite values is slow.
    large = {name: value * 1e30 if name.startswith("conv5.") and value.ndim else value for name, value in state.items()}
    torch.save(large, tmp_path / "large.pth")
    (found,), _ = find_weights([NAME], {NAME: tmp_path / "large.pth"}, cache_dir=pretrained.cache_dir)
    space = space.with_backbones({NAME: found.digest})
    spec = DataSpec("digits", tmp_path / "data", pretrained.cache_dir)
    dataset = load_development(spec)
    decoded = decode_for_backbones(space, spec, dataset)
    assert decoded is not None
    split = split_development(dataset, seed=0)
    with pytest.raises(BackboneError, match=f"the features of {NAME} must be finite numbers, and some are not"):
        rank_backbones(space, decoded, dataset, split, device=torch.device("cpu"), limit=RankingLimit())
