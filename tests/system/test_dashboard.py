"""optuna-dashboard on a finished and on a running study, looked at in a real browser."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def process(*arguments: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A tuner command in the background, ended with the block."""
    command = [sys.executable, "-m", "tuner", *arguments]
    running = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield running
    finally:
        running.terminate()
        running.communicate(timeout=30)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(url: str) -> str:
    """The body of a page, as soon as it is served."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                body: str = response.read().decode()
                return body
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def rendered(chromium: str, url: str, profile: Path) -> str:
    """The page's text once its scripts have run."""
    flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --virtual-time-budget=20000 --dump-dom"
    command = [chromium, *flags.split(), f"--user-data-dir={profile}", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_the_dashboard_shows_a_finished_study(workplace: Path, chromium: str, tmp_path: Path) -> None:
    port = free_port()
    with process("dashboard", "digits-cnn", "--port", str(port), cwd=workplace):
        wait_for(f"http://127.0.0.1:{port}/api/studies")
        page = rendered(chromium, f"http://127.0.0.1:{port}/dashboard/studies/1/trials", tmp_path)
    assert "digits-cnn" in page
    assert "Trial 0" in page
    assert "architecture" in page


def test_the_dashboard_shows_a_study_that_is_running(chromium: str, tmp_path: Path) -> None:
    port = free_port()
    with process("run", "--trials", "500", "--epochs", "30", "--workers", "1", cwd=tmp_path):
        while not (tmp_path / "studies" / "digits-cnn" / "trial-00000.pt").exists():
            time.sleep(0.2)
        with process("dashboard", "--port", str(port), cwd=tmp_path):
            wait_for(f"http://127.0.0.1:{port}/api/studies")
            page = rendered(chromium, f"http://127.0.0.1:{port}/dashboard/studies/1/trials", tmp_path / "profile")
    assert "digits-cnn" in page
    assert "Running" in page
