"""SearchPlan: goals and limits of a search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuner.architecture.spec import InputSpec
from tuner.data.stream_limit import StreamLimit
from tuner.search.training_cost import BackboneImages
from tuner.space.schema import SearchSpace


@dataclass(frozen=True)
class SearchPlan:
    """Goals and limits of a search. `budget_seconds` ends it; `memory_bytes` is the limit for training one trial.

    num_trials: total number of trials that should count; None for as many as the budget allows.
    stream: the limit for batches if images are streamed. images: those of pretrained networks, which set the limit for
    each candidate; None for a space without backbones.
    class_names: for pictures; without them, classes are numbered.
    """

    space: SearchSpace
    input_spec: InputSpec
    epochs: int
    num_trials: int | None
    seed: int
    study_folder: Path
    memory_bytes: float = float("inf")
    stream: StreamLimit | None = None
    images: BackboneImages | None = None
    budget_seconds: float = float("inf")
    class_names: tuple[str, ...] = ()
