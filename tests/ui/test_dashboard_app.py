"""The dashboard as a WSGI application, asked without a network, and as a server of many connections."""

from __future__ import annotations

import http.client
import io
import json
import socket
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from tuner.search.storage import open_storage
from tuner.ui.allowed_hosts import is_loopback
from tuner.ui.dashboard import HOST, ArtifactFolder, _Quiet, address, dashboard_app, serve_dashboard


def ask(app: Any, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """Status and body of an answer."""
    content = json.dumps(body).encode()
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_ACCEPT_ENCODING": ""}
    environ |= {
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(content)),
        "wsgi.input": io.BytesIO(content),
    }
    setup_testing_defaults(environ)
    statuses: list[str] = []

    def start_response(status: str, headers: Iterable[tuple[str, str]], *_: object) -> None:
        statuses.append(status)

    parts = app(environ, start_response)
    try:
        answer = b"".join(parts)
    finally:
        if hasattr(parts, "close"):  # as a server does, by PEP 3333
            parts.close()
    return int(statuses[0].split()[0]), answer


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    storage = open_storage(f"sqlite:///{tmp_path / 'tuner.db'}")
    study = optuna.create_study(study_name="a", storage=storage)
    study.enqueue_trial({"x": 0.5})
    study.ask()
    return study


CHANGES = [
    ("POST", "/api/studies", {"study_name": "b", "directions": ["minimize"]}),
    ("POST", "/api/studies/1/rename", {"study_name": "b"}),
    ("DELETE", "/api/studies/1", {}),
    ("PUT", "/api/studies/1/note", {"version": 1, "body": "x"}),
    ("PUT", "/api/studies/1/1/note", {"version": 1, "body": "x"}),
    ("POST", "/api/trials/1/tell", {"state": "Complete", "values": [1.0]}),
    ("POST", "/api/trials/1/user-attrs", {"user_attrs": {"a": 1}}),
    ("POST", "/api/artifacts/1", {"file": "data:text/plain;base64,eA==", "filename": "x.txt"}),
    ("POST", "/api/artifacts/1/1", {"file": "data:text/plain;base64,eA==", "filename": "x.txt"}),
    ("DELETE", "/api/artifacts/1/1/aa", {}),
    ("PATCH", "/api/studies/1", {}),
    ("delete", "/api/studies/1", {}),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_a_read_only_dashboard_refuses_every_change_in_a_sentence_and_changes_nothing(
    study: optuna.Study, tmp_path: Path, method: str, path: str, body: object
) -> None:
    storage = study._storage
    before = (storage.get_all_studies(), storage.get_all_trials(1), storage.get_study_system_attrs(1))
    app = dashboard_app(storage, artifacts=tmp_path / "artifacts", read_only=True)
    status, answer = ask(app, method, path, body)
    assert status == 403
    assert "read-only" in json.loads(answer)["reason"]
    assert (storage.get_all_studies(), storage.get_all_trials(1), storage.get_study_system_attrs(1)) == before
    assert not (tmp_path / "artifacts").exists()


def test_a_read_only_dashboard_shows_studies_and_trials(study: optuna.Study, tmp_path: Path) -> None:
    app = dashboard_app(study._storage, artifacts=tmp_path, read_only=True)
    status, answer = ask(app, "GET", "/api/studies")
    assert (status, json.loads(answer)["study_summaries"][0]["study_name"]) == (200, "a")
    status, answer = ask(app, "GET", "/api/studies/1")
    assert (status, len(json.loads(answer)["trials"])) == (200, 1)


def test_without_read_only_it_changes_what_it_is_asked_to(study: optuna.Study, tmp_path: Path) -> None:
    app = dashboard_app(study._storage, artifacts=tmp_path / "artifacts", read_only=False)
    assert ask(app, "PUT", "/api/studies/1/note", {"version": 1, "body": "x"})[0] == 204
    status, answer = ask(
        app, "POST", "/api/artifacts/1/1", {"file": "data:text/plain;base64,eA==", "filename": "x.txt"}
    )
    assert status == 201
    identifier = json.loads(answer)["artifact_id"]
    assert ask(app, "GET", f"/artifacts/1/1/{identifier}") == (200, b"x")
    (tmp_path / "artifacts" / identifier).unlink()
    status, answer = ask(app, "GET", f"/artifacts/1/1/{identifier}")
    assert (status, answer) == (404, b"this file is gone")
    assert ask(app, "DELETE", "/api/studies/1", {})[0] == 204
    assert study._storage.get_all_studies() == []


def test_an_artifact_is_never_looked_for_outside_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    folder = tmp_path / "artifacts"
    folder.mkdir()
    store = ArtifactFolder(folder)
    store.remove("../secret")
    store.write("../other", io.BytesIO(b"x"))
    assert (tmp_path / "secret").exists()
    assert [path.name for path in folder.iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.7", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_what_counts_as_this_machine_alone(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


def test_the_address_to_type_is_one_that_a_browser_takes() -> None:
    assert address("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert address("::1", 81) == "http://[::1]:81"
    assert address("192.168.0.7", 82) == "http://192.168.0.7:82"


@pytest.fixture
def served(study: optuna.Study, tmp_path: Path) -> int:
    """The port of a dashboard that only shows."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    ready = threading.Event()
    arguments = {"artifacts": tmp_path, "port": port, "read_only": True, "on_ready": ready.set}
    threading.Thread(target=serve_dashboard, args=(study._storage,), kwargs=arguments, daemon=True).start()
    assert ready.wait(30)
    return port


def test_connections_that_say_nothing_keep_nobody_from_an_answer(served: int) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            idle = stack.enter_context(socket.create_connection((HOST, served)))
            idle.sendall(b"GET /api")  # and no more
        connection = stack.enter_context(closing(http.client.HTTPConnection(HOST, served, timeout=20)))
        connection.request("GET", "/api/studies")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["study_summaries"][0]["study_name"]) == (200, "a")
        refused = stack.enter_context(closing(http.client.HTTPConnection(HOST, served, timeout=20)))
        refused.request("DELETE", "/api/studies/1")
        assert refused.getresponse().status == 403


def test_a_connection_that_says_nothing_is_closed_without_a_word(
    served: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(_Quiet, "timeout", 0.05)
    with socket.create_connection((HOST, served), timeout=20) as idle:
        assert idle.recv(1) == b""
    assert capfd.readouterr().err == ""


def test_many_ask_at_once_and_each_is_answered_from_the_same_storage(served: int) -> None:
    def trials(_: int) -> list[float]:
        with closing(http.client.HTTPConnection(HOST, served, timeout=60)) as connection:
            connection.request("GET", "/api/studies/1")
            return [trial["number"] for trial in json.loads(connection.getresponse().read())["trials"]]

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(trials, range(40))) == [[0]] * 40
