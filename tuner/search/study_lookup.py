"""Find, create, resume and list the studies of a storage."""

from __future__ import annotations

from dataclasses import replace

from tuner.data.dataset import DataSpec
from tuner.errors import StudyError
from tuner.search.objective import DIRECTION, OBJECTIVE
from tuner.search.optuna_tables import FrozenStudy, study_id_of
from tuner.search.record import ENGINE, ID, SETTINGS, StudyRecord
from tuner.search.settings import (
    StudySettings,
    data_source,
    differences,
    has_another_version_of_its_space,
)
from tuner.search.storage import Storage, quiet_optuna
from tuner.search.study_location import can_be_a_folder
from tuner.training.engine import Engine


def open_study(
    storage: Storage, name: str, settings: StudySettings, *, engine: Engine, data: DataSpec | None = None
) -> StudyRecord:
    """Create a study with these settings, or resume the one with this name if its settings are the same.

    A resumed study keeps its own engine. `data` is the current source of the images.

    Raises StudyError that says what differs.
    """
    found = find_study(storage, name, settings, data=data)
    return create_study(storage, name, settings, engine=engine) if found is None else found


def find_study(
    storage: Storage,
    name: str,
    settings: StudySettings,
    *,
    data: DataSpec | None = None,
) -> StudyRecord | None:
    """Find the study with a name, to resume it with these settings; None if it would be new. Nothing is written.

    The study may store another version of a bundled space.

    Raises StudyError that says what differs, or that an existing name differs only in case.
    """
    studies = {study.study_name: study for study in storage.get_all_studies()}
    if name in studies and SETTINGS in studies[name].user_attrs:
        record = _record_of(storage, studies[name])
        now = None if data is None else data_source(data)
        stored = record.settings
        if has_another_version_of_its_space(stored, settings):
            settings = replace(settings, space=stored.space)
        differing = differences(
            stored,
            settings,
            data_before=record.data_source,
            data_now=now,
        )
        if differing:
            raise StudyError(
                f"study {name!r} was started with other settings: {differing}. "
                "Give those, or start another study with --study NAME"
            )
        return record
    if name in studies and storage.get_n_trials(study_id_of(studies[name])):
        raise StudyError(f"study {name!r} of this storage was made by another program; give another --study NAME")
    alike = [other for other in studies if other != name and other.lower() == name.lower()]
    if alike:
        raise StudyError(
            f"study {name!r} would share the folder of {alike[0]!r} on some systems; give another --study NAME"
        )
    return None


def load_study(storage: Storage, name: str | None = None) -> StudyRecord:
    """Load the study with a name, or the one that was started last.

    Raises StudyError if there is none, or if its name cannot be the name of a folder.
    """
    studies = [study for study in storage.get_all_studies() if SETTINGS in study.user_attrs]
    if not studies:
        raise StudyError("there is no study yet: start one with `tuner run`")
    if name is None:
        study = max(studies, key=lambda study: study_id_of(study))
    else:
        named = {study.study_name: study for study in studies}
        if name not in named:
            usable = sorted(filter(can_be_a_folder, named))
            raise StudyError(f"no study {name!r}: there are {', '.join(usable) or 'none to use'}")
        study = named[name]
    return _record_of(storage, study)


def list_studies(storage: Storage) -> list[StudyRecord]:
    """Return all of tuner's studies in a storage, the last started first, except those of unusable_names."""
    studies = [study for study in storage.get_all_studies() if SETTINGS in study.user_attrs]
    studies.sort(key=lambda study: -study_id_of(study))
    usable = [study for study in studies if can_be_a_folder(study.study_name)]
    return [_record_of(storage, study) for study in usable]


def unusable_names(storage: Storage) -> list[str]:
    """Return the names of tuner's studies that another program has renamed, and that cannot be names of folders."""
    names = [study.study_name for study in storage.get_all_studies() if SETTINGS in study.user_attrs]
    return [name for name in names if not can_be_a_folder(name)]


def _record_of(storage: Storage, study: FrozenStudy) -> StudyRecord:
    return StudyRecord(storage, study_id_of(study), study.study_name, identity=study.user_attrs.get(ID))


def create_study(storage: Storage, name: str, settings: StudySettings, *, engine: Engine) -> StudyRecord:
    """Create a study that find_study has not found, or complete one that a killed process left incomplete."""
    try:
        study_id = storage.get_study_id_from_name(name)
    except KeyError:
        with quiet_optuna():
            study_id = storage.create_new_study([DIRECTION], name)
    storage.set_study_user_attr(study_id, ENGINE, engine.to_json())
    storage.set_study_system_attr(study_id, "study:metric_names", [OBJECTIVE])
    record = StudyRecord(storage, study_id, name)
    record.make_id()
    storage.set_study_user_attr(study_id, SETTINGS, settings.to_json())  # the last: what has none is half made
    return record
