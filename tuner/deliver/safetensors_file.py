"""Save a checkpoint as a safetensors file, with its description as JSON in the metadata, and load it without code."""

from __future__ import annotations

import json
from pathlib import Path

from tuner.deliver.optional_packages import require_extra
from tuner.errors import CheckpointError, reason_of
from tuner.training.checkpoint import Checkpoint, checkpoint_from, description_of

NEEDS = ("safetensors",)


def save_safetensors(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; each field of its description becomes a JSON entry of the metadata.

    Raises InstallationError without the package safetensors.
    """
    require_extra(NEEDS, what=f"{path.name}")
    from safetensors.torch import save

    metadata = {name: json.dumps(value) for name, value in description_of(checkpoint).items()}
    weights = {name: weight.detach().cpu().contiguous().clone() for name, weight in checkpoint.weights.items()}
    path.write_bytes(save(weights, metadata=metadata))  # `save_file` makes files that none but their owner may read


def load_safetensors(path: Path) -> Checkpoint:
    """Read a checkpoint with the same checks as `load_checkpoint`.

    Raises CheckpointError in one line for anything else, and InstallationError without the package safetensors.
    """
    require_extra(NEEDS, what=f"{path.name}")
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()  # safetensors itself opens no file whose name is not UTF-8
        weights = load(data)
        metadata = _metadata(data)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {reason_of(error)}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path}: not a checkpoint of tuner, or damaged ({error})") from error
    return checkpoint_from({**described(metadata, path), "weights": weights}, path)


def _metadata(data: bytes) -> dict[str, str]:
    """Read the metadata of a file that is known to be valid. Source: the format section of safetensors' README."""
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return metadata


def described(metadata: dict[str, str], path: Path) -> dict[str, object]:
    """Parse the entries of a file's metadata, each of which is JSON. Raises CheckpointError if one is not."""
    try:
        return {name: json.loads(value) for name, value in metadata.items()}
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a checkpoint of tuner: its metadata are not JSON ({error})") from error
