"""A network as a file that explains itself: atomic save and safe load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tuner.architecture.factory import build_model
from tuner.architecture.trace import trace
from tuner.data.images import Preprocessing
from tuner.errors import CheckpointError
from tuner.training.candidate import Candidate

FORMAT = 1
"""Version of the layout; raised when a file of the new layout cannot be read by the old code."""


@dataclass(frozen=True)
class Checkpoint:
    """All that is needed to use a network, and to know what it is.

    weights: CPU fp32 tensors, keyed for an `nn.Sequential` of the layers. scores: by name, accuracies in 0..1.
    origin: data set, its digest, study, trial, seed. versions: of the packages that trained it.
    """

    candidate: Candidate
    weights: Mapping[str, Tensor]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    scores: Mapping[str, float]
    origin: Mapping[str, str | int]
    versions: Mapping[str, str]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint whole or not at all: to a temporary file beside `path`, flushed, then renamed."""
    layers = [
        {"type": layer.kind, "arguments": dict(layer.arguments)} for layer in trace(checkpoint.candidate.architecture)
    ]
    data = {
        "format": FORMAT,
        **checkpoint.candidate.to_json(),
        "layers": layers,
        "weights": {name: weight.detach().cpu().contiguous().clone() for name, weight in checkpoint.weights.items()},
        "preprocessing": checkpoint.preprocessing.to_json(),
        "class_names": list(checkpoint.class_names),
        "scores": dict(checkpoint.scores),
        "origin": dict(checkpoint.origin),
        "versions": dict(checkpoint.versions),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(data, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without unpickling code. Raises CheckpointError in one line for anything that is not one."""
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch.load raises whatever the damaged bytes lead to
        raise CheckpointError(f"{path}: not a checkpoint of tuner, or damaged ({type(error).__name__})") from error
    if not isinstance(data, dict) or "format" not in data:
        raise CheckpointError(f"{path}: not a checkpoint of tuner: it has no `format`")
    if data["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: format {data['format']!r}, but this tuner reads {FORMAT}; use the version that wrote it"
        )
    try:
        candidate = Candidate.from_json({"architecture": data["architecture"], "recipe": data["recipe"]})
        checkpoint = Checkpoint(
            candidate=candidate,
            weights=dict(data["weights"]),
            preprocessing=Preprocessing.from_json(data["preprocessing"]),
            class_names=tuple(data["class_names"]),
            scores=dict(data["scores"]),
            origin=dict(data["origin"]),
            versions=dict(data["versions"]),
        )
        model_from(checkpoint)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: damaged checkpoint: {type(error).__name__}: {first_line}") from error
    return checkpoint


def model_from(checkpoint: Checkpoint) -> nn.Sequential:
    """The network with its weights, in eval mode: images_NCHW as `preprocessing` normalises them to logits_NK."""
    model = build_model(checkpoint.candidate.architecture)
    model.load_state_dict(dict(checkpoint.weights))
    return model.eval()


def load_model(path: str | Path) -> nn.Sequential:
    """The network of a checkpoint file, in eval mode on the CPU: fp32 images (N, C, H, W), normalised as the file says.

    Raises CheckpointError.
    """
    return model_from(load_checkpoint(Path(path)))
