"""Save a checkpoint as an ONNX file that takes uint8 images, with its description in the metadata, and load it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from tuner.deliver.optional_packages import require_extra
from tuner.deliver.safetensors_file import described
from tuner.deliver.traced_program import INPUT, OUTPUT
from tuner.errors import CheckpointError, reason_of
from tuner.training.checkpoint import Checkpoint, Contents, contents_from, description_of

NEEDS = ("onnx", "onnxruntime")
NEEDS_TO_WRITE = ("onnx", "onnxscript", "onnxruntime")
SILENT = 4
"""Log level of onnxruntime that prints only fatal errors; other errors are raised as exceptions."""


def save_onnx(checkpoint: Checkpoint, program: ExportedProgram, path: Path) -> None:
    """Write a checkpoint's traced program, for any number of images, with the description in its metadata.

    Raises InstallationError without the packages onnx, onnxscript and onnxruntime.
    """
    require_extra(NEEDS_TO_WRITE, what=f"{path.name}")
    with _quiet():
        exported = torch.onnx.export(program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False)
    assert exported is not None
    model = exported.model
    for node in model.graph:
        node.metadata_props.clear()  # how torch came to the node, in paths of this machine
    model.metadata_props.update({name: json.dumps(value) for name, value in description_of(checkpoint).items()})
    exported.save(path, external_data=False)


def load_onnx(path: Path) -> tuple[Contents, Callable[[Tensor], Tensor]]:
    """Read the description in an ONNX file and its network: uint8 images (N, C, H, W) to logits (N, K), by onnxruntime.

    Raises CheckpointError in one line for a file that tuner did not write, and InstallationError without the packages
    onnx and onnxruntime.
    """
    require_extra(NEEDS, what=f"{path.name}")
    import onnx
    import onnxruntime

    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {reason_of(error)}") from error
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's own classes, which onnx does not name
        raise CheckpointError(f"{path}: not an ONNX file, or damaged ({type(error).__name__})") from error
    contents = contents_from(described({entry.key: entry.value for entry in model.metadata_props}, path), path)
    if any(onnx.external_data_helper.uses_external_data(tensor) for tensor in model.graph.initializer):
        raise CheckpointError(f"{path}: its weights are in other files, which is not how tuner writes them")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = SILENT
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for each kind of damage
        raise CheckpointError(f"{path}: onnxruntime cannot run it: {_first_words(error)}") from error
    _check_ends(session, contents, path)

    def logits(images_NCHW: Tensor) -> Tensor:
        try:
            (logits_NK,) = session.run(None, {session.get_inputs()[0].name: images_NCHW.numpy()})
        except Exception as error:  # as above
            raise CheckpointError(f"{path}: onnxruntime cannot run it: {_first_words(error)}") from error
        if logits_NK.shape != (len(images_NCHW), len(contents.class_names)):
            raise CheckpointError(f"{path}: damaged: it gives logits of shape {logits_NK.shape}")
        return torch.from_numpy(logits_NK)

    return contents, logits


def _check_ends(session: Any, contents: Contents, path: Path) -> None:
    """Raise CheckpointError unless images and logits have the types and shapes in the description."""
    wanted = [
        ("tensor(uint8)", list(contents.architecture.input_shape)),
        ("tensor(float)", [contents.architecture.num_classes]),
    ]
    found = [
        [(end.type, list(end.shape[1:])) for end in ends] for ends in (session.get_inputs(), session.get_outputs())
    ]
    if found != [[end] for end in wanted]:
        raise CheckpointError(f"{path}: damaged: its description says {wanted}, but the network has {found}")


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what torch and onnxscript print about their internals."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
