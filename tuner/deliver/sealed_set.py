"""The sealed test set of a study: its digest is stored when the study begins, and compared at every opening."""

from __future__ import annotations

from tuner.data.cache import load_records
from tuner.data.data_checks import count_shared
from tuner.data.dataset import ImageDataset, Report
from tuner.data.sealed import SealedPart, open_sealed
from tuner.errors import StudyError
from tuner.search.record import StudyRecord


def fix_test_set(record: StudyRecord, part: SealedPart) -> None:
    """Store the test part of a new study, or compare it with the one that the study has stored.

    Raises StudyError if the study has another one.
    """
    refuse_other_test_set(record, part)
    if record.sealed is None:
        record.save_sealed(part.digest, part.num_images)


def refuse_other_test_set(record: StudyRecord, part: SealedPart) -> None:
    """Raise StudyError if the study has stored a test part and this is another one."""
    stored = record.sealed
    if stored is not None and stored["digest"] != part.digest:
        raise StudyError(
            f"the test images of {part.spec.dataset} are not those that study {record.name!r} fixed when it began: "
            "put the old ones back, or start another study with --study NAME"
        )


def open_test_set(record: StudyRecord, part: SealedPart, *, report: Report | None = None) -> ImageDataset:
    """Open the test part of a study. Raises StudyError if it is another one, and DataError if it is damaged."""
    refuse_other_test_set(record, part)
    return open_sealed(part, report=report)


def count_shared_images(test_set: ImageDataset, development: ImageDataset) -> int:
    """Count the images of an open test set that have exactly the same pixels as an image of a development part."""
    return count_shared(load_records(development.folder), load_records(test_set.folder))
