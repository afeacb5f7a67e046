"""optuna-dashboard on a finished and on a running study, looked at in a real browser."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.system.browser import browser
from tests.system.conftest import Tuner, run_tuner
from tuner.search.study_files import artifacts_folder


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


SHOWN = "document.body.innerText"
PICTURES = "[...document.querySelectorAll('img[src^=\"/artifacts/\"]')]"
"""The artifacts of a trial that are pictures."""


def from_elsewhere(requests: list[str], port: int) -> list[str]:
    """The URLs that are not the dashboard's own."""
    own = (f"http://127.0.0.1:{port}/", "data:", "blob:")
    return [url for url in requests if not url.startswith(own)]


@pytest.mark.slow
def test_the_dashboard_shows_a_finished_study_with_its_notes_and_artifacts_and_refuses_changes(
    workplace: Path, chromium: str, tmp_path: Path
) -> None:
    shown = json.loads(run_tuner("show", "--json", cwd=workplace).stdout)
    best, port = shown["best"], free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        process("dashboard", "digits-auto", "--port", str(port), "--read-only", cwd=workplace),
        browser(chromium, tmp_path) as page,
    ):
        wait_for(f"{url}/api/studies")
        page.look_at(f"{url}/dashboard/studies/1/note")
        page.wait_until(f"{SHOWN}.includes('Confirmed: trial {shown['confirmed']['number']} has')")
        page.look_at(f"{url}/dashboard/studies/1/trials?numbers={best['number']}")
        page.wait_until(f"{SHOWN}.includes('trial-{best['number']:05}.pt')")
        page.wait_until(
            f"{PICTURES}.length === 2 && {PICTURES}.every(image => image.complete && image.naturalWidth > 0)"
        )
        text = page.value(SHOWN)
        for words in (f"{best['validation_accuracy']:.2%}", "parameters", "learning-curve.svg", "confusion-matrix.svg"):
            assert words in text
        assert page.complaints == []
        assert from_elsewhere(page.requests, port) == []
        details = json.loads(wait_for(f"{url}/api/studies/1"))
        (checkpoint,) = (
            artifact for artifact in details["best_trials"][0]["artifacts"] if artifact["filename"].endswith(".pt")
        )
        trial_id = details["best_trials"][0]["trial_id"]
        with urllib.request.urlopen(f"{url}/artifacts/1/{trial_id}/{checkpoint['artifact_id']}") as answer:
            assert answer.read() == (workplace / best["checkpoint"]).read_bytes()
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{url}/api/studies/1", method="DELETE"))
        assert refused.value.code == 403
        refused.value.close()
    assert json.loads(run_tuner("show", "--json", cwd=workplace).stdout) == shown


@pytest.mark.slow
def test_every_trial_of_a_study_says_in_the_dashboard_why_it_ended(workplace: Path) -> None:
    port = free_port()
    with process("dashboard", "--port", str(port), cwd=workplace):
        details = json.loads(wait_for(f"http://127.0.0.1:{port}/api/studies/1"))
    assert len(details["trials"]) == 8
    for trial in details["trials"]:
        attributes = {attribute["key"]: attribute["value"] for attribute in trial["user_attrs"]}
        assert f"**{attributes['outcome']}**" in trial["note"]["body"]
        assert attributes["reason"] in trial["note"]["body"]
        (beyond,) = trial["constraints"]
        assert beyond < 0


SLOW = """
[network]
num_blocks = 3

[block]
out_channels = 96
kernel_size = 5

[recipe]
batch_size = 32
learning_rate = { low = 1e-3, high = 1e-2, log = true }
"""
"""Networks that take seconds, so that the one that runs is among the first few that a page lists."""


@pytest.mark.slow
def test_the_dashboard_shows_a_study_that_is_running(chromium: str, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    (tmp_path / "slow.toml").write_text(SLOW, encoding="utf-8")
    arguments = ("--trials", "500", "--epochs", "3", "--workers", "1", "--space", "slow.toml", "--study", "digits-auto")
    with process("run", *arguments, cwd=tmp_path):
        deadline = time.monotonic() + 120
        while not list(artifacts_folder(tmp_path / "studies" / "digits-auto").glob("*")):
            assert time.monotonic() < deadline, "trial 0 never ended"
            time.sleep(0.2)
        with (
            process("dashboard", "--port", str(port), cwd=tmp_path),
            browser(chromium, tmp_path / "profile") as page,
        ):
            wait_for(f"{url}/api/studies")
            page.look_at(f"{url}/dashboard/studies/1/trials?numbers=0", width=390, height=844, phone=True)
            page.wait_until(f"{SHOWN}.includes('validation accuracy')")
            page.wait_until(f"{SHOWN}.includes('Running')")
            page.wait_until(f"{SHOWN}.includes('learning-curve.svg')")
            assert page.complaints == []
            page.look_at(f"{url}/dashboard/studies/1/note", dark=True)
            page.wait_until(f"{SHOWN}.includes('A search for 500 trials.')")
            assert "Not confirmed" in page.value(SHOWN)
            assert page.complaints == []
            assert from_elsewhere(page.requests, port) == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.invalid"])
def test_another_address_needs_read_only_or_a_flag_that_says_what_it_allows(
    workplace: Path, tuner_here: Tuner, host: str
) -> None:
    refused = tuner_here("dashboard", "--host", host, cwd=workplace)
    assert refused.returncode == 2
    assert "--read-only" in refused.stderr
    assert "--allow-anyone-to-delete" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--read-only", "--allow-anyone-to-delete"])
def test_with_one_of_them_it_serves_on_every_address(workplace: Path, flag: str) -> None:
    port = free_port()
    with process("dashboard", "--host", "0.0.0.0", "--port", str(port), flag, cwd=workplace):
        assert "digits-auto" in wait_for(f"http://127.0.0.1:{port}/api/studies")


@pytest.mark.slow
def test_an_address_that_is_not_this_machines_is_refused_in_one_line(workplace: Path) -> None:
    refused = run_tuner("dashboard", "--host", "192.0.2.1", "--read-only", cwd=workplace)
    assert refused.returncode == 2
    assert "192.0.2.1" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) <= 2  # the latest study is named first
