"""What a study stores of its settings, and how settings of other versions are read."""

import json
from dataclasses import MISSING, fields, replace
from pathlib import Path

import optuna
import pytest
from pydantic import ValidationError
from rehearsal import SETTINGS, Rehearsal

from tests.strategies import ALL_SPACES
from tuner.errors import SpaceError, StudyError
from tuner.search.record import SETTINGS as SETTINGS_KEY
from tuner.search.settings import (
    RELEASED_DEFAULTS,
    SETTINGS_FORMAT,
    StudySettings,
    has_another_version_of_its_space,
    space_note,
    space_to_json,
    stored_space,
)
from tuner.search.storage import open_storage
from tuner.search.study_lookup import find_study, open_study
from tuner.training.engine import Engine


@pytest.fixture
def study(tmp_path: Path) -> Rehearsal:
    return Rehearsal(tmp_path)


FULL = replace(SETTINGS, image_size=(8, 9), space={"block": {"out_channels": {"choices": [4, 8]}}})


@pytest.mark.parametrize("settings", [SETTINGS, FULL])
def test_settings_survive_json_and_have_a_format_number(settings: StudySettings) -> None:
    data = json.loads(json.dumps(settings.to_json()))
    assert data["format"] == SETTINGS_FORMAT
    assert StudySettings.from_json(data) == settings


def test_a_missing_setting_has_its_released_default_and_settings_without_a_number_are_older() -> None:
    data = FULL.to_json()
    del data["format"], data["image_size"]
    assert StudySettings.from_json(data) == replace(FULL, image_size=None, format=0)


def test_released_defaults_of_settings_are_never_changed_and_every_default_has_one() -> None:
    # Rows are added here, with the settings that they are of; no other change is allowed.
    assert RELEASED_DEFAULTS == {
        "image_size": None,
        "is_space_bundled": False,
        "levels": (0, 65535),
        "ground": "white",
    }
    with_default = {field.name for field in fields(StudySettings) if field.default is not MISSING}
    assert with_default == {*RELEASED_DEFAULTS, "format"}


def test_settings_of_a_newer_format_are_refused_with_the_name_of_the_study(study: Rehearsal) -> None:
    record = study.record()
    newer = SETTINGS.to_json() | {"format": SETTINGS_FORMAT + 1, "setting_of_a_newer_version": 1}
    record.storage.set_study_user_attr(record.study_id, SETTINGS_KEY, newer)
    with pytest.raises(StudyError) as caught:
        _ = record.settings
    assert str(caught.value) == (
        "study 'rehearsal' was written by a newer version of tuner (format 2 of settings, and this version reads "
        "format 1): use the newer version, or start another study with --study NAME"
    )


@pytest.mark.parametrize("number", [-1, "new", None, True])
def test_a_format_of_settings_that_is_no_number_is_refused(study: Rehearsal, number: object) -> None:
    record = study.record()
    record.storage.set_study_user_attr(record.study_id, SETTINGS_KEY, SETTINGS.to_json() | {"format": number})
    with pytest.raises(StudyError, match=r"study 'rehearsal': its settings cannot be read .* whole number") as caught:
        _ = record.settings
    assert "\n" not in str(caught.value)


def test_a_setting_of_a_newer_version_and_a_missing_one_are_refused() -> None:
    with pytest.raises(ValidationError, match="setting_of_a_newer_version"):
        StudySettings.from_json(SETTINGS.to_json() | {"setting_of_a_newer_version": 1})
    with pytest.raises(ValidationError, match="seed"):
        StudySettings.from_json({key: value for key, value in SETTINGS.to_json().items() if key != "seed"})


@pytest.mark.parametrize("name", ALL_SPACES)
def test_a_stored_space_is_the_space_that_was_stored(name: str) -> None:
    space = ALL_SPACES[name]
    data = replace(SETTINGS, space_name=space.name, space=space_to_json(space)).to_json()
    stored = stored_space(StudySettings.from_json(json.loads(json.dumps(data))))
    assert stored.model_copy(update={"description": space.description}) == space


def test_a_stored_space_that_this_version_does_not_know_is_named() -> None:
    with pytest.raises(SpaceError, match="the space tiny that the study stores: new: unknown key"):
        stored_space(replace(SETTINGS, space=space_to_json(ALL_SPACES["cnn"]) | {"new": 1}))


def test_another_version_of_a_bundled_space_is_no_difference_and_of_a_file_it_is_one(study: Rehearsal) -> None:
    storage = open_storage(study.url)
    begun = replace(SETTINGS, is_space_bundled=True)
    open_study(storage, "bundled", begun, engine=Engine("cpu"))
    now = replace(begun, space={"block": 1})
    found = find_study(storage, "bundled", now)
    assert found is not None
    assert found.settings == begun
    assert space_note(found.settings, now) == (
        "the bundled space tiny has changed since the study began (block was unset, not 1); "
        "the study's own version is used"
    )
    for own in (replace(begun, is_space_bundled=False), begun):  # a file that has the name of the study's space
        study_name = f"own-{own.is_space_bundled}"
        open_study(storage, study_name, own, engine=Engine("cpu"))
        given = replace(now, is_space_bundled=not own.is_space_bundled)
        with pytest.raises(StudyError, match="other settings: block was unset, not 1"):
            find_study(storage, study_name, given)
    with pytest.raises(StudyError, match="seed was 0, not 1"):
        find_study(storage, "bundled", replace(now, seed=1))
    with pytest.raises(StudyError, match='space was "tiny", not "cnn"'):
        find_study(storage, "bundled", replace(now, space_name="cnn"))


def test_a_key_that_a_later_version_adds_to_spaces_is_no_difference(study: Rehearsal) -> None:
    space = space_to_json(ALL_SPACES["cnn"])
    assert space["network"]["num_blocks"]["log"] is False
    given = replace(SETTINGS, space_name="cnn", space=space)
    stored = StudySettings.from_json(given.to_json())
    del stored.space["network"]["num_blocks"]["log"]
    record = open_study(open_storage(study.url), "a", stored, engine=Engine("cpu"))
    assert record.settings.space != given.space
    assert not has_another_version_of_its_space(record.settings, given)
    assert find_study(record.storage, "a", given) is not None
    assert stored_space(record.settings) == stored_space(given)


def test_the_stored_settings_are_plain_values_for_other_optuna_tools(study: Rehearsal) -> None:
    study.record()
    stored = optuna.load_study(study_name=study.name, storage=study.url).user_attrs[SETTINGS_KEY]
    assert stored == {
        "dataset": "digits",
        "dataset_digest": "d",
        "space_name": "tiny",
        "space": {},
        "seed": 0,
        "epochs": SETTINGS.epochs,
        "image_size": None,
        "is_space_bundled": False,
        "levels": [0, 65535],
        "ground": "white",
        "format": 1,
    }
