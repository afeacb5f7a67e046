"""The winner's mistakes: its confusion matrix, and the images with the most confident wrong answers.

These are test images once the study is confirmed. Before that they are validation images, since the test set stays
sealed for a study that may still continue.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from tuner.data.dataset import ImageDataset
from tuner.data.sealed import fix_parts, fix_parts_for
from tuner.data.splits import split_development
from tuner.deliver.classifier import normalise
from tuner.deliver.sealed_set import open_test_set
from tuner.errors import CheckpointError, StudyError
from tuner.search.checkpoints import load_confirmed_checkpoint, load_trial_checkpoint
from tuner.search.confirmation_sentences import scored_set_in_words
from tuner.search.older_studies import is_of_older_version
from tuner.search.record import StudyRecord
from tuner.search.study_data import are_images_of
from tuner.search.summary import StudySummary
from tuner.training.checkpoint import Checkpoint, model_from
from tuner.training.loop import evaluation_batch
from tuner.training.results import MAX_CONFUSION_CLASSES, Confusion

NUM_WORST = 24
THUMBNAIL = 160
"""Size in pixels; images with a larger side are scaled down."""


@dataclass(frozen=True)
class Mistake:
    """A misclassified image as a data URI, with the predicted and the true class; probabilities are between 0 and 1."""

    row: int
    image: str
    said: str
    said_probability: float
    truth: str
    truth_probability: float


@dataclass(frozen=True)
class Judged:
    """Predictions of a network on images; `where` describes the images. `worst` has those with the largest loss first.

    repairs: as in ImageDataset.
    """

    where: str
    class_names: tuple[str, ...]
    num_images: int
    num_wrong: int
    confusion: Confusion | None
    worst: tuple[Mistake, ...]
    repairs: tuple[str, ...] = ()


def judge(record: StudyRecord, summary: StudySummary, *, studies: Path) -> Judged:
    """Score the winner's checkpoint. Raises TunerError if the images or the file are missing or have changed."""
    if summary.best is None:
        raise StudyError("no trial is complete yet")
    if summary.confirmed and summary.delivered is None:
        raise CheckpointError("the confirmed winner's file is gone")
    checkpoint = (
        load_confirmed_checkpoint(record, summary.delivered)
        if summary.delivered
        else load_trial_checkpoint(record, summary.best, studies=studies)
    )
    if is_of_older_version(record):
        raise StudyError("the study was made by an earlier version of tuner, whose digests of images differ")
    spec = record.data_spec(studies / ".cache")
    parts = fix_parts(spec)
    development = parts.development
    if not are_images_of(record, development):
        raise StudyError("the images are not those that the study was run with")
    parts = fix_parts_for(parts, checkpoint.preprocessing)
    development = parts.development
    if summary.confirmed:
        test = open_test_set(record, parts.test)
        where = scored_set_in_words(summary.confirmed)
        judged = _judge(checkpoint, test, torch.arange(len(test.labels_N)), where=where)
        return replace(judged, repairs=(*development.repairs, *test.repairs))
    rows_N = split_development(development, seed=record.settings.seed).validation_indices_N
    return _judge(checkpoint, development, rows_N, where="the validation images, which chose its best epoch")


def _judge(checkpoint: Checkpoint, dataset: ImageDataset, rows_N: Tensor, *, where: str) -> Judged:
    labels_N = dataset.labels_N[rows_N]
    logits_NK = torch.cat(list(_logits(checkpoint, dataset, rows_N)))
    said_N = logits_NK.argmax(1)
    losses_N = functional.cross_entropy(logits_NK, labels_N, reduction="none")
    wrong_N = (said_N != labels_N).nonzero().flatten()
    worst_N = wrong_N[losses_N[wrong_N].argsort(descending=True, stable=True)][:NUM_WORST]
    names = dataset.class_names
    num_classes = len(names)
    confusion = None
    if num_classes <= MAX_CONFUSION_CLASSES:
        cells = torch.bincount(labels_N * num_classes + said_N, minlength=num_classes**2)
        confusion = tuple(map(tuple, cells.view(num_classes, num_classes).tolist()))
    mistakes = []
    for index in worst_N.tolist():
        probabilities_K = logits_NK[index].softmax(0)
        said, truth, row = int(said_N[index]), int(labels_N[index]), int(rows_N[index])
        mistakes.append(
            Mistake(
                row=row,
                image=data_uri(dataset.images_NCHW[row]),
                said=names[said],
                said_probability=float(probabilities_K[said]),
                truth=names[truth],
                truth_probability=float(probabilities_K[truth]),
            )
        )
    return Judged(where, names, len(rows_N), len(wrong_N), confusion, tuple(mistakes), dataset.repairs)


def _logits(checkpoint: Checkpoint, dataset: ImageDataset, rows_N: Tensor) -> Iterator[Tensor]:
    model = model_from(checkpoint)
    batch_size = evaluation_batch(torch.device("cpu"), checkpoint.candidate.architecture)
    with torch.inference_mode():
        for rows_B in torch.split(rows_N, batch_size):
            yield model(normalise(dataset.images_NCHW[rows_B], checkpoint.preprocessing))


def data_uri(pixels_CHW: Tensor) -> str:
    """Encode a uint8 image (C, H, W) with 1 or 3 channels as a PNG in a data URI."""
    from PIL import Image

    array = pixels_CHW[0].numpy() if len(pixels_CHW) == 1 else pixels_CHW.permute(1, 2, 0).contiguous().numpy()
    image = Image.fromarray(array)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
