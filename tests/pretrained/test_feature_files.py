"""Files of features: damage is found, a full disk is an error, and nothing is left of what is deleted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tuner.pretrained import feature_files
from tuner.pretrained.feature_files import delete_file, is_sound, lock_of, make_room, write_features

SHAPE = (300, 7, 5)
VALUES = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


def batches() -> Iterator[NDArray[np.float32]]:
    yield VALUES[:200]
    yield VALUES[200:].copy(order="F")  # as those of a network whose feature maps are in the layout channels_last


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file.npy"
    write_features(path, SHAPE, batches())
    return path


def test_a_file_is_an_array_of_numpy(path: Path) -> None:
    assert np.array_equal(np.load(path), VALUES)
    assert np.load(path, mmap_mode="r").dtype == np.float32
    assert is_sound(path, SHAPE)
    assert not is_sound(path, SHAPE[:2])
    assert sorted(one.name for one in path.parent.iterdir()) == ["file.crc32", "file.npy"]


@pytest.mark.parametrize("at", [0, 30, 128, 20_000, -1])
def test_a_single_wrong_bit_anywhere_in_a_file_is_found(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert not is_sound(path, SHAPE)


@pytest.mark.parametrize("content", [None, b"", b"0000000", b"\xff"])
def test_a_file_without_its_checksum_is_not_used(path: Path, content: bytes | None) -> None:
    checksum = path.with_suffix(".crc32")
    if content is None:
        checksum.unlink()
    else:
        checksum.write_bytes(content)
    assert not is_sound(path, SHAPE)


def test_space_is_reserved_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()

    def watching() -> Iterator[NDArray[np.float32]]:
        (file,) = tmp_path.iterdir()
        sizes.append(file.stat().st_blocks * 512)
        yield from batches()

    write_features(tmp_path / "a.npy", SHAPE, watching())
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    (tmp_path / "a.npy").unlink()
    (tmp_path / "a.crc32").unlink()
    write_features(tmp_path / "a.npy", SHAPE, watching())
    assert min(sizes) >= VALUES.nbytes
    assert is_sound(tmp_path / "a.npy", SHAPE)
    assert np.array_equal(np.load(tmp_path / "a.npy"), VALUES)


WRITE = """
import os, sys
from pathlib import Path
import numpy as np
from tuner.pretrained.feature_files import write_features

def batches():
    for _ in range(100):
        print("computed")
        yield np.zeros((1, 1000), np.float32)

if sys.argv[2] == "zeros":
    del os.posix_fallocate
folder = Path(sys.argv[1])
try:
    write_features(folder / "a.npy", (100, 1000), batches())
except OSError as error:
    print(error.strerror, list(folder.iterdir()))
"""
COMPUTE = """
import sys
from pathlib import Path
import torch
from torch import nn
from tuner.data.dataset import DataSpec
from tuner.data.development_part import load_development
from tuner.errors import DataError
from tuner.pretrained.features import FeatureKey, cached_features

full, own = Path(sys.argv[1]), Path(sys.argv[2])
digits = load_development(DataSpec("digits", own / "data", own / "cache"))
try:
    cached_features(
        FeatureKey("pixels", "backbone", "weights", 3), digits, nn.Sequential(nn.Flatten()), mean=(0.5,), std=(0.25,),
        device=torch.device("cpu"), cache_dir=full,
    )
except DataError as error:
    print(error)
"""


def run_on_small_disk(tmp_path: Path, code: str, argument: str) -> str:
    """What a script prints whose first argument is a disk of 128 KiB, which is mounted for its process only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    shell = 'mount -t tmpfs -o size=128k tmpfs "$1" && exec "$0" -c "$3" "$1" "$2"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, sys.executable]
    done = subprocess.run(
        [*command, str(disk), argument, code], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def can_mount() -> bool:
    """Whether this system lets a process mount something for itself."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


needs_mount = pytest.mark.skipif(not can_mount(), reason="a full disk needs the right to mount one")


@needs_mount
@pytest.mark.parametrize("how", ["fallocate", "zeros"])
def test_a_full_disk_is_an_error_before_anything_is_computed_and_nothing_is_left(tmp_path: Path, how: str) -> None:
    assert run_on_small_disk(tmp_path, WRITE, how) == "No space left on device []\n"


@needs_mount
@pytest.mark.slow
def test_features_for_which_the_disk_has_no_room_are_an_error_in_one_line(tmp_path: Path) -> None:
    (line,) = run_on_small_disk(tmp_path, COMPUTE, str(tmp_path)).splitlines()
    assert line.endswith("features: the features of backbone cannot be written: No space left on device")


def test_a_file_system_that_reserves_nothing_is_written_to_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(feature_files.errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    write_features(tmp_path / "a.npy", SHAPE, batches())
    assert is_sound(tmp_path / "a.npy", SHAPE)


def test_a_file_is_deleted_with_its_checksum_and_its_lock(path: Path) -> None:
    with lock_of(path):
        assert not delete_file(path, waits=False)  # another process is just opening it
    assert is_sound(path, SHAPE)
    assert delete_file(path, waits=False)
    assert list(path.parent.iterdir()) == []


def test_features_that_a_process_is_opening_are_not_deleted_to_make_room(path: Path, tmp_path: Path) -> None:
    with lock_of(path):
        make_room(tmp_path / "new.npy", 1_000, limit_bytes=1_000)
        assert path.exists()
    make_room(tmp_path / "new.npy", 1_000, limit_bytes=1_000)
    assert not path.exists()


def test_unfinished_files_of_ended_processes_are_removed(tmp_path: Path) -> None:
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from tuner.temporary import temporary_beside; "
            "temporary_beside(Path(sys.argv[1])).touch()",
            str(tmp_path / "a.npy"),
        ],
        check=True,
    )
    assert process.returncode == 0
    assert len(list(tmp_path.iterdir())) == 1
    make_room(tmp_path / "new.npy", 1_000, limit_bytes=10_000)
    assert list(tmp_path.iterdir()) == []
