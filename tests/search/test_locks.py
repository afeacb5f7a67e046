import subprocess
import sys
from pathlib import Path

import pytest

from tuner.errors import StudyError
from tuner.search.locks import hold, hold_record
from tuner.search.sqlite import sqlite_url


def test_a_study_is_held_by_one_at_a_time_and_free_again_afterwards(tmp_path: Path) -> None:
    with hold(tmp_path / "a", "a"):
        with pytest.raises(StudyError, match="study 'a' is being run by another process"), hold(tmp_path / "a", "a"):
            pass
        with hold(tmp_path / "b", "b"):
            pass
    with hold(tmp_path / "a", "a"):
        pass


HOLDER = """
import sys
from pathlib import Path
from tuner.search.locks import hold
with hold(Path(sys.argv[1]), "a"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_process_that_is_killed_lets_go_of_its_study(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StudyError), hold(tmp_path, "a"):
            pass
        holder.kill()
        holder.wait()
        with hold(tmp_path, "a"):
            pass


def test_the_record_of_a_study_is_held_whatever_folder_its_checkpoints_go_to(tmp_path: Path) -> None:
    url, other = sqlite_url(tmp_path / "tuner.db"), sqlite_url(tmp_path / "other.db")
    with hold_record(url, "a"), hold(tmp_path / "one" / "a", "a"):
        refused = pytest.raises(StudyError, match="study 'a' is being run by another process")
        with refused, hold_record(f"sqlite:///file:{tmp_path}/tuner.db?uri=true", "a"):
            pass
        for free, name in ((url, "b"), (other, "a")):
            with hold_record(free, name):
                pass
    with hold_record(url, "a"):
        pass


def test_the_record_of_a_database_server_is_left_to_the_lock_of_the_folder() -> None:
    with hold_record("postgresql://host/name", "a"), hold_record("postgresql://host/name", "a"):
        pass


def test_a_record_that_cannot_be_held_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    held = hold_record(sqlite_url(tmp_path / "file" / "tuner.db"), "a")
    with pytest.raises(StudyError, match="file: cannot be written") as caught, held:
        pass
    assert "\n" not in str(caught.value)
