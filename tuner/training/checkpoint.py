"""Save a network atomically to a file that describes itself, and load it without running code."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from tuner.architecture.any_architecture import AnyArchitecture, build_any
from tuner.architecture.flip_test import FlipTest
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.parts import Items, steps_of
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace
from tuner.data.images import Preprocessing
from tuner.data.resizing import DEFAULT_RESIZING
from tuner.errors import BackboneError, CheckpointError, reason_of
from tuner.formats import NewerFormatError, refuse_newer_format
from tuner.temporary import temporary_beside
from tuner.training.candidate import Candidate, Recipe
from tuner.training.released_defaults import with_defaults

FORMAT = 3
"""Version of the layout. It is raised when older versions of tuner cannot read files of a new layout."""
NESTED_FORMAT = 2
"""Version of files with joins or a flip test, whose images are resized by the default rule."""
FLAT_FORMAT = 1
"""Version of files with neither, whose layers are one list. Older versions read these too."""


@dataclass(frozen=True)
class Checkpoint:
    """A network with everything that is needed to use it and to identify it.

    weights: CPU fp32 tensors, with the names that `build_model` gives them, or of a network with a backbone, with those
    of the backbone's library. scores: by name, accuracies in 0..1. origin: data set, its digest, study, trial, seed.
    versions: of the packages that trained it, with timm only if the backbone is one of timm. flip_test: whether its
    logits are the mean of those of an image and of its mirror image.
    """

    candidate: Candidate
    weights: Mapping[str, Tensor]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    scores: Mapping[str, float]
    origin: Mapping[str, str | int]
    versions: Mapping[str, str]
    flip_test: bool = False


def description_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """All of a checkpoint but its weights, as plain values that json.dumps takes: what each of its forms carries."""
    layers = described_layers(checkpoint.candidate.architecture)
    return {
        **checkpoint.candidate.to_json(),
        # In place of the candidate's: the files of all formats have a candidate of format 1.
        "format": _format_of(checkpoint, layers),
        "layers": layers,
        "preprocessing": checkpoint.preprocessing.to_json(),
        "class_names": list(checkpoint.class_names),
        "scores": dict(checkpoint.scores),
        "origin": dict(checkpoint.origin),
        "versions": dict(checkpoint.versions),
        **({"flip_test": True} if checkpoint.flip_test else {}),
    }


def backbone_of(checkpoint: Checkpoint) -> str:
    """Name of the backbone of a checkpoint's network; empty for a traced network."""
    architecture = checkpoint.candidate.architecture
    return "" if isinstance(architecture, Architecture) else architecture.backbone


def _format_of(checkpoint: Checkpoint, layers: Sequence[Mapping[str, Any]]) -> int:
    """Return the lowest format whose readers understand the file."""
    is_pretrained = not isinstance(checkpoint.candidate.architecture, Architecture)
    if is_pretrained or checkpoint.preprocessing.resizing != DEFAULT_RESIZING:
        return FORMAT
    has_joins = any("join" in layer for layer in layers)
    return NESTED_FORMAT if checkpoint.flip_test or has_joins else FLAT_FORMAT


def described_layers(architecture: AnyArchitecture) -> list[dict[str, Any]]:
    """The layers of a network as plain values; of a network with a backbone, those of its head."""
    if isinstance(architecture, Architecture):
        return described_path(trace(architecture))
    from tuner.architecture.backbone_modules import layers_of_head

    return described_path(layers_of_head(architecture))


