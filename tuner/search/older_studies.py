"""Studies from before settings had a format number: they are listed, shown and reported, but not trained further."""

from __future__ import annotations

from tuner.errors import StudyError
from tuner.search.record import StudyRecord


def is_of_older_version(record: StudyRecord) -> bool:
    """Whether a study was made by version 0.1, which computed other fingerprints and digests."""
    return record.settings.format == 0


def refuse_older_version(
    record: StudyRecord, *, instead: str = "start another study with `tuner run --study NAME`"
) -> None:
    """Raise StudyError for a study of such a version, which says what to do instead; for use before images are read."""
    if is_of_older_version(record):
        raise StudyError(
            f"study {record.name!r} was made by an earlier version of tuner, whose fingerprints of networks and "
            f"digests of images differ from those of this version: {instead}, or use the version that made it, "
            "such as 0.1.0"
        )
