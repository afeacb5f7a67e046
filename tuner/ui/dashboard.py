"""Serve optuna-dashboard for a storage and its artifacts, on the loopback address by default."""

from __future__ import annotations

import json
import shutil
import socket
import webbrowser
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, BinaryIO
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from bottle import HTTPResponse
from optuna.storages import BaseStorage
from optuna_dashboard import wsgi

from tuner.errors import StudyError
from tuner.ui.allowed_hosts import READING, App, refuse_foreign_sites

HOST = "127.0.0.1"
PATIENCE = 30.0
"""Seconds without traffic after which a connection is closed."""
REFUSAL = "this dashboard is read-only: it was started with --read-only, and changes nothing"


class ArtifactFolder:
    """Optuna's artifact store in a folder. Opening a missing artifact is an error, removing one is not."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open an artifact for reading; a request for a missing one is answered with 404."""
        try:
            return (self._folder / Path(artifact_id).name).open("rb")
        except OSError as error:
            raise HTTPResponse("this file is gone", status=404) from error

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store an artifact that a user uploads."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / Path(artifact_id).name).open("wb") as file:
            shutil.copyfileobj(content_body, file)

    def remove(self, artifact_id: str) -> None:
        """Remove an artifact if it exists."""
        (self._folder / Path(artifact_id).name).unlink(missing_ok=True)


class _Quiet(WSGIRequestHandler):
    timeout = PATIENCE

    def handle(self) -> None:
        """Answer a request, if there is one: browsers open connections that they never use."""
        try:
            super().handle()
        except TimeoutError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Do not log individual requests."""


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, so that an idle or slow one delays no other; Optuna's storages allow this."""

    daemon_threads = True


class _ServerOnSix(_Server):
    address_family = socket.AF_INET6


def serve_dashboard(
    storage: BaseStorage,
    *,
    artifacts: Path,
    port: int,
    host: str = HOST,
    allow_hosts: Collection[str] = (),
    read_only: bool = False,
    open_browser: bool = False,
    path: str = "",
    on_ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve the dashboard until interrupted. Raises StudyError if the port is in use or the address is not local.

    allow_hosts: names that the server answers to besides loopback and `host`. on_ready: called when the server is
    reachable.
    """
    app = refuse_foreign_sites(
        dashboard_app(storage, artifacts=artifacts, read_only=read_only), host=host, named=allow_hosts
    )
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if not _is_everywhere(host) and probe.connect_ex((host, port)) == 0:
            raise StudyError(f"--port {port} is in use; give another one")
    server_class = _ServerOnSix if ":" in host else _Server
    try:
        server = make_server(host, port, app, server_class=server_class, handler_class=_Quiet)
    except OSError as error:
        raise StudyError(f"--host {host} --port {port}: cannot be served: {error.strerror or error}") from error
    with server:
        on_ready()
        if open_browser:
            webbrowser.open(address(host, port) + path)
        server.serve_forever()


def dashboard_app(storage: BaseStorage, *, artifacts: Path, read_only: bool) -> App:
    """The dashboard as a WSGI application."""
    app: App = wsgi(storage, artifact_store=ArtifactFolder(artifacts))
    return refuse_changes(app) if read_only else app


def refuse_changes(app: App) -> App:
    """Answer every request that could change something with 403 and a sentence; others reach `app`."""

    def reading_only(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in READING:
            return app(environ, start_response)
        body = json.dumps({"reason": REFUSAL}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("403 Forbidden", headers)
        return [body]

    return reading_only


def address(host: str, port: int) -> str:
    """The URL for a browser on this machine."""
    if _is_everywhere(host):
        host = HOST
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_everywhere(host: str) -> bool:
    return host in ("0.0.0.0", "::", "")
