"""Features of frozen stages: computed once, shared, limited in size."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.data.dataset import DataSpec, ImageDataset
from tuner.data.development_part import load_development
from tuner.errors import DataError
from tuner.pretrained.feature_files import write_features
from tuner.pretrained.features import NUM_COMPARED, FeatureKey, cached_features

MEAN, STD = (0.5,), (0.25,)
KEY = FeatureKey("pixels", "backbone", "weights", 3)


class Counting(nn.Sequential):
    """Frozen stages that count the images that they see."""

    num_images = 0

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Flatten the images."""
        self.num_images += len(images_NCHW)
        return images_NCHW.flatten(1)


@pytest.fixture
def digits(tmp_path: Path) -> ImageDataset:
    return load_development(DataSpec("digits", tmp_path / "data", tmp_path / "cache"))


def features(
    digits: ImageDataset, stages: nn.Sequential, cache_dir: Path, key: FeatureKey = KEY, **limit: int
) -> Tensor:
    found = cached_features(
        key, digits, stages, mean=MEAN, std=STD, device=torch.device("cpu"), cache_dir=cache_dir, **limit
    )
    assert found is not None
    return found


def test_features_are_those_of_the_normalized_images_in_their_order(digits: ImageDataset, tmp_path: Path) -> None:
    found_NF = features(digits, Counting(), tmp_path)
    expected_NF = ((digits.images_NCHW / 255 - 0.5) / 0.25).flatten(1)
    torch.testing.assert_close(found_NF, expected_NF)
    assert found_NF.dtype == torch.float32


def test_features_are_computed_once(digits: ImageDataset, tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    assert torch.equal(features(digits, first, tmp_path), features(digits, second, tmp_path))
    assert first.num_images == len(digits.labels_N) + 1  # one image to find the shape
    assert second.num_images == 1 + 2 * NUM_COMPARED


@pytest.mark.parametrize(
    "other",
    [
        FeatureKey("others", "backbone", "weights", 3),
        FeatureKey("pixels", "another", "weights", 3),
        FeatureKey("pixels", "backbone", "others", 3),
        FeatureKey("pixels", "backbone", "weights", 2),
        FeatureKey("pixels", "backbone", "weights", 3, "a view"),
    ],
)
def test_other_features_are_never_mistaken_for_them(digits: ImageDataset, tmp_path: Path, other: FeatureKey) -> None:
    features(digits, Counting(), tmp_path)
    stages = Counting()
    features(digits, stages, tmp_path, other)
    assert stages.num_images == len(digits.labels_N) + 1


@pytest.mark.parametrize("damage", [b"", b"not an array"])
def test_damaged_features_are_computed_again(digits: ImageDataset, tmp_path: Path, damage: bytes) -> None:
    expected = features(digits, Counting(), tmp_path).clone()
    (path,) = (tmp_path / "features").glob("*.npy")
    path.write_bytes(damage)
    assert torch.equal(features(digits, Counting(), tmp_path), expected)


@pytest.mark.parametrize("row", [0, -1])
def test_features_that_are_not_those_of_the_network_are_computed_again(
    digits: ImageDataset, tmp_path: Path, row: int
) -> None:
    expected = features(digits, Counting(), tmp_path).clone()
    (path,) = (tmp_path / "features").glob("*.npy")
    changed = np.load(path)
    changed[row] += 1.0
    write_features(path, changed.shape, [changed])
    assert torch.equal(features(digits, Counting(), tmp_path), expected)


def test_the_least_recently_used_features_make_room(digits: ImageDataset, tmp_path: Path) -> None:
    size = len(digits.labels_N) * 64 * 4
    keys = [FeatureKey("pixels", name, "weights", 3) for name in ("a", "b", "c")]
    for number, key in enumerate(keys[:2]):
        features(digits, Counting(), tmp_path, key)
        os.utime(tmp_path / "features" / f"{key.digest}.npy", (number, number))
    features(digits, Counting(), tmp_path, keys[2], limit_bytes=int(2.5 * size))
    kept = {path.stem for path in (tmp_path / "features").glob("*.npy")}
    assert kept == {keys[1].digest, keys[2].digest}


def test_features_that_are_too_large_are_not_kept(digits: ImageDataset, tmp_path: Path) -> None:
    size = len(digits.labels_N) * 64 * 4
    stages = Counting()
    found = cached_features(
        KEY, digits, stages, mean=MEAN, std=STD, device=torch.device("cpu"), cache_dir=tmp_path, limit_bytes=size
    )
    assert found is None
    assert stages.num_images == 1
    assert not list((tmp_path / "features").glob("*.npy"))


def test_features_that_were_interrupted_leave_nothing(digits: ImageDataset, tmp_path: Path) -> None:
    class Failing(Counting):
        def forward(self, images_NCHW: Tensor) -> Tensor:
            if self.num_images > 100:
                raise RuntimeError("interrupted")
            return super().forward(images_NCHW)

    with pytest.raises(RuntimeError, match="interrupted"):
        features(digits, Failing(), tmp_path)
    assert not list((tmp_path / "features").glob("*.npy"))
    assert len(features(digits, Counting(), tmp_path)) == len(digits.labels_N)


def test_a_cache_that_is_no_folder_is_an_error_in_one_line(digits: ImageDataset, tmp_path: Path) -> None:
    (tmp_path / "features").write_bytes(b"")
    with pytest.raises(DataError, match=r"the features of backbone cannot be written"):
        features(digits, Counting(), tmp_path)


def test_a_file_has_the_bytes_of_its_array_alone(digits: ImageDataset, tmp_path: Path) -> None:
    found_NF = features(digits, Counting(), tmp_path)
    (path,) = (tmp_path / "features").glob("*.npy")
    assert np.array_equal(np.load(path), found_NF.numpy())


def test_features_that_another_process_still_computes_are_not_removed(digits: ImageDataset, tmp_path: Path) -> None:
    size = len(digits.labels_N) * 64 * 4

    def batches() -> Iterator[NDArray[np.float32]]:
        for name in ("a", "b", "c"):
            features(digits, Counting(), tmp_path, FeatureKey(name, name, name, 1), limit_bytes=2 * size)
        yield np.ones((4, 4), np.float32)

    (tmp_path / "features").mkdir()
    write_features(tmp_path / "features" / "other.npy", (4, 4), batches())
    assert np.array_equal(np.load(tmp_path / "features" / "other.npy"), np.ones((4, 4)))


def test_the_features_of_all_views_count(digits: ImageDataset, tmp_path: Path) -> None:
    size = len(digits.labels_N) * 64 * 4
    features(digits, Counting(), tmp_path, limit_bytes=4 * size, num_sets=2)
    found = cached_features(
        KEY,
        digits,
        Counting(),
        mean=MEAN,
        std=STD,
        device=torch.device("cpu"),
        cache_dir=tmp_path,
        limit_bytes=4 * size,
        num_sets=3,
    )
    assert found is None
