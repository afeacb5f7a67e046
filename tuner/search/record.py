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
"""Study attributes that this module writes.

They hold the settings that a resumed search must share, the engine, the source of the images, the result of the
confirmation, and a random id that the study's folder holds too.
"""
OPENINGS = "tuner:test_set_openings"
"""Study attribute that counts how often the test set was opened."""
SEALED = "tuner:sealed"
"""Study attribute for the test part that was set aside when the study began: `digest` and `num_images`."""
NOTE_VERSION, NOTE_RESULT = "tuner:note_ver", "tuner:note_result"
"""System attributes of a study: the version of the note that tuner wrote last, and its sentence on the result."""
CONSTRAINTS = "constraints"
"""System attribute of a trial in which Optuna and optuna-dashboard look for constraints."""


class StudyRecord:
    """A study in a storage; only the holder of its lock may write to it."""

    def __init__(self, storage: Storage, study_id: int, name: str, *, identity: str | None = None) -> None:
        """Raise StudyError for a name in the database that cannot name a folder, since it becomes part of paths.

        identity: random id of the study, which distinguishes it from a later study with the same name and number.
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
        """A random id that no other study has; None in studies from before ids, until they are written to."""
        found: str | None = self.storage.get_study_user_attrs(self.study_id).get(ID)
        return found

    def make_id(self) -> str:
        """Return the study's id; a study without one gets a new one."""
        return self.id or str(self.storage.add_study_user_attribute(self.study_id, ID, uuid.uuid4().hex))

    def make_own_id(self, *, beside: Collection[str] = ()) -> str:
        """Return the study's id; it is replaced if another study in its storage has the same, such as a copy by Optuna.

        beside: the ids of the folders beside the study's, which may belong to studies of other storages.
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
        """Raise StudyError if the study was deleted, renamed, or replaced by another one with its name.

        Databases reuse numbers.
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
        """How often the study has opened its test set; a confirmation from before this was counted is one opening."""
        confirmed = self.confirmed
        at_least = 0 if confirmed is None else confirmed.test_set_openings
        return max(at_least, int(self.storage.get_study_user_attrs(self.study_id).get(OPENINGS, 0)))

    def count_test_set_opening(self) -> int:
        """Count an opening of the test set before it happens, so that none is missed; return the number of openings."""
        number = self.num_test_set_openings + 1
        self.storage.set_study_user_attr(self.study_id, OPENINGS, number)
        return number

    def save_confirmed(self, confirmed: Confirmation | None) -> None:
        """Store the result of a confirmation; None removes it."""
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
        """Write the study's note, which describes the study and its results, unless a user has written another one.

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
        """Source of the images: `dataset`, `data_dir`, `image_size`; None if it was not stored."""
        source: dict[str, Any] | None = self.storage.get_study_user_attrs(self.study_id).get(DATA)
        return source

    def data_spec(self, cache_dir: Path) -> DataSpec:
        """Return the source of the study's images, to load them again; nothing is downloaded.

        Raises StudyError if the study does not store it.
        """
        data = self.storage.get_study_user_attrs(self.study_id).get(DATA)
        if data is None:
            raise StudyError(f"study {self.name!r} does not say where its images are: resume it with `tuner run`")
        with self.readable("where its images are"):
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
        """Return every trial, in the order of their numbers. Trials that other programs added to the study are skipped.

        stored: the result of `stored_trials`, for callers that need both. Raises StudyError with the name of a trial
        that cannot be read.
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
        """Raise a StudyError of one line if another version or program has stored data in another form."""
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
            words = " ".join(str(error).split(" For further information")[0].split())[:200]
            raise StudyError(
                f"study {self.name!r}: {what} cannot be read ({type(error).__name__}: {words}); "
                "use the version that wrote it, or start another study with --study NAME"
            ) from error

    @property
    def num_stored(self) -> int:
        """Number of trials of any kind, including those of other programs; it is the number of the next trial."""
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
        """Store a new running trial in one transaction, and return its number.

        constraint: how far it exceeds the memory limits; at most 0 for a trial within them.
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
        """Restart an unfinished trial on the given runner."""
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
        """Store a trial's final state. Its attributes are written before, because it cannot be changed afterwards.

        shown: what optuna-dashboard shows for the trial.
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
        """Remove a trial's checkpoint from optuna-dashboard before its file is deleted; return whether it was there."""
        key = checkpoint_key(self._trial_ids[number], artifact)
        return self.storage.remove_study_system_attributes(self.study_id, [key]) > 0

    def leave(self, number: int) -> None:
        """Suspend a running trial: it waits until the next run of the study resumes it."""
        self.storage.set_trial_state_values(self._trial_ids[number], TrialState.WAITING)
