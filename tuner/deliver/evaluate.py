"""Evaluate a checkpoint on a data set: accuracy, loss and accuracy by class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from tuner.data.data_checks import are_uneven
from tuner.data.dataset import DataSpec, ImageDataset, Report
from tuner.data.development_part import load_development
from tuner.data.image_rule import SIZE_OPTION, spec_for
from tuner.data.sealed import fix_test_part, open_sealed
from tuner.data.splits import split_development
from tuner.deliver.classifier import BATCH, Classifier, with_flip_test
from tuner.errors import CheckpointError, DataError
from tuner.names import first_few
from tuner.search.class_scores import ClassScores, score_classes
from tuner.training.caller_settings import with_own_settings

PartName = Literal["test", "validation", "train"]
PART_NAMES: tuple[PartName, ...] = get_args(PartName)


@dataclass(frozen=True, eq=False)
class Part:
    """Some rows of a data set. labels_N: int64, for these rows, indices into class_names.

    digest: of the development or test part that contains the rows. development_digest: always of the development part.
    notes: how the images were changed when they were read. repairs: as in ImageDataset.
    """

    images_NCHW: Tensor
    rows_N: Tensor
    labels_N: Tensor
    class_names: tuple[str, ...]
    digest: str = ""
    development_digest: str = ""
    notes: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images_BCHW, labels_B); the images are uint8 copies of those on disk."""
        for rows_B, labels_B in zip(torch.split(self.rows_N, BATCH), torch.split(self.labels_N, BATCH), strict=True):
            yield self.images_NCHW.index_select(0, rows_B), labels_B


@dataclass(frozen=True)
class Evaluation:
    """Result of a network on a part of a data set. Accuracies are between 0 and 1, losses in nats.

    class_accuracies: by class name; None for a class without images. is_of_training: whether the network was trained on
    these images, so that the score says little. flip_test: whether the logits are the mean of those of an image and of
    its mirror image. notes: how the images were changed to fit the network, and whether they are not those that the
    network was trained for. class_scores: what the accuracy hides.
    """

    dataset: str
    part: str
    num_images: int
    num_correct: int
    loss: float
    class_accuracies: dict[str, float | None]
    is_of_training: bool = False
    notes: tuple[str, ...] = ()
    flip_test: bool = False
    class_scores: ClassScores | None = None

    @property
    def accuracy(self) -> float:
        """Share of images classified correctly, in 0..1."""
        return self.num_correct / self.num_images

    def to_json(self) -> dict[str, Any]:
        """Return the object that `tuner evaluate --json` prints."""
        return {
            "dataset": self.dataset,
            "part": self.part,
            "accuracy": self.accuracy,
            "loss": self.loss,
            "num_images": self.num_images,
            "num_correct": self.num_correct,
            "class_accuracies": self.class_accuracies,
            "class_scores": None if self.class_scores is None else asdict(self.class_scores),
            "is_of_training": self.is_of_training,
            "flip_test": self.flip_test,
            "notes": list(self.notes),
        }


@with_own_settings
def evaluate(
    classifier: Classifier,
    spec: DataSpec,
    *,
    part: PartName = "test",
    flip_test: bool = False,
    report: Report | None = None,
) -> Evaluation:
    """Score a network on a part of a data set, read with the size, channels and resizing of the network.

    Train and validation parts are split as the checkpoint says. With `flip_test`, the logits are the mean of those of
    each image and of its mirror image, as they always are for a file that was exported with it. Raises DataError for a
    data set that cannot be read, or that has other classes or colours than the network.
    """
    if flip_test:
        classifier = with_flip_test(classifier)
    spec = replace(spec_for(spec, classifier.preprocessing), reading=classifier.preprocessing.reading)
    opened = load_part(spec, part, split_seed=classifier.origin.get("split_seed"), report=report)
    labels_of = _labels_by_name(opened.class_names, classifier.class_names)
    if opened.images_NCHW.shape[1] > classifier.preprocessing.channels:
        raise DataError(f"the network takes grey images, and those of {spec.dataset!r} are in colour: make them grey")
    num_classes = len(classifier.class_names)
    loss_sum = 0.0
    counts_K, correct_K = torch.zeros(num_classes, dtype=torch.int64), torch.zeros(num_classes, dtype=torch.int64)
    for images_BCHW, labels_B in opened.batches():
        truth_B = labels_of[labels_B]
        logits_BK = classifier.logits(images_BCHW)
        loss_sum += functional.cross_entropy(logits_BK.double(), truth_B, reduction="sum").item()
        counts_K += truth_B.bincount(minlength=num_classes)
        correct_K += truth_B[logits_BK.argmax(1) == truth_B].bincount(minlength=num_classes)
    by_class = zip(classifier.class_names, correct_K.tolist(), counts_K.tolist(), strict=True)
    return Evaluation(
        dataset=str(spec.dataset),
        part=part,
        num_images=len(opened.labels_N),
        num_correct=int(correct_K.sum()),
        loss=loss_sum / len(opened.labels_N),
        class_scores=score_classes(
            correct_K.tolist(),
            counts_K.tolist(),
            classifier.class_names,
            are_uneven=are_uneven(counts_K.tolist()),
        ),
        class_accuracies={name: correct / count if count else None for name, correct, count in by_class},
        notes=(
            *(note.replace(SIZE_OPTION, "") for note in opened.notes),  # the size is that of the network
            *opened.repairs,
            *_notes_on_origin(classifier, opened, str(spec.dataset), part=part),
        ),
        is_of_training=opened.digest == classifier.origin.get("dataset_digest") and part in _trained_on(classifier),
        flip_test=classifier.flip_test,
    )


