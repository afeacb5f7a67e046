"""A confirmation as the study stores it: read back equal, from older versions too, or refused in one line."""

import json
from pathlib import Path
from typing import Any

import pytest
from rehearsal import Rehearsal

from tests.ui.synthetic import CONFIRMED, NOT_COMPARED, confirmation
from tuner.errors import StudyError
from tuner.search.confirmation import Confirmation
from tuner.search.record import CONFIRMED as ATTRIBUTE
from tuner.search.summary import summarise

NO_INTERVALS = {"interval": None, "difference_interval": None, "validation_mean": None}
NO_BASELINE = {"baseline": None, "baseline_number": None} | NOT_COMPARED


@pytest.mark.parametrize("changes", [{}, NOT_COMPARED, NO_INTERVALS, NO_BASELINE, {"candidates": [], "notes": []}])
def test_a_confirmation_is_stored_under_the_same_keys_and_read_back_equal(changes: dict[str, Any]) -> None:
    stored = CONFIRMED | changes
    found = Confirmation.from_json(json.loads(json.dumps(stored)))
    assert found.to_json() == stored
    assert Confirmation.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_keys_are_stored_in_their_order() -> None:
    assert list(confirmation().to_json()) == [
        "number",
        "epochs",
        "seeds",
        "test_accuracy",
        "interval",
        "validation_mean",
        "search_accuracy",
        "gap",
        "baseline_number",
        "baseline",
        "baseline_test_accuracy",
        "difference",
        "difference_interval",
        "beats_baseline",
        "delivered_test_accuracy",
        "num_test_images",
        "num_shared_test_images",
        "class_scores",
        "candidates",
        "num_trials",
        "test_set_openings",
        "is_full",
        "seconds",
        "notes",
    ]


def test_a_stored_confirmation_has_a_format_number_and_one_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    stored = confirmation().to_stored()
    assert stored == {"format": 1} | CONFIRMED
    assert Confirmation.from_json(stored) == confirmation()
    record = Rehearsal(tmp_path).record()
    record.save_confirmed(confirmation())
    assert record.storage.get_study_user_attrs(record.study_id)[ATTRIBUTE] == stored
    record.storage.set_study_user_attr(record.study_id, ATTRIBUTE, stored | {"format": 2})
    message = r"^study 'rehearsal' was written by a newer version of tuner \(format 2 of confirmations, .*$"
    with pytest.raises(StudyError, match=message):
        _ = record.confirmed


def test_a_confirmation_of_an_older_version_lacks_some_keys_and_one_of_a_later_version_may_have_more() -> None:
    lacking = {
        key: value
        for key, value in CONFIRMED.items()
        if key not in ("baseline", "num_shared_test_images", "class_scores", "test_set_openings", "is_full")
    }
    older = Confirmation.from_json(lacking)
    assert (older.baseline, older.test_set_openings, older.is_full) == (None, 1, False)
    assert (older.num_shared_test_images, older.class_scores) == (0, None)
    assert Confirmation.from_json(CONFIRMED | {"a key of a later version": 1}) == confirmation()


@pytest.mark.parametrize(
    ("changes", "is_of_baseline", "is_compared"),
    [
        ({}, False, True),
        (NOT_COMPARED, False, False),
        (NO_BASELINE, False, False),
        ({"baseline_number": 0, "difference": 0.0}, True, False),
    ],
)
def test_a_winner_is_compared_with_a_baseline_that_is_another_trial_and_was_scored(
    changes: dict[str, Any], is_of_baseline: bool, is_compared: bool
) -> None:
    found = confirmation(**changes)
    assert (found.is_of_baseline, found.is_compared) == (is_of_baseline, is_compared)


@pytest.mark.parametrize(
    "stored",
    ["yes", [], {"number": 0}, CONFIRMED | {"number": "three"}, CONFIRMED | {"beats_baseline": "maybe"}],
)
def test_a_confirmation_that_cannot_be_read_is_refused_in_one_line_that_names_the_study(
    tmp_path: Path, stored: object
) -> None:
    study = Rehearsal(tmp_path)
    record = study.record()
    record.storage.set_study_user_attr(record.study_id, ATTRIBUTE, stored)
    for read in (
        lambda: record.confirmed,
        lambda: record.num_test_set_openings,
        lambda: summarise(record, studies=tmp_path),
    ):
        with pytest.raises(StudyError, match=f"study '{study.name}': its confirmation cannot be read") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_a_stored_confirmation_is_the_studys_until_it_is_taken_back(tmp_path: Path) -> None:
    record = Rehearsal(tmp_path).record()
    assert (record.confirmed, record.num_test_set_openings) == (None, 0)
    record.save_confirmed(confirmation())
    assert record.confirmed == confirmation()
    assert record.num_test_set_openings == 1
    record.save_confirmed(None)
    assert record.confirmed is None
