"""The best trials of a study: their order, and the checkpoints and artifacts that are kept only for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tuner.architecture.any_architecture import cost_of
from tuner.search.dashboard_entries import MAX_NOTES, Shown, save_artifacts, trial_note
from tuner.search.events import BestTrial, Outcome
from tuner.search.objective import ranked
from tuner.search.record import StudyRecord
from tuner.search.running_trial import RunningTrial
from tuner.search.study_files import NUM_KEPT, artifact_path, checkpoint_path
from tuner.training.candidate import Candidate


class BestTrials:
    """The complete trials of a study, ranked by validation accuracy; of equal ones, the earlier is better.

    class_names: for pictures; without them, classes are numbered.
    """

    def __init__(self, record: StudyRecord, study_folder: Path, class_names: Sequence[str]) -> None:
        self._record, self._folder, self._class_names = record, study_folder, class_names
        self._ranked: list[BestTrial] = []

    @property
    def first(self) -> BestTrial | None:
        """The best trial of all."""
        return self._ranked[0] if self._ranked else None

    @property
    def _kept(self) -> set[int]:
        return {trial.number for trial in self._ranked[:NUM_KEPT]}

    def add(self, number: int, candidate: Candidate, accuracy: float, epoch: int) -> None:
        """Add a complete trial to the ranking. `accuracy` (0..1) is its best, which it had in epoch `epoch`."""
        num_parameters = cost_of(candidate.architecture).num_parameters
        self._ranked.append(BestTrial(number, accuracy, epoch, num_parameters))
        self._ranked = ranked(self._ranked)

    def shown(self, running: RunningTrial, outcome: Outcome, reason: str) -> Shown:
        """Make what optuna-dashboard shows of a trial that ends: its note, and its files if its checkpoint is kept.

        An error here ends neither the trial nor the search; the result contains the reason.
        """
        try:
            return self._shown(running, outcome, reason)
        except Exception as error:  # noqa: BLE001 - whatever it is, the trial's own results are sound, and are stored
            return Shown(problem=f"{type(error).__name__}: {error}".splitlines()[0])

    def _shown(self, running: RunningTrial, outcome: Outcome, reason: str) -> Shown:
        number, candidate = running.number, running.candidate
        note = None
        if number < MAX_NOTES:
            cost = cost_of(candidate.architecture)
            note = trial_note(
                outcome=outcome,
                reason=reason,
                network=str(candidate.architecture),
                recipe=candidate.recipe,
                num_parameters=cost.num_parameters,
                flops=cost.flops,
                accuracy=running.accuracy,
                best_epoch=running.best_epoch,
                num_epochs=len(running.curve),
                latency_ms=running.latency_ms,
            )
        if running.best_epoch is None or number not in self._kept:
            return Shown(note)
        pictures, checkpoint = save_artifacts(
            self._folder,
            number,
            study=self._record.make_id(),
            curve=running.curve,
            best_epoch=running.best_epoch,
            confusion=running.confusion,
            class_names=self._class_names,
            checkpoint=checkpoint_path(self._folder, number),
        )
        return Shown(note, pictures, checkpoint)

    def clean_up(self, number: int) -> None:
        """Delete the checkpoints of an ended trial and of those that it displaced, unless they are among the best."""
        if number not in self._kept:
            checkpoint_path(self._folder, number).unlink(missing_ok=True)
            return
        for displaced in (trial.number for trial in self._ranked[NUM_KEPT : NUM_KEPT + 1]):
            identity, name = self._record.make_id(), self._record.name
            for study in (identity, name):  # by its name: from before studies had ids
                linked = artifact_path(self._folder, displaced, "checkpoint", study=study)
                was_shown = self._record.take_back_checkpoint(displaced, linked.name)
                if was_shown or study == identity:
                    linked.unlink(missing_ok=True)
            checkpoint_path(self._folder, displaced).unlink(missing_ok=True)
