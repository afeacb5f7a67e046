"""What the system tests share: the real command line, one finished study on digits, a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.cli import main

Tuner = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).resolve().parents[2]


def run_tuner(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run `python -m tuner` in a process of its own."""
    command = [sys.executable, "-m", "tuner", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture
def tuner_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Tuner:
    """`python -m tuner` in this process, which has imported torch already: seconds faster than `run_tuner`."""

    def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = ["tuner", *map(str, arguments)]
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.setattr("tuner.cli.options._notes", [])  # those of the commands before it
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(command, ended.value.code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study of eight trials on digits, run by the real command with two workers."""
    folder = tmp_path_factory.mktemp("workplace")
    done = run_tuner("run", "--trials", "8", "--epochs", "8", "--workers", "2", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "run.log").write_text(done.stdout, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """A Chromium to look at pages with. Where there is none, only a continuous-integration run fails for it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        message = "no Chromium here to look at pages with"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found
