"""A running trial, as the search process sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tuner.data.data_checks import are_uneven
from tuner.search.class_scores import scores_from_confusion
from tuner.search.objective import best_epoch, best_value, is_better, value_of
from tuner.space.sampling import Params
from tuner.training.candidate import Candidate
from tuner.training.results import Confusion, EpochResult


@dataclass
class RunningTrial:
    """A running trial and its results. curve: its validation accuracy by epoch. confusion: of its best epoch.

    params: in the names of the space. started: time on the search's clock, in seconds.
    reason_to_stop: given by the stopping rule; empty while the trial continues.
    """

    number: int
    candidate: Candidate
    params: Params
    started: float
    curve: dict[int, float] = field(default_factory=dict)
    confusion: Confusion | None = None
    latency_ms: float | None = None
    reason_to_stop: str = ""

    def take(self, result: EpochResult) -> None:
        """Record the results of an epoch."""
        value = value_of(result)
        if is_better(value, self.accuracy):
            self.confusion = result.confusion
        self.curve[result.epoch] = value
        self.latency_ms = result.latency_ms

    def class_attributes(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Scores by class in the best epoch, as the trial stores them; none without a confusion matrix."""
        if self.confusion is None or len(class_names) != len(self.confusion):
            return {}
        counts = [sum(row) for row in self.confusion]
        scores = scores_from_confusion(self.confusion, class_names, are_uneven=are_uneven(counts))
        texts = {"unrecognised": list(scores.unrecognised), "missing": list(scores.missing)}
        return {"class_scores": {**asdict(scores), **texts}}

    @property
    def best_epoch(self) -> int | None:
        """The first epoch with the highest validation accuracy; None before the first epoch."""
        return best_epoch(self.curve)

    @property
    def accuracy(self) -> float | None:
        """The highest validation accuracy (0..1); None before the first epoch."""
        return best_value(self.curve.values(), default=None)
