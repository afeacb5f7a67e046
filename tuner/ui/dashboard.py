"""optuna-dashboard on the study's storage, on this machine's loopback address."""

from __future__ import annotations

import socket
import webbrowser
from wsgiref.simple_server import WSGIRequestHandler, make_server

from optuna.storages import BaseStorage
from optuna_dashboard import wsgi

from tuner.errors import StudyError

HOST = "127.0.0.1"


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of single requests."""


def serve_dashboard(storage: BaseStorage, *, port: int, open_browser: bool = False, path: str = "") -> None:
    """Serve the dashboard until interrupted. Raises StudyError when the port is taken."""
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise StudyError(f"--port {port} is in use; give another one")
    with make_server(HOST, port, wsgi(storage), handler_class=_Quiet) as server:
        if open_browser:
            webbrowser.open(f"http://{HOST}:{port}{path}")
        server.serve_forever()
