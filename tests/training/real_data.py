"""A small part of the real digits, and short recipes that learn it."""

from dataclasses import replace
from pathlib import Path

import torch

from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.data.development_part import DataSpec, load_development
from tuner.data.resident import ResidentData, load_resident
from tuner.data.splits import Split, split_development
from tuner.training.candidate import Candidate, Recipe, resolve_candidate

BLOCKS = (
    PlainBlock(8, normalization="batch", pooling="max"),
    PlainBlock(16, normalization="batch", dropout=0.1),
)


def small_digits(folder: Path, *, num_train: int = 600, num_validation: int = 100) -> ResidentData:
    dataset = load_development(DataSpec("digits", folder / "data", folder / "cache"))
    split = split_development(dataset, seed=0)
    part = Split(split.train_indices_N[:num_train], split.validation_indices_N[:num_validation])
    return load_resident(dataset, part, device=torch.device("cpu"))


def candidate(**recipe: object) -> Candidate:
    """A small network for digits, with a recipe of four epochs unless it says otherwise."""
    defaults = Recipe(learning_rate=5e-3, batch_size=32, epochs=4)
    architecture = Architecture(InputSpec(1, 8, 8, 10), BLOCKS, Head())
    return resolve_candidate(Candidate(architecture, replace(defaults, **recipe)))  # type: ignore[arg-type]
