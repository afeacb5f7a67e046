"""StudyRecord: a study as it is stored, which is an ordinary Optuna study with one trial for each candidate."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from tuner.data.dataset import DataSpec
from tuner.errors import StudyError
from tuner.formats import NewerFormatError
from tuner.search.confirmation import Confirmation
from tuner.search.dashboard_entries import Shown, checkpoint_key, note_attributes, study_note
from tuner.search.optuna_tables import study_id_of, trial_id_of
from tuner.search.settings import (
    StudySettings,
    data_source,
)
from tuner.search.storage import GoneError, Storage
from tuner.search.study_location import can_be_a_folder, unusable_name
from tuner.search.trial_record import TrialRecord, trial_record_from
from tuner.training.candidate import Candidate
from tuner.training.engine import Engine

SETTINGS, ENGINE, DATA, CONFIRMED = "tuner:settings", "tuner:engine", "tuner:data", "tuner:confirmed"
ID = "tuner:id"
"""Study attributes: what a resumed search must share with the first one, how its trials are computed, where its images
come from, what the confirmation of its winner found; and a random id that its folder holds too."""
OPENINGS = "tuner:test_set_openings"
"""The study attribute that counts how often the test set was opened."""
SEALED = "tuner:sealed"
"""The study attribute that says which test part was set aside when the study began: `digest` and `num_images`."""
NOTE_VERSION, NOTE_RESULT = "tuner:note_ver", "tuner:note_result"
"""System attributes of a study: the version of the note that we wrote last, and its sentence on the result."""
CONSTRAINTS = "constraints"
"""The system attribute of a trial in which Optuna and optuna-dashboard look for constraints."""


class StudyRecord:
    """A study in a storage; only the holder of its lock may write to it."""

    def __init__(self, storage: Storage, study_id: int, name: str, *, identity: str | None = None) -> None:
        """Raise StudyError for a name from the database that is no name of a folder: it becomes part of paths.

        identity: the study's random id, by which a later study of the same name and number is recognised.
        """
        if not can_be_a_folder(name):
            raise unusable_name(name)
        self.storage, self.name = storage, name
        self.study_id = study_id
        self._identity = identity
        self._trial_ids: dict[int, int] = {}

    @property
    def settings(self) -> StudySettings:
        """What a resumed search must share with the first one. Raises StudyError when it cannot be read."""
        with self.readable("its settings"):
            return StudySettings.from_json(self.storage.get_study_user_attrs(self.study_id)[SETTINGS])

    @property
    def id(self) -> str | None:
        """A random id, which no other study has; None in studies from before there was one, until they are written."""
        found: str | None = self.storage.get_study_user_attrs(self.study_id).get(ID)
        return found

    def make_id(self) -> str:
        """The study's id; a study without one gets it now."""
        return self.id or str(self.storage.add_study_user_attribute(self.study_id, ID, uuid.uuid4().hex))

    def make_own_id(self, *, beside: Collection[str] = ()) -> str:
        """The study's id; a new one where another study of its storage has the same, as a copy by Optuna has.

        beside: the ids of the folders beside the study's, which may be of studies of other storages.
        """
        of_others = [
            study.user_attrs.get(ID) for study in self.storage.get_all_studies() if study_id_of(study) != self.study_id
        ]
        of_others += beside
        if self.make_id() in of_others:
            self._identity = uuid.uuid4().hex
            self.storage.set_study_user_attr(self.study_id, ID, self._identity)
        return self.make_id()

    def refuse_gone(self) -> None:
        """Raise StudyError where the study was deleted or renamed meanwhile, or replaced by another one of its name.

        Databases give a number again.
        """
        try:
            name = self.storage.get_study_name_from_id(self.study_id)
        except KeyError:
            name = ""
        is_another = name == self.name and self._identity not in (None, self.id)
        if name != self.name or is_another:
            raise StudyError(
                f"study {self.name!r} was deleted or renamed by another process; `tuner list` shows which are left"
            )

    @property
    def engine(self) -> Engine:
        """How the trials of this study are computed."""
        with self.readable("how it trains"):
            return Engine.from_json(self.storage.get_study_user_attrs(self.study_id)[ENGINE])

    @property
    def confirmed(self) -> Confirmation | None:
        """What the confirmation of the winner found; None before there is one.

        Raises StudyError when it cannot be read.
        """
        stored = self.storage.get_study_user_attrs(self.study_id).get(CONFIRMED)
        if stored is None:
            return None
        with self.readable("its confirmation"):
            return Confirmation.from_json(stored)

    @property
    def num_test_set_openings(self) -> int:
        """How often the study has opened its test set; a confirmation from before this was counted, once."""
        confirmed = self.confirmed
        at_least = 0 if confirmed is None else confirmed.test_set_openings
        return max(at_least, int(self.storage.get_study_user_attrs(self.study_id).get(OPENINGS, 0)))

    def count_test_set_opening(self) -> int:
        """Count an opening of the test set that is about to happen, so that none goes uncounted; how many there are."""
        number = self.num_test_set_openings + 1
        self.storage.set_study_user_attr(self.study_id, OPENINGS, number)
        return number

    def save_confirmed(self, confirmed: Confirmation | None) -> None:
        """Store what a confirmation found; None takes it back."""
        stored = None if confirmed is None else confirmed.to_stored()
        self.storage.set_study_user_attr(self.study_id, CONFIRMED, stored)
        self.write_note()

    @property
    def sealed(self) -> dict[str, Any] | None:
        """Which test part was set aside when the study began: `digest` and `num_images`. None in older studies."""
        found: dict[str, Any] | None = self.storage.get_study_user_attrs(self.study_id).get(SEALED)
        return found

    def save_sealed(self, digest: str, num_images: int) -> None:
        """Remember which test part was set aside, by the digest of its images."""
        self.storage.set_study_user_attr(self.study_id, SEALED, {"digest": digest, "num_images": num_images})

    def write_note(self, result: str | None = None) -> None:
        """Say in the study's note what it is and what it has come to, unless somebody has written another.

        result: a sentence; None keeps the last one.
        """
        kept = self.storage.get_study_system_attrs(self.study_id)
        version = kept.get("dashboard:note_ver", 0)
        if version != kept.get(NOTE_VERSION, 0):
            return
        result = kept.get(NOTE_RESULT, "") if result is None else result
        data = self.storage.get_study_user_attrs(self.study_id).get(DATA, {})
        text = study_note(self.name, self.settings, self.engine, data=data, result=result, confirmed=self.confirmed)
        ours = {NOTE_VERSION: version + 1, NOTE_RESULT: result}
        for key, value in (note_attributes(text, version=version + 1) | ours).items():
            self.storage.set_study_system_attr(self.study_id, key, value)

    @property
    def data_source(self) -> dict[str, Any] | None:
        """Where the images come from: `dataset`, `data_dir`, `image_size`; None where it was not stored."""
        source: dict[str, Any] | None = self.storage.get_study_user_attrs(self.study_id).get(DATA)
        return source

    def data_spec(self, cache_dir: Path) -> DataSpec:
        """Where the images of the study come from, to load them again; nothing is downloaded.

        Raises StudyError when the study does not say it.
        """
        data = self.storage.get_study_user_attrs(self.study_id).get(DATA)
        if data is None:
            raise StudyError(f"study {self.name!r} does not say where its images are: resume it with `tuner run`")
        image_size = tuple(data["image_size"]) if data["image_size"] else None
        return DataSpec(data["dataset"], Path(data["data_dir"]), cache_dir, image_size=image_size, download=False)

    def save_data_spec(self, spec: DataSpec) -> None:
        """Remember where the images come from, by absolute paths."""
        self.storage.set_study_user_attr(self.study_id, DATA, data_source(spec))

    def stored_trials(self) -> list[FrozenTrial]:
        """Every trial as Optuna gives it. Raises StudyError when they cannot be read."""
        with self.readable("its trials"):
            return self.storage.get_all_trials(self.study_id, deepcopy=False)

    def trials(self, stored: Sequence[FrozenTrial] | None = None) -> list[TrialRecord]:
        """Every trial, in the order of their numbers. Trials that other programs put into the study are skipped.

        stored: what `stored_trials` has returned, for callers that need both. Raises StudyError that names a trial
        which cannot be read.
        """
        trials = self.stored_trials() if stored is None else stored
        self._trial_ids |= {trial.number: trial_id_of(trial) for trial in trials}
        records = []
        for trial in trials:
            if "candidate" in trial.user_attrs:
                with self.readable(f"trial {trial.number}"):
                    records.append(trial_record_from(trial))
        return records

    @contextmanager
    def readable(self, what: str) -> Iterator[None]:
        """Raise StudyError in one line for what another version, or another program, has stored otherwise."""
        try:
            yield
        except GoneError:
            raise
        except NewerFormatError as error:
            raise StudyError(
                f"study {self.name!r} was written by a newer version of tuner ({error}): use the newer version, "
                "or start another study with --study NAME"
            ) from error
        except (ValueError, LookupError, TypeError) as error:
            words = " ".join(str(error).split())[:200]
            raise StudyError(
                f"study {self.name!r}: {what} cannot be read ({type(error).__name__}: {words}); "
                "use the version that wrote it, or start another study with --study NAME"
            ) from error

    @property
    def num_stored(self) -> int:
        """Trials of any kind, those of other programs too: the number that the next one gets."""
        return self.storage.get_n_trials(self.study_id)

    def begin(
        self,
        candidate: Candidate,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        attributes: Mapping[str, Any],
        *,
        constraint: float | None = None,
    ) -> int:
        """Store a new running trial whole, in one transaction, and give its number.

        constraint: how far it is beyond what is allowed; at most 0 for a trial that keeps to it.
        """
        template = FrozenTrial(
            number=-1,
            trial_id=-1,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params=dict(params),
            distributions=dict(distributions),
            user_attrs={"candidate": candidate.to_json(), "fingerprint": candidate.fingerprint, **attributes},
            system_attrs={} if constraint is None else {CONSTRAINTS: [constraint]},
            intermediate_values={},
        )
        trial_id, number = self.storage.begin_trial(self.study_id, template)
        self._trial_ids[number] = trial_id
        return number

    def begin_again(self, number: int, *, runner: int) -> None:
        """Take up an unfinished trial, on whichever runner is free now."""
        self.storage.set_trial_user_attr(self._trial_ids[number], "runner", runner)
        self.storage.set_trial_state_values(self._trial_ids[number], TrialState.RUNNING)

    def report(self, number: int, epoch: int, validation_accuracy: float) -> None:
        """Store the validation accuracy of an epoch."""
        self.storage.report(self._trial_ids[number], epoch, validation_accuracy)

    def end(
        self,
        number: int,
        state: TrialState,
        attributes: Mapping[str, Any],
        *,
        validation_accuracy: float | None,
        shown: Shown | None = None,
    ) -> None:
        """Give a trial its final state; its attributes go in before, since afterwards it cannot be changed.

        shown: what optuna-dashboard shows beside them.
        """
        values = [validation_accuracy] if state is TrialState.COMPLETE and validation_accuracy is not None else []
        trial_id = self._trial_ids[number]
        if shown is None:
            self.storage.end_trial(trial_id, state, values, attributes)
        else:
            self.storage.end_trial(
                trial_id,
                state,
                values,
                attributes,
                system_attributes=shown.trial_attributes(),
                study_attributes=shown.study_attributes(trial_id),
            )

    def take_back_checkpoint(self, number: int, artifact: str) -> bool:
        """Take the checkpoint of a trial out of what optuna-dashboard shows, before its file goes; whether it was."""
        key = checkpoint_key(self._trial_ids[number], artifact)
        return self.storage.remove_study_system_attributes(self.study_id, [key]) > 0

    def leave(self, number: int) -> None:
        """Put a running trial down: it waits, and the next run of the study takes it up."""
        self.storage.set_trial_state_values(self._trial_ids[number], TrialState.WAITING)
