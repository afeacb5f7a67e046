"""TrialRecord: one trial of a study as it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from tuner.search.class_scores import ClassScores
from tuner.search.events import Outcome, counts
from tuner.search.objective import best_epoch
from tuner.training.candidate import Candidate


@dataclass(frozen=True)
class TrialRecord:
    """One trial as stored. `validation_accuracy` is that of `best_epoch`; both are None before the first epoch.

    runner: number of the runner that trained it. latency_ms: time of one image's forward pass, for complete trials.
    Both are None in studies from before they were stored. baseline: for the trial that the winner is compared with, the
    JSON object of `space.baseline.Baseline`; None for all others. class_scores: on the validation part in the best
    epoch; None for an older trial, and with many classes.
    """

    number: int
    state: TrialState
    outcome: Outcome | None
    reason: str
    candidate: Candidate
    params: Mapping[str, Any]
    curve: Mapping[int, float]
    num_parameters: int
    flops: int
    seconds: float
    started: datetime | None
    ended: datetime | None
    runner: int | None = None
    latency_ms: float | None = None
    baseline: Mapping[str, Any] | None = None
    class_scores: ClassScores | None = None

    @property
    def best_epoch(self) -> int | None:
        """The first epoch of the highest validation accuracy."""
        return best_epoch(self.curve)

    @property
    def validation_accuracy(self) -> float | None:
        """Accuracy of the best epoch, in 0..1."""
        return None if self.best_epoch is None else self.curve[self.best_epoch]

    @property
    def counts(self) -> bool:
        """Whether it counts towards the number of trials that were requested."""
        return counts(self.outcome, num_epochs=len(self.curve))


def trial_record_from(trial: FrozenTrial) -> TrialRecord:
    """Convert a trial of Optuna. Raises some error of the value itself if another program has stored it."""
    attributes = trial.user_attrs
    num_epochs = attributes.get("num_epochs", float("inf"))
    return TrialRecord(
        number=trial.number,
        state=trial.state,
        outcome=attributes.get("outcome"),
        reason=attributes.get("reason", ""),
        candidate=Candidate.from_json(attributes["candidate"]),
        params=trial.params,
        # A trial that was interrupted keeps epochs of its first run; those beyond its end are not of its own.
        curve={epoch: value for epoch, value in sorted(trial.intermediate_values.items()) if epoch <= num_epochs},
        num_parameters=attributes["num_parameters"],
        flops=attributes["flops"],
        seconds=attributes.get("seconds", 0.0),
        started=trial.datetime_start,
        ended=trial.datetime_complete,
        runner=attributes.get("runner"),
        latency_ms=attributes.get("latency_ms"),
        baseline=attributes.get("baseline"),
        class_scores=_class_scores_from(attributes.get("class_scores")),
    )


def _class_scores_from(stored: Mapping[str, Any] | None) -> ClassScores | None:
    if stored is None:
        return None
    values = {one.name: stored[one.name] for one in fields(ClassScores) if one.name != "missing"}
    texts = {name: tuple(stored.get(name, ())) for name in ("unrecognised", "missing")}
    return ClassScores(**values | texts)