def _notes_on_origin(classifier: Classifier, opened: Part, dataset: str, *, part: PartName) -> list[str]:
    """Describe how the images differ from those that the network was trained on, as far as the checkpoint says."""
    trained_on, scored_on = (classifier.origin.get(key) for key in ("dataset_digest", "test_digest"))
    notes = []
    is_other = trained_on is not None and opened.development_digest != trained_on
    is_other_test = part == "test" and scored_on is not None and opened.digest != scored_on
    if is_other:
        may_be_seen = is_other_test or part != "test" or scored_on is None
        notes.append(
            f"the training and validation images of {dataset} are not those that the checkpoint comes from"
            + (f", so its {part} part may contain images that the network was trained on" if may_be_seen else "")
        )
    if is_other_test:
        notes.append(f"the test images of {dataset} are not those that the checkpoint was scored on")
    return notes


def _trained_on(classifier: Classifier) -> tuple[PartName, ...]:
    """Return the parts that a network was trained on.

    A confirmed winner, which has a test score, was trained on both.
    """
    return ("train", "validation") if "test_accuracy" in classifier.scores else ("train",)


def load_part(spec: DataSpec, part: PartName, *, split_seed: str | int | None, report: Report | None = None) -> Part:
    """Open one part of a data set. Raises DataError, and CheckpointError if a split is requested without a seed."""
    if part == "test":
        sealed = fix_test_part(spec, report=report)
        return test_part_of(open_sealed(sealed, report=report), development_digest=sealed.development_digest)
    return development_part_of(load_development(spec, report=report), part, split_seed=split_seed)


def test_part_of(dataset: ImageDataset, *, development_digest: str) -> Part:
    """Return all images of an open test part."""
    return _rows(dataset, torch.arange(len(dataset.labels_N)), development_digest=development_digest)


def development_part_of(
    dataset: ImageDataset, part: Literal["validation", "train"], *, split_seed: str | int | None
) -> Part:
    """Return one side of a split of an open development part. Raises CheckpointError without a seed."""
    if not isinstance(split_seed, int):
        raise CheckpointError(f"the checkpoint does not say how its data were split, so there is no {part} part of it")
    split = split_development(dataset, seed=split_seed)
    rows_N = split.validation_indices_N if part == "validation" else split.train_indices_N
    return _rows(dataset, rows_N, development_digest=dataset.digest)


def _rows(dataset: ImageDataset, rows_N: Tensor, *, development_digest: str) -> Part:
    return Part(
        dataset.images_NCHW,
        rows_N,
        dataset.labels_N[rows_N],
        dataset.class_names,
        dataset.digest,
        development_digest,
        dataset.notes,
        dataset.repairs,
    )


def _labels_by_name(of_dataset: Sequence[str], of_network: Sequence[str]) -> Tensor:
    """Map each class of a data set to the network's label with the same name. Raises DataError if there is none."""
    unknown = [name for name in of_dataset if name not in of_network]
    if unknown:
        raise DataError(
            f"every class of the data set must be one of the network's; it does not know {first_few(unknown)}: "
            f"its classes are {first_few(of_network)}"
        )
    return torch.tensor([of_network.index(name) for name in of_dataset])
