"""Load a checkpoint of any format (pt, safetensors, ONNX) as a classifier of images, or as a network in torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from tuner.data.images import Preprocessing
from tuner.data.resident import scale_pixels
from tuner.deliver.onnx_file import load_onnx
from tuner.deliver.safetensors_file import load_safetensors
from tuner.deliver.traced_program import scaling_of
from tuner.errors import CheckpointError
from tuner.training.caller_settings import with_own_settings
from tuner.training.checkpoint import Checkpoint, load_checkpoint, model_from

BATCH = 64
"""Number of images classified at once; their feature maps still fit into a CPU's caches."""
REFUSED = {
    ".pt2": "torch.export.load unpickles, and so can run code that is in the file",
    ".py": "loading it runs the code that is in it",
}


@dataclass(frozen=True)
class Classifier:
    """A loaded network that classifies images.

    `logits`: uint8 images (N, C, H, W) to fp32 logits (N, K), on the CPU. flip_test: whether they are the mean of those
    of an image and of its mirror image.
    """

    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    scores: Mapping[str, float]
    origin: Mapping[str, str | int]
    logits: Callable[[Tensor], Tensor]
    flip_test: bool = False


@with_own_settings
def load_classifier(path: str | Path) -> Classifier:
    """Load a checkpoint by its file extension: .safetensors, .onnx, and tuner's own format for any other.

    Raises CheckpointError for other files, and for .pt2 and .py, which are not loaded because that could run code.
    """
    path = Path(path)
    _refuse_code(path)
    if path.suffix.lower() == ".onnx":
        contents, logits = load_onnx(path)
        return Classifier(
            preprocessing=Preprocessing.from_json(contents.preprocessing),
            class_names=tuple(contents.class_names),
            scores=contents.scores,
            origin=contents.origin,
            logits=logits,
            flip_test=contents.flip_test,
        )
    return classifier_from(_load_checkpoint(path))


@with_own_settings
def load_model(path: str | Path) -> nn.Module:
    """Load the network of a checkpoint file (.safetensors, or tuner's own format), in eval mode on the CPU.

    It takes fp32 images (N, C, H, W), normalised with the mean and standard deviation in the file. Raises
    CheckpointError, also for the other formats of an export.
    """
    path = Path(path)
    _refuse_code(path)
    if path.suffix.lower() == ".onnx":
        raise CheckpointError(
            f"{path}: its network is not one of torch; give the .pt or .safetensors file of the same network"
        )
    return model_from(_load_checkpoint(path))


def _refuse_code(path: Path) -> None:
    if reason := REFUSED.get(path.suffix.lower()):
        raise CheckpointError(
            f"{path}: not loaded, since {reason}; give the .pt, .safetensors or .onnx file of the same network"
        )


def _load_checkpoint(path: Path) -> Checkpoint:
    return load_safetensors(path) if path.suffix.lower() == ".safetensors" else load_checkpoint(path)


def classifier_from(checkpoint: Checkpoint) -> Classifier:
    """Return the checkpoint's own network in torch, which is the reference for all other formats."""
    model = model_from(checkpoint)

    def logits(images_NCHW: Tensor) -> Tensor:
        with torch.inference_mode():
            logits_NK: Tensor = model(normalise(images_NCHW, checkpoint.preprocessing))
        return logits_NK

    return Classifier(
        preprocessing=checkpoint.preprocessing,
        class_names=checkpoint.class_names,
        scores=checkpoint.scores,
        origin=checkpoint.origin,
        logits=logits,
        flip_test=checkpoint.flip_test,
    )


def with_flip_test(classifier: Classifier) -> Classifier:
    """Return the classifier with the mean of its logits of an image and of its mirror image, as `FlipTest` computes."""
    if classifier.flip_test:
        return classifier

    def logits(images_NCHW: Tensor) -> Tensor:
        return (classifier.logits(images_NCHW) + classifier.logits(images_NCHW.flip(3))) / 2

    return replace(classifier, logits=logits, flip_test=True)


def normalise(pixels_NCHW: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Convert uint8 pixels (N, C, H, W) to the network's input: (pixel / 255 - mean) / std per channel, fp32."""
    return scale_pixels(pixels_NCHW, scaling_of(preprocessing), dtype=torch.float32, channels_last=False)
