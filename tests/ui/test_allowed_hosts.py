"""Which requests a running dashboard answers: to which hosts, and from pages of which sites."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import optuna
import pytest

from tuner.errors import OptionError
from tuner.search.storage import open_storage
from tuner.ui.allowed_hosts import check_host_name
from tuner.ui.dashboard import serve_dashboard

Serve = Callable[..., int]


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    return optuna.create_study(study_name="a", storage=open_storage(f"sqlite:///{tmp_path / 'tuner.db'}"))


@pytest.fixture
def serve(study: optuna.Study, tmp_path: Path) -> Serve:
    """Starts a dashboard and gives its port."""

    def start(**arguments: object) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        ready = threading.Event()
        arguments = {"artifacts": tmp_path, "port": port, "on_ready": ready.set, **arguments}
        threading.Thread(target=serve_dashboard, args=(study._storage,), kwargs=arguments, daemon=True).start()
        assert ready.wait(30)
        return port

    return start


def ask(port: int, method: str = "GET", **headers: str) -> tuple[int, str]:
    """Status and body of an answer; a method other than GET deletes the study."""
    path = "/api/studies" if method == "GET" else "/api/studies/1"
    headers = {name: value.replace("PORT", str(port)) for name, value in headers.items()}
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


FOREIGN = [
    "rebound.example",
    "rebound.example:PORT",
    "localhost.rebound.example:PORT",
    "127.0.0.1.rebound.example:PORT",
    "192.168.0.7:PORT",
    "127.0.0.1:PORT@rebound.example",
    "rebound.example/127.0.0.1",
    "rebound.example#127.0.0.1",
    "[::1",
    "",
]


@pytest.mark.parametrize("host", FOREIGN)
def test_a_request_to_a_foreign_host_is_refused_in_one_plain_line(serve: Serve, study: optuna.Study, host: str) -> None:
    port = serve()
    for method in ("GET", "DELETE"):
        status, body = ask(port, method, Host=host)
        assert status == 403
        assert body.endswith("\n")
        assert len(body.splitlines()) == 1
        assert "--allow-host" in body
    assert [one.study_name for one in study._storage.get_all_studies()] == ["a"]


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:PORT", "localhost.:9", "127.0.0.1:PORT", "127.3.2.1", "[::1]:8"]
)
def test_a_request_to_loopback_is_answered(serve: Serve, host: str) -> None:
    assert ask(serve(), Host=host)[0] == 200


@pytest.mark.parametrize(
    "origin",
    [
        "http://rebound.example",
        "https://127.0.0.1.rebound.example:PORT",
        "http://127.0.0.1:PORT.rebound.example",
        "http://localhost:1",  # another server of this machine
        "http://127.0.0.1",
        "file://",
        "nonsense",
    ],
)
def test_a_request_from_a_page_of_another_site_is_refused(serve: Serve, study: optuna.Study, origin: str) -> None:
    port = serve()
    for method in ("GET", "DELETE"):
        status, body = ask(port, method, Origin=origin)
        assert (status, len(body.splitlines())) == (403, 1)
    assert [one.study_name for one in study._storage.get_all_studies()] == ["a"]


def test_a_page_without_an_origin_of_its_own_may_read_but_change_nothing(serve: Serve, study: optuna.Study) -> None:
    port = serve()
    assert ask(port, "DELETE", Origin="null")[0] == 403
    assert len(study._storage.get_all_studies()) == 1
    assert ask(port, Origin="null")[0] == 200


@pytest.mark.parametrize("origin", ["http://127.0.0.1:PORT", "http://localhost:PORT"])
def test_the_dashboards_own_page_changes_studies(serve: Serve, study: optuna.Study, origin: str) -> None:
    assert ask(serve(), "DELETE", Origin=origin)[0] == 204
    assert study._storage.get_all_studies() == []


def test_a_named_host_is_answered_whatever_the_port_of_its_proxy(serve: Serve) -> None:
    port = serve(allow_hosts=["tuner.example", "other.example"])
    assert ask(port, Host="tuner.example:8443", Origin="https://tuner.example:8443")[0] == 200
    assert ask(port, Host="Other.Example", Origin="https://other.example")[0] == 200
    assert ask(port, Origin="https://tuner.example")[0] == 200  # a proxy that asks for 127.0.0.1
    assert ask(port, Host="rebound.example")[0] == 403


@pytest.mark.parametrize("read_only", [False, True])
def test_a_dashboard_for_other_machines_answers_to_addresses_and_its_own_name_but_to_no_other(
    serve: Serve, read_only: bool
) -> None:
    port = serve(host="0.0.0.0", read_only=read_only)
    for host in ("192.168.0.7:PORT", "[fe80::1]:PORT", "localhost:PORT", f"{socket.gethostname()}:PORT"):
        assert ask(port, Host=host, Origin=f"http://{host}")[0] == 200
    assert ask(port, Host="rebound.example:PORT")[0] == 403
    assert ask(port, Host="192.168.0.7:PORT", Origin="http://rebound.example")[0] == 403


def test_a_refused_head_request_has_no_body(serve: Serve) -> None:
    assert ask(serve(), "HEAD", Host="rebound.example") == (403, "")


@pytest.mark.parametrize(
    ("text", "name"),
    [("Tuner.Example", "tuner.example"), ("[::1]", "::1"), ("bücher.example", "xn--bcher-kva.example"), ("a.", "a")],
)
def test_a_host_is_allowed_by_its_name_as_requests_have_it(text: str, name: str) -> None:
    assert check_host_name(text) == name


@pytest.mark.parametrize("text", ["https://a", "a:80", "*", "a b", "a/b", ".a", "."])
def test_what_is_no_host_name_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--allow-host"):
        check_host_name(text)
