"""A network as a file that explains itself: atomic save and safe load."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from tuner.architecture.factory import build_model
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace
from tuner.data.images import Preprocessing
from tuner.errors import CheckpointError
from tuner.training.candidate import Candidate, Recipe

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
        file = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    with file:
        try:
            data = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises whatever the damaged bytes lead to
            message = f"{path}: not a checkpoint of tuner, or damaged ({type(error).__name__})"
            raise CheckpointError(message) from error
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise CheckpointError(f"{path}: not a checkpoint of tuner: it has no format number")
    if data["format"] != FORMAT:
        message = f"{path}: format {data['format']}, but this tuner reads {FORMAT}; use the version that wrote it"
        raise CheckpointError(message)
    try:
        contents = _Contents.model_validate(data)
        checkpoint = Checkpoint(
            candidate=Candidate(contents.architecture, contents.recipe),
            weights=contents.weights,
            preprocessing=Preprocessing.from_json(contents.preprocessing),
            class_names=tuple(contents.class_names),
            scores=contents.scores,
            origin=contents.origin,
            versions=contents.versions,
        )
        model_from(checkpoint)
        if len(checkpoint.class_names) != checkpoint.candidate.architecture.num_classes:
            raise ValueError("class_names must be as many as the network has classes")
    except (ValueError, TypeError, RuntimeError, AttributeError, CheckpointError) as error:
        words = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: damaged checkpoint: {words}") from error
    return checkpoint


class _Contents(BaseModel):
    """What a file must have, beside its layers, which are there for readers without tuner."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    architecture: Architecture
    recipe: Recipe
    weights: dict[str, Tensor]
    preprocessing: dict[str, Any]
    class_names: list[str]
    scores: dict[str, float]
    origin: dict[str, str | int]
    versions: dict[str, str]


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
