"""Predict classes and probabilities of image files with a checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tuner.data.folder_listing import list_images
from tuner.data.images import read_image
from tuner.data.unused_files import UnusedFiles
from tuner.deliver.classifier import BATCH, Classifier, classifier_from
from tuner.errors import DataError
from tuner.training.caller_settings import with_own_settings
from tuner.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Prediction:
    """Classes of one image with their probabilities in 0..1, the most probable first."""

    image: Path
    probabilities: tuple[tuple[str, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Return what `tuner predict --json` prints for an image: classes and probabilities in the same order."""
        classes, probabilities = zip(*self.probabilities, strict=True)
        return {"image": str(self.image), "classes": list(classes), "probabilities": list(probabilities)}


@with_own_settings
def predict(
    network: Classifier | Checkpoint,
    images: Sequence[Path],
    *,
    top: int = 3,
    on_unreadable: Callable[[DataError], None] | None = None,
) -> list[Prediction]:
    """Predict the classes of image files: one result for each file, in the given order, also if a file is given twice.

    Raises DataError with the name of a file that cannot be read. If `on_unreadable` is given, it is called with the
    error instead, and the file is skipped.
    """
    classifier = classifier_from(network) if isinstance(network, Checkpoint) else network
    top = min(top, len(classifier.class_names))
    return [
        prediction
        for start in range(0, len(images), BATCH)
        for prediction in _predict_batch(
            classifier, images[start : start + BATCH], top=top, on_unreadable=on_unreadable
        )
    ]


def find_images(paths: Sequence[Path]) -> tuple[list[Path], UnusedFiles]:
    """Return the given files, and the images in the given folders and their subfolders, sorted by name.

    The second value counts the files in these folders that are not images, by extension. Raises DataError for a path
    that does not exist, and for a folder without images.
    """
    found, unused = list[Path](), Counter[str]()
    for path in paths:
        if path.is_dir():
            images, others = list_images(path)
            found += images
            unused.update(others)
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(f"every image must be a file or a folder; there is no {path}")
    return found, unused


def _predict_batch(
    classifier: Classifier, images: Sequence[Path], *, top: int, on_unreadable: Callable[[DataError], None] | None
) -> Iterator[Prediction]:
    read: list[tuple[Path, Tensor]] = []
    for path in images:
        try:
            read.append((path, read_image(path, classifier.preprocessing)))
        except DataError as error:
            if on_unreadable is None:
                raise
            on_unreadable(error)
    if not read:
        return
    values_BT, labels_BT = classifier.logits(torch.stack([pixels_CHW for _, pixels_CHW in read])).softmax(1).topk(top)
    for (path, _), values, labels in zip(read, values_BT.tolist(), labels_BT.tolist(), strict=True):
        yield Prediction(
            path, tuple((classifier.class_names[label], value) for label, value in zip(labels, values, strict=True))
        )
