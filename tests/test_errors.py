import errno
import os
from pathlib import Path

import pytest

from tuner.errors import StudyError, reason_of
from tuner.search.locks import hold


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "file"), "No space left on device"),
        (OSError("Cannot call rmtree on a symbolic link"), "Cannot call rmtree on a symbolic link"),
        (OSError("two\nlines"), "two lines"),
        (OSError(errno.EIO, ""), f"[Errno {errno.EIO}]"),
        (PermissionError(), "PermissionError"),
    ],
    ids=repr,
)
def test_what_the_system_refuses_always_has_words(error: OSError, words: str) -> None:
    assert reason_of(error) == words


def test_no_message_shows_the_missing_words_of_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("this file system is full of errors")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with (
        pytest.raises(StudyError, match=r"cannot be written: this file system is full of errors$"),
        hold(tmp_path, "a"),
    ):
        pass
