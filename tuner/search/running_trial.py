"""A trial that runs, as the one process that decides sees it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tuner.space.sampling import Params
from tuner.training.candidate import Candidate
from tuner.training.results import Confusion, EpochResult


@dataclass
class RunningTrial:
    """What a trial has come to so far. curve: its validation accuracy by epoch. confusion: of its best epoch.

    params: as the space names them. started: by the search's clock, in seconds.
    reason_to_stop: the stopping rule's, empty as long as the trial continues.
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
        """Remember what an epoch came to."""
        if result.validation_accuracy > max(self.curve.values(), default=-1.0):
            self.confusion = result.confusion
        self.curve[result.epoch] = result.validation_accuracy
        self.latency_ms = result.latency_ms

    @property
    def best_epoch(self) -> int | None:
        """The first epoch of the highest validation accuracy; None before there is one."""
        return max(self.curve, key=lambda epoch: (self.curve[epoch], -epoch), default=None)

    @property
    def accuracy(self) -> float | None:
        """The highest validation accuracy (0..1); None before there is one."""
        return max(self.curve.values(), default=None)
