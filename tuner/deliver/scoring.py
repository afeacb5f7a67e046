"""Score a checkpoint on images: which ones are classified correctly, and the loss."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from tuner.data.data_checks import are_uneven
from tuner.data.dataset import ImageDataset
from tuner.data.splits import Split
from tuner.data.training_data import open_data
from tuner.hardware import num_cores
from tuner.search.class_scores import ClassScores, score_classes
from tuner.training.checkpoint import Checkpoint, model_from
from tuner.training.loop import evaluation_batch
from tuner.training.process_settings import exact_arithmetic


@dataclass(frozen=True, eq=False)
class Score:
    """correct_N: bool, in the order of the images. loss: mean cross-entropy in nats."""

    correct_N: Tensor
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of images classified correctly, in 0..1."""
        return int(self.correct_N.sum()) / len(self.correct_N)


def score_classes_on(test_set: ImageDataset, scores: Sequence[Score], *, development: ImageDataset) -> ClassScores:
    """Compute the scores by class of one network with several seeds, from its scores on the whole test set.

    Classes are uneven if they are in the development part, or in the test set.
    """
    num_classes, labels_N = len(test_set.class_names), test_set.labels_N
    counts = labels_N.bincount(minlength=num_classes).tolist()
    correct = torch.stack([labels_N[one.correct_N].bincount(minlength=num_classes) for one in scores])
    ours = development.labels_N.bincount(minlength=num_classes).tolist()
    return score_classes(
        correct.double().mean(0).tolist(),
        counts,
        test_set.class_names,
        are_uneven=are_uneven(counts) or are_uneven(ours),
    )


@contextmanager
def on_all_cores() -> Iterator[None]:
    """Let torch use all cores within the block, for scoring while no runner trains."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(num_cores())
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def score_checkpoint(
    checkpoint: Checkpoint, dataset: ImageDataset, *, device: torch.device, memory_bytes: int = sys.maxsize
) -> Score:
    """Score every image of a set in fp32; a set of more than `memory_bytes` is streamed."""
    everything = torch.arange(len(dataset.labels_N))
    preprocessing = checkpoint.preprocessing
    data = open_data(
        dataset,
        Split(everything[:0], everything),
        device=device,
        memory_bytes=memory_bytes,
        statistics=(preprocessing.mean, preprocessing.std),
    )
    model = model_from(checkpoint).to(device)
    batch_size = evaluation_batch(device, checkpoint.candidate.architecture)
    correct_N = torch.empty(len(everything), dtype=torch.bool, device=device)
    num_done, loss_sum = 0, torch.zeros((), device=device)
    with torch.inference_mode(), exact_arithmetic():
        for images_BCHW, labels_B in data.validation_batches(batch_size, dtype=torch.float32, channels_last=False):
            logits_BK = model(images_BCHW)
            correct_N[num_done : num_done + len(labels_B)] = logits_BK.argmax(1) == labels_B
            num_done += len(labels_B)
            loss_sum += functional.cross_entropy(logits_BK, labels_B, reduction="sum")
    return Score(correct_N.cpu(), float(loss_sum) / len(everything))
