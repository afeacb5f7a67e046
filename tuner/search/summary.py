"""Summary of a study, counted from its record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from tuner.data.data_checks import DataChecks
from tuner.search.class_scores import ClassScores
from tuner.search.confirmation import Confirmation
from tuner.search.folder_owner import is_another_studys
from tuner.search.objective import ranked
from tuner.search.older_studies import is_of_older_version
from tuner.search.record import StudyRecord
from tuner.search.study_files import checkpoint_path, confirmed_path
from tuner.search.trial_record import TrialRecord


@dataclass(frozen=True)
class StudySummary:
    """Summary of a study. Files in a folder of another study count as missing.

    counts: number of trials by outcome. checkpoint: path for the best trial of the search, None if the file is missing.
    confirmed: result of the confirmation, None before there is one. delivered: path of the confirmed winner's
    checkpoint, None if there is none or the file is missing. winner: the trial of the confirmed winner, None before
    there is one. is_older: whether an earlier version made the study, so that it can be neither resumed nor confirmed.
    checks: what was found in the data set, None in older studies.
    """

    study: str
    dataset: str
    space: str
    num_counted: int
    counts: dict[str, int]
    best: TrialRecord | None
    checkpoint: Path | None
    confirmed: Confirmation | None = None
    delivered: Path | None = None
    winner: TrialRecord | None = None
    is_older: bool = False
    checks: DataChecks | None = None

    @property
    def best_class_scores(self) -> ClassScores | None:
        """Scores by class of the best trial.

        Classes are uneven if they are so in the whole development part, or if one has no validation image.
        """
        if self.best is None or self.best.class_scores is None or self.checks is None:
            return None
        scores = self.best.class_scores
        return replace(scores, are_uneven=self.checks.are_classes_uneven or bool(scores.missing))

    def to_json(self) -> dict[str, Any]:
        """Return the object that `tuner show --json` prints."""
        best = None
        if self.best is not None:
            best = {
                "number": self.best.number,
                "validation_accuracy": self.best.validation_accuracy,
                "epoch": self.best.best_epoch,
                "num_parameters": self.best.num_parameters,
                "params": dict(self.best.params),
                "checkpoint": str(self.checkpoint) if self.checkpoint else None,
                "class_scores": None if self.best.class_scores is None else asdict(self.best.class_scores),
            }
        trials = {"counted": self.num_counted, **self.counts}
        return {
            "study": self.study,
            "dataset": self.dataset,
            "space": self.space,
            "trials": trials,
            "best": best,
            "confirmed": None if self.confirmed is None else self.confirmed.to_json(),
            "checks": None if self.checks is None else self.checks.to_json(),
        }


def summarise(record: StudyRecord, *, studies: Path, trials: list[TrialRecord] | None = None) -> StudySummary:
    """Count a study's trials and find its best. `trials`: all of them, if the caller has already read them."""
    trials = record.trials() if trials is None else trials
    counts = Counter(dict.fromkeys(("complete", "pruned", "failed", "rejected", "repeated", "running", "waiting"), 0))
    for trial in trials:
        outcome = "pruned" if trial.outcome == "diverged" else trial.outcome
        counts[outcome or trial.state.name.lower()] += 1
    best = best_trial(trials)
    path = checkpoint_path(studies / record.name, best.number) if best else None
    delivered = confirmed_path(studies / record.name)
    has_files = not is_another_studys(studies / record.name, record)
    settings, confirmed = record.settings, record.confirmed
    return StudySummary(
        study=record.name,
        dataset=settings.dataset,
        space=settings.space_name,
        num_counted=sum(trial.counts for trial in trials),
        counts=dict(counts),
        best=best,
        checkpoint=path if path and has_files and path.is_file() else None,
        confirmed=confirmed,
        delivered=delivered if confirmed and has_files and delivered.is_file() else None,
        winner=next((trial for trial in trials if confirmed and trial.number == confirmed.number), None),
        is_older=is_of_older_version(record),
        checks=record.checks,
    )


def best_trial(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """Return the complete trial with the highest validation accuracy; the first of equals, like Optuna."""
    return next(iter(rank_complete(trials)), None)


def rank_complete(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the complete trials, the best first."""
    return ranked(
        trial for trial in trials if trial.state is TrialState.COMPLETE and trial.validation_accuracy is not None
    )
