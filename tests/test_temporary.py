"""Temporary files: a living process keeps its own, and what a process that is gone has left is removed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tuner import temporary
from tuner.temporary import KEPT_SECONDS, in_use, is_link, remove, remove_leftovers, temporary_beside

OWNER = """
import sys
from pathlib import Path
from tuner.temporary import temporary_beside
folder, file = (temporary_beside(Path(sys.argv[1]) / name) for name in ("best", "trial-00001.pt"))
folder.mkdir()
(folder / "best.pt").write_text("half")
file.write_text("half")
print(folder.name, file.name, flush=True)
sys.stdin.read()
"""


def test_what_a_living_process_owns_stays_and_goes_once_it_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        names = set(owner.stdout.readline().split())
        assert len(names) == 2
        remove_leftovers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == names == {path.name for path in in_use(tmp_path)}
        owner.kill()
        # Not waited for yet: a process that has ended is gone, though its number is not free.
        owner.stdout.read()
        remove_leftovers(tmp_path, "other.pt")
        assert {path.name for path in tmp_path.iterdir()} == names
        deadline = time.monotonic() + 60
        while in_use(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.01)
        remove_leftovers(tmp_path)
        assert list(tmp_path.iterdir()) == []
        owner.wait()


def test_a_process_with_the_number_of_one_that_is_gone_is_not_taken_for_it(tmp_path: Path) -> None:
    mine = temporary_beside(tmp_path / "a.pt")
    machine, pid, start, rest = mine.name.split(".")[-2].split("-")
    assert int(pid) == os.getpid()
    theirs = mine.with_name(f".a.pt.{machine}-{pid}-{int(start) - 1}-{rest}.tmp")
    for path in (mine, theirs):
        path.write_text("half")
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [mine]


@pytest.mark.parametrize("name", [".a.pt.00000000-1-1-00000000.tmp", ".a.pt.4711.tmp", ".best.abc_1234.tmp"])
def test_an_owner_that_cannot_be_asked_for_is_given_a_day_since_the_last_change(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "best.pt").write_text("half")
    long_ago = time.time() - KEPT_SECONDS - 60
    os.utime(folder, (long_ago, long_ago))
    remove_leftovers(tmp_path)
    assert in_use(tmp_path) == [folder]
    os.utime(folder / "best.pt", (long_ago, long_ago))
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_other_names_are_nobodys_and_stay(tmp_path: Path) -> None:
    names = {".hidden", "a.tmp", ".a.tmp", ".study", ".a.pt.x.tmp", "trial-00000.pt"}
    for name in names:
        (tmp_path / name).write_text("mine")
        os.utime(tmp_path / name, (0, 0))
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == names


def test_a_name_of_any_length_leaves_room_for_its_owner(tmp_path: Path) -> None:
    target = tmp_path / ("ä" * 120 + ".pt")
    temporary_beside(target).write_text("half")
    assert len(in_use(tmp_path)) == 1
    assert temporary_beside(target) != temporary_beside(target)


def test_a_link_is_removed_and_what_it_leads_to_is_not(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    link, broken = tmp_path / "link", tmp_path / "broken"
    link.symlink_to(tmp_path / "folder", target_is_directory=True)
    broken.symlink_to(tmp_path / "nothing")
    assert is_link(link)
    for path in (link, broken, tmp_path / "not there"):
        remove(path)
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "mine"]


def test_a_process_of_another_user_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system does not let one user ask for another's processes."""

    def refuse(pid: int) -> None:
        raise temporary.psutil.AccessDenied(pid)

    temporary_beside(tmp_path / "a").write_text("half")
    monkeypatch.setattr(temporary.psutil, "Process", refuse)
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