def described_path(path: Items) -> list[dict[str, Any]]:
    """The steps of a path as plain values: a layer's type and arguments; of a part its join and both its paths."""
    return [
        {"type": step.kind, "arguments": dict(step.arguments)}
        if isinstance(step, Layer)
        else {"join": step.join, "main": described_path(step.main), "shortcut": described_path(step.shortcut)}
        for step in steps_of(path)
    ]


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint atomically: to a temporary file beside `path`, which is flushed and then renamed."""
    weights = {name: weight.detach().cpu().contiguous().clone() for name, weight in checkpoint.weights.items()}
    data = {**description_of(checkpoint), "weights": weights}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            torch.save(data, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint without unpickling code.

    Raises CheckpointError if the file is not a valid checkpoint, or if its backbone cannot be built here.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {reason_of(error)}") from error
    with file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about the bytes of other files, which are refused below
                data = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises whatever the damaged bytes lead to
            message = f"{path}: not a checkpoint of tuner, or damaged ({type(error).__name__})"
            raise CheckpointError(message) from error
    return checkpoint_from(data, path)


def checkpoint_from(data: object, path: Path) -> Checkpoint:
    """Build a checkpoint from the object that was read from `path`: a description with its `weights`.

    The object is not trusted, and every part of it is checked. Raises CheckpointError with one line that names the
    path, also if its backbone cannot be built here.
    """
    contents = contents_from(data, path)
    with _damage_named(path):
        if contents.weights is None:
            raise ValueError("it has no weights")
        checkpoint = Checkpoint(
            candidate=Candidate(contents.architecture, contents.recipe),
            weights=contents.weights,
            preprocessing=Preprocessing.from_json(contents.preprocessing),
            class_names=tuple(contents.class_names),
            scores=contents.scores,
            origin=contents.origin,
            versions=contents.versions,
            flip_test=contents.flip_test,
        )
        with torch.device("meta"):  # a network of any size costs nothing there
            shapes = {name: weight.shape for name, weight in build_any(contents.architecture).state_dict().items()}
        if shapes != {name: weight.shape for name, weight in contents.weights.items()}:
            raise ValueError("its weights are not those of its network")
        model_from(checkpoint)
    return checkpoint


def contents_from(data: object, path: Path) -> Contents:
    """Check the object that was read from `path`; its weights may be missing. Raises CheckpointError with the path."""
    if not isinstance(data, dict) or not isinstance(data.get("format"), int):
        raise CheckpointError(f"{path}: not a checkpoint of tuner: it has no format number")
    with _damage_named(path):
        refuse_newer_format(data, known=FORMAT, what="checkpoints")
        contents = Contents.model_validate(with_defaults(data))
        preprocessing = Preprocessing.from_json(contents.preprocessing)
        if (preprocessing.channels, preprocessing.height, preprocessing.width) != contents.architecture.input_shape:
            raise ValueError("preprocessing must give images of the network's input shape")
        if len(contents.class_names) != contents.architecture.num_classes:
            raise ValueError("class_names must be as many as the network has classes")
    return contents


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    try:
        yield
    except NewerFormatError as error:
        message = f"{path}: written by a newer version of tuner ({error}): use the newer version"
        raise CheckpointError(message) from error
    except BackboneError as error:
        raise CheckpointError(f"{path}: its network cannot be built: {error}") from error
    except (ValueError, TypeError, RuntimeError, AttributeError, CheckpointError) as error:
        words = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: damaged checkpoint: {words}") from error


class Contents(BaseModel):
    """The fields that a file must have besides its layers, which are there for readers without tuner."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    architecture: AnyArchitecture
    recipe: Recipe
    weights: dict[str, Tensor] | None = None
    preprocessing: dict[str, Any]
    class_names: list[str]
    scores: dict[str, float]
    origin: dict[str, str | int]
    versions: dict[str, str]
    flip_test: Annotated[bool, Field(strict=True)] = False


def model_from(checkpoint: Checkpoint) -> nn.Module:
    """Build the network with its weights, in eval mode: images_NCHW normalised by `preprocessing` to logits_NK.

    With a flip test, the whole module of a network with a backbone is the only layer of the result.
    """
    model = build_any(checkpoint.candidate.architecture)
    model.load_state_dict(dict(checkpoint.weights))
    if checkpoint.flip_test:
        model = FlipTest(model) if backbone_of(checkpoint) else FlipTest(*model.children())
    return model.eval()
