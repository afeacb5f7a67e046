"""Users without a home folder, and systems without a folder for temporary files."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from tests.system.conftest import ROOT
from tuner.data.dataset import DataSpec
from tuner.data.development_part import load_development
from tuner.errors import DataError, DeviceError
from tuner.search.settings import data_source
from tuner.training.engine import Engine
from tuner.training.engine_choices import Measurement, Runners
from tuner.training.measurement_cache import keep_measurement, load_measurement, machine_cache_dir

STRANGER = 12_345
"""A user id without an entry in the list of users."""
RUN = ("-m", "tuner", "run", "--device", "cpu", "--workers", "1", "--trials", "2", "--epochs", "1", "--no-confirm")


def run_as_stranger(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Python as a user who is in no list of users and has no home."""
    command = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups", sys.executable, *arguments]
    nowhere = ("HOME", "USER", "LOGNAME", "TUNER_CACHE_DIR", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in nowhere}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture
def folder_of_a_stranger() -> Iterator[Path]:
    """A folder in which a user without a home may write; skipped where this user cannot become another."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become another user, with setpriv")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chown(folder, STRANGER, STRANGER)
        if run_as_stranger("-c", "import torch, tuner", cwd=folder).returncode != 0:
            pytest.skip("another user cannot read this installation")
        yield folder


def test_a_user_without_a_home_searches_without_a_cache_and_reads_so_in_one_line(folder_of_a_stranger: Path) -> None:
    done = run_as_stranger(*RUN, cwd=folder_of_a_stranger)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "TUNER_CACHE_DIR" in line]
    assert line.startswith("this user has no home folder for a cache: this machine will be measured again next time")


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process as one of a user without a home."""

    def unknown(_: object) -> NoReturn:
        raise KeyError("no such user")

    for name in ("HOME", "USERPROFILE", "TUNER_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("nobody")
def test_without_a_home_there_is_no_cache_and_a_measurement_cannot_be_kept() -> None:
    assert machine_cache_dir() is None
    engine = Engine()
    measurement = Measurement(engine, (), Runners(1, 1, "one"), "kind")
    assert load_measurement(torch.device("cpu"), (1, 8, 8), num_threads=1, cache_dir=None) is None
    with pytest.raises(DeviceError, match=r"no home folder .* measured again next time; set TUNER_CACHE_DIR"):
        keep_measurement(measurement, (1, 8, 8), cache_dir=None)


@pytest.mark.usefixtures("nobody")
def test_a_cache_that_is_named_needs_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNER_CACHE_DIR", str(tmp_path))
    assert machine_cache_dir() == tmp_path


@pytest.mark.usefixtures("nobody")
def test_a_home_that_is_no_absolute_path_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "here")
    assert machine_cache_dir() is None


@pytest.mark.parametrize("dataset", ["~/images", "~", "~no-such-user/images"])
@pytest.mark.usefixtures("nobody")
def test_a_path_in_an_unknown_home_is_refused_in_one_line(tmp_path: Path, dataset: str) -> None:
    spec = DataSpec(dataset, tmp_path, tmp_path)
    for use in (load_development, data_source):
        with pytest.raises(DataError, match=r"home folder of ~.* is not known") as caught:
            use(spec)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_without_a_folder_for_temporary_files_a_command_says_so_in_one_line(tmp_path: Path, workers: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import tempfile\ntempfile._candidate_tempdir_list = lambda: ['/nowhere']\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    environment["TUNER_CACHE_DIR"] = str(tmp_path / "empty")
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)  # with which torch asks for no such folder
    command = [sys.executable, "-m", "tuner", "run", "--device", "cpu", "--workers", workers, "--trials", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("tuner: error: ")
    assert "TMPDIR" in done.stderr
    assert len(done.stderr.splitlines()) == 1
