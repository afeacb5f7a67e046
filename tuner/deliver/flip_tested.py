"""Add a flip test to a checkpoint that is exported, with the scores that it then has."""

from __future__ import annotations

from dataclasses import replace

from torch.nn import functional

from tuner.deliver.classifier import classifier_from
from tuner.deliver.evaluate import Part
from tuner.deliver.export_check import Reference, reference_of
from tuner.deliver.export_readme import StoredScore
from tuner.training.checkpoint import Checkpoint


def add_flip_test(checkpoint: Checkpoint, part: Part, score: StoredScore) -> tuple[Checkpoint, Reference]:
    """Return the checkpoint with a flip test and its scores on the images of a score, and its logits of them.

    The network's own scores are stored as `test_accuracy_without_flip_test` and so on.
    """
    checkpoint = replace(checkpoint, flip_test=True)
    reference = reference_of(classifier_from(checkpoint), part)
    loss = functional.cross_entropy(reference.logits_NK.double(), reference.labels_N).item()
    new = {f"{score.part}_accuracy": reference.num_correct / score.num_images, f"{score.part}_loss": loss}
    old = {f"{name}_without_flip_test": value for name, value in checkpoint.scores.items() if name in new}
    return replace(checkpoint, scores={**checkpoint.scores, **new, **old}), reference
