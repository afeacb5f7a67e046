"""ClassScores: how well a network recognises each class, which accuracy alone hides where classes differ in size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.training.results import Confusion


@dataclass(frozen=True)
class ClassScores:
    """Scores of a network by class on a set of images. Scores and shares are in 0..1.

    balanced_accuracy: mean of the recalls of the classes that have images; the recall of a class is the share of its
    images that are classified correctly. largest_class, largest_share: the class with the most images and its share of
    them, which is the accuracy of always naming this class. are_uneven: whether classes differ so much in size that
    accuracy alone says little. unrecognised: names of the classes of which no image is classified correctly. missing:
    names of the classes that have no image, of which the scores therefore say nothing; empty in older studies.
    """

    balanced_accuracy: float
    largest_class: str
    largest_share: float
    are_uneven: bool
    unrecognised: tuple[str, ...]
    missing: tuple[str, ...] = ()


def score_classes(
    correct: Sequence[float], counts: Sequence[int], class_names: Sequence[str], *, are_uneven: bool
) -> ClassScores:
    """Compute the scores from the number of correct images and of all images of each class, in the order of the names.

    `correct` may be a mean over several seeds. Classes are also uneven if one of them has no image.
    """
    present = [label for label, count in enumerate(counts) if count]
    largest = max(present, key=lambda label: counts[label])
    return ClassScores(
        balanced_accuracy=sum(correct[label] / counts[label] for label in present) / len(present),
        largest_class=class_names[largest],
        largest_share=counts[largest] / sum(counts),
        are_uneven=are_uneven or len(present) < len(counts),
        unrecognised=tuple(class_names[label] for label in present if not correct[label]),
        missing=tuple(class_names[label] for label, count in enumerate(counts) if not count),
    )


def scores_from_confusion(confusion: Confusion, class_names: Sequence[str], *, are_uneven: bool) -> ClassScores:
    """Compute the scores from a confusion matrix."""
    counts = [sum(row) for row in confusion]
    correct = [row[label] for label, row in enumerate(confusion)]
    return score_classes(correct, counts, class_names, are_uneven=are_uneven)
