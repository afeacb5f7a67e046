"""A checkpoint and image files -> classes and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tuner.data.images import Preprocessing, read_image
from tuner.data.resident import pixel_scaling
from tuner.training.checkpoint import Checkpoint, model_from


@dataclass(frozen=True)
class Prediction:
    """Classes of one image with their probabilities in 0..1, the likeliest first."""

    image: Path
    probabilities: tuple[tuple[str, float], ...]


def predict(checkpoint: Checkpoint, images: Sequence[Path], *, top: int = 3) -> list[Prediction]:
    """Name the classes of image files. Raises DataError that names a file which cannot be read."""
    model = model_from(checkpoint)
    top = min(top, len(checkpoint.class_names))
    predictions = []
    for path in images:
        pixels_1CHW = read_image(path, checkpoint.preprocessing).unsqueeze(0)
        with torch.inference_mode():
            probabilities_K = model(normalise(pixels_1CHW, checkpoint.preprocessing)).softmax(1)[0]
        values, indices = probabilities_K.topk(top)
        named = (
            (checkpoint.class_names[int(index)], float(value)) for value, index in zip(values, indices, strict=True)
        )
        predictions.append(Prediction(path, tuple(named)))
    return predictions


def normalise(pixels_NCHW: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 pixels (N, C, H, W) as the network takes them: (pixel / 255 - mean) / std per channel, fp32."""
    shift_C11, scale_C11 = pixel_scaling(
        preprocessing.mean, preprocessing.std, dtype=torch.float32, device=pixels_NCHW.device
    )
    return (pixels_NCHW.float() - shift_C11) * scale_C11
