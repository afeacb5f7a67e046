"""Score the whole network of a checkpoint on images, and compare it with the scores from cached features."""

from __future__ import annotations

import torch
from torch import Tensor

from tuner.architecture.backbone_modules import split_network
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.data.feature_data import FeatureData
from tuner.data.resident import pixel_scaling, scale_pixels
from tuner.training.checkpoint import Checkpoint
from tuner.training.engine import Engine
from tuner.training.process_settings import exact_arithmetic
from tuner.training.step import place

MOST_IMAGES = 512
"""Most validation images that the whole network is run on. They are spread evenly over the validation part."""
TOLERANCE = 1e-3
"""Largest difference of two logits, as a share of the largest logit, or of 1 if that is less.

Logits from features and from images differ by rounding only, by less than 1e-5 on a CPU. On a GPU, the two may use
different kernels.
"""
BATCH_SIZE = 32


def disagreement(checkpoint: Checkpoint, data: FeatureData, images_NCHW: Tensor, *, engine: Engine) -> str:
    """Say why the whole network does not agree with the features that it was trained on; empty if it agrees.

    The network is built from the checkpoint alone, and run on validation images in exact fp32. Its logits must be those
    that its tail gives for the cached features, within TOLERANCE. It must also classify as many validation images
    correctly as the checkpoint's score says. The only images that may be classified otherwise are those whose two best
    logits differ by less than the tolerance.

    data: the features that the network was trained on. images_NCHW: uint8, of the same data set in the same order.
    """
    network = checkpoint.candidate.architecture
    assert isinstance(network, BackboneNetwork)
    split = split_network(network)
    split.model.load_state_dict(dict(checkpoint.weights))
    place(split.model, engine)
    split.model.eval()
    device, rows_V = torch.device(engine.device), data.validation_indices_N
    checked_M = _spread(len(rows_V), at_most=MOST_IMAGES)
    preprocessing = checkpoint.preprocessing
    scaling = pixel_scaling(preprocessing.mean, preprocessing.std, dtype=torch.float32, device=device)

    def score_images(rows_B: Tensor) -> Tensor:
        pixels_BCHW = images_NCHW.index_select(0, rows_B).to(device)
        images_BCHW = scale_pixels(pixels_BCHW, scaling, dtype=torch.float32, channels_last=engine.channels_last)
        logits_BK: Tensor = split.model(images_BCHW)
        return logits_BK.cpu()

    with torch.inference_mode(), exact_arithmetic():
        tail = split.tail.eval()
        batches = data.validation_batches(BATCH_SIZE, dtype=torch.float32, channels_last=engine.channels_last)
        logits_VK = torch.cat([tail(features_BX).cpu() for features_BX, _ in batches])
        whole_MK = torch.cat([score_images(rows_B) for rows_B in torch.split(rows_V[checked_M], BATCH_SIZE)])

    tolerance = TOLERANCE * max(1.0, whole_MK.abs().max().item())
    difference = (whole_MK - logits_VK[checked_M]).abs().max().item()
    if not difference <= tolerance:  # NaN is no agreement
        return f"logits differ by {difference:.2g}, and rounding explains at most {tolerance:.2g}"
    logits_VK = logits_VK.index_copy(0, checked_M, whole_MK)
    num_correct = int((logits_VK.argmax(1) == data.labels_N[rows_V]).sum())
    in_training = round(checkpoint.scores["validation_accuracy"] * len(rows_V))
    if abs(num_correct - in_training) > _num_undecided(logits_VK, tolerance):
        return f"{num_correct:,} of {len(rows_V):,} validation images are correct, and {in_training:,} were in training"
    return ""


def _spread(num_rows: int, *, at_most: int) -> Tensor:
    """Return ascending positions in 0..num_rows - 1 at equal distances: all of them, or `at_most`."""
    num_chosen = min(num_rows, at_most)
    return torch.arange(num_chosen) * num_rows // num_chosen


def _num_undecided(logits_NK: Tensor, tolerance: float) -> int:
    """How many images have two best logits that differ by less than the tolerance."""
    best_N2 = logits_NK.topk(2, dim=1).values
    return int((best_N2[:, 0] - best_N2[:, 1] < tolerance).sum())
