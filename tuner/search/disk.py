"""What a study takes on the disk, and how it is deleted: its trials, its folder, its artifacts."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from tuner.errors import StudyError
from tuner.search.locks import hold, hold_record, record_lock
from tuner.search.record import StudyRecord
from tuner.search.shown import artifacts_folder

LOCK = ".lock"


def disk_use(record: StudyRecord, *, studies: Path) -> int:
    """Bytes of a study's files: checkpoints and artifacts, a file of two names once. The database is not in it."""
    sizes = {}
    for path in _files(record, studies):
        status = path.stat()
        sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


def delete_study(record: StudyRecord, *, studies: Path) -> None:
    """Delete a study for good. Raises StudyError while it runs, and when its files cannot be deleted."""
    folder, url = studies / record.name, record.storage.url
    with hold_record(url, record.name), hold(folder, record.name):
        artifacts = _artifacts(record, studies)
        record.storage.delete_study(record.study_id)
        try:
            for path in artifacts:
                path.unlink(missing_ok=True)
            for path in folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != LOCK:
                    path.unlink()
        except OSError as error:
            raise StudyError(f"{error.filename}: cannot be deleted: {error.strerror}; delete it by hand") from error
    with suppress(OSError):  # another process may have begun a study of this name meanwhile; then it is its lock
        (folder / LOCK).unlink()
        folder.rmdir()
        lock = record_lock(url, record.name)
        if lock is not None:
            lock.unlink(missing_ok=True)


def in_words(num_bytes: int) -> str:
    """`1.4 MB`."""
    size = float(num_bytes)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{num_bytes} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} GB"


def _files(record: StudyRecord, studies: Path) -> list[Path]:
    own = [path for path in (studies / record.name).rglob("*") if path.is_file()]
    return own + [path for path in _artifacts(record, studies) if path.is_file()]


def _artifacts(record: StudyRecord, studies: Path) -> list[Path]:
    folder = artifacts_folder(studies / record.name)
    return [folder / Path(identifier).name for identifier in record.storage.artifact_ids(record.study_id)]
