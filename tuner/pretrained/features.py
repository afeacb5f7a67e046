"""Features: the outputs of a backbone's frozen stages, computed once for all images and mapped from a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tuner.data.augmentation import EpochAugmentation
from tuner.data.dataset import ImageDataset, Report
from tuner.data.mapped_images import map_images
from tuner.data.resident import as_input, pixel_scaling, scale_pixels
from tuner.errors import DataError, reason_of
from tuner.pretrained.feature_files import delete_file, is_sound, lock_of, make_room, write_features

FEATURES_BYTES = 8 * 2**30
"""Limit for all features in a cache folder. The least recently used ones are deleted to make room."""
LARGEST_SHARE = 0.5
"""Largest share of the limit for the features of one set of images."""
BATCH_SIZE = 32
NUM_COMPARED = 4
"""Number of images, at the start and at the end, whose stored features are compared with the network's own."""
FORMAT = 2
"""Version of the files. Raised if features may differ from before."""


@dataclass(frozen=True)
class FeatureKey:
    """Everything that features depend on, apart from the machine.

    pixels: name of the folder of the decoded images, which depends on their pixels. backbone, weights: as in
    BackboneNetwork. num_frozen: number of stages. view: number and description of the augmented view; empty for the
    images themselves.
    """

    pixels: str
    backbone: str
    weights: str
    num_frozen: int
    view: str = ""

    @property
    def digest(self) -> str:
        """16 hexadecimal digits."""
        text = json.dumps([FORMAT, self.pixels, self.backbone, self.weights, self.num_frozen, self.view])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def cached_features(
    key: FeatureKey,
    dataset: ImageDataset,
    frozen: nn.Sequential,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: torch.device,
    cache_dir: Path,
    augmentation: EpochAugmentation | None = None,
    num_sets: int = 1,
    limit_bytes: int = FEATURES_BYTES,
    report: Report | None = None,
) -> Tensor | None:
    """Return features_NX (fp32, memory-mapped) of all images of a set; None if they are too large to be kept.

    num_sets: how many sets of features of this size are needed together, such as those of all views.
    frozen: the stages with their weights, on the device. mean, std: of the pixels / 255 that the weights expect. They
    are computed once: another process that needs the same waits. Stored features are computed again if their checksum
    is wrong, or if they differ from the network's own for a few images. Raises DataError if they cannot be written, for
    example to a full disk.
    """
    path = _path_of(key, cache_dir)
    shape = (len(dataset.labels_N), *_shape_of_one(frozen, dataset, device=device))
    num_bytes = int(np.prod(shape)) * 4
    if num_sets * num_bytes > LARGEST_SHARE * limit_bytes:
        return None
    scaling = pixel_scaling(mean, std, dtype=torch.float32, device=device)

    def compute(rows: slice) -> Tensor:
        return _features_of(dataset, rows, frozen, scaling=scaling, augmentation=augmentation, device=device)

    def batches() -> Iterator[NDArray[np.float32]]:
        for start in range(0, shape[0], BATCH_SIZE):
            yield compute(slice(start, start + BATCH_SIZE)).numpy()
            if report is not None:
                report("computing features", min(start + BATCH_SIZE, shape[0]), shape[0])

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock_of(path):
            if not (is_sound(path, shape) and _agrees(map_images(path), compute)):
                make_room(path, num_bytes, limit_bytes)
                write_features(path, shape, batches())
            path.touch()
            return map_images(path)
    except OSError as error:
        message = f"{path.parent}: the features of {key.backbone} cannot be written: {reason_of(error)}"
        raise DataError(message) from error


def delete_features(key: FeatureKey, cache_dir: Path) -> None:
    """Delete stored features, so that they are computed again; a process that has them open keeps them."""
    delete_file(_path_of(key, cache_dir), waits=True)


def _path_of(key: FeatureKey, cache_dir: Path) -> Path:
    return cache_dir / "features" / f"{key.digest}.npy"


def _shape_of_one(frozen: nn.Sequential, dataset: ImageDataset, *, device: torch.device) -> tuple[int, ...]:
    image_1CHW = torch.zeros(1, *dataset.images_NCHW.shape[1:], device=device)
    with torch.inference_mode():
        return tuple(frozen.eval()(image_1CHW).shape[1:])


def _features_of(
    dataset: ImageDataset,
    rows: slice,
    frozen: nn.Sequential,
    *,
    scaling: tuple[Tensor, Tensor],
    augmentation: EpochAugmentation | None,
    device: torch.device,
) -> Tensor:
    """Compute the features of some images, on the CPU."""
    pixels_BCHW = dataset.images_NCHW[rows].to(device)
    if augmentation is None:
        images_BCHW = scale_pixels(pixels_BCHW, scaling, dtype=torch.float32, channels_last=True)
    else:
        labels_B = dataset.labels_N[rows].to(device)
        images_BCHW, _ = augmentation.apply(pixels_BCHW, labels_B, scaling=scaling, start=rows.start)
        images_BCHW = as_input(images_BCHW, dtype=torch.float32, channels_last=True)
    frozen.eval()
    with torch.inference_mode():
        features_BX: Tensor = frozen(images_BCHW).cpu()
    return features_BX


def _agrees(features_NX: Tensor, compute: Callable[[slice], Tensor]) -> bool:
    """Whether the first and the last features of a file are those that the network gives now, except for rounding."""
    num_images = len(features_NX)
    compared = (slice(0, NUM_COMPARED), slice(max(0, num_images - NUM_COMPARED), num_images))
    return all(torch.allclose(features_NX[rows], compute(rows), rtol=1e-3, atol=1e-3) for rows in compared)
