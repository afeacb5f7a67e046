"""Restrict the names that a local server without a login answers to, so that no page of another site can use it.

A browser runs the scripts of any site that it shows. Such a site can make its own name resolve to 127.0.0.1 (DNS
rebinding), so that its pages have the same origin as a server there. Only the Host header then still has the site's
name. Without this trick a site can send requests but not read the answers, and these requests have an Origin header
with its name.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Collection, Iterable
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from tuner.errors import OptionError

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
"""A WSGI application (PEP 3333)."""
READING = ("GET", "HEAD", "OPTIONS")
"""HTTP methods that change nothing."""
PORTS = {"http": 80, "https": 443}


def refuse_foreign_sites(app: App, *, host: str, named: Collection[str] = ()) -> App:
    """Answer requests that another site's page may have sent with 403 and a sentence; others reach `app`.

    host: the address that the server listens on. named: further names of the server, such as behind a proxy, as
    `check_host_name` returns them. Loopback is always answered. A server that listens beyond this machine also answers
    to every IP address, which cannot be rebound, and to the machine's own names.
    """
    is_public = not is_loopback(host)
    names = {"localhost", _plain(host), *named} | (_own_names() if is_public else set())

    def is_known(name: str) -> bool:
        return name in names or is_loopback(name) or (is_public and _is_address(name))

    def why_refused(environ: dict[str, Any]) -> str:
        asked, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        name, port = _split(f"//{asked}")
        if not is_known(name):
            return (
                f"this dashboard does not answer to the host {asked!a}: start it with --allow-host NAME if it is yours"
            )
        if origin is None or (origin == "null" and environ["REQUEST_METHOD"] in READING):
            return ""
        sender, sender_port = _split(origin)
        default = PORTS.get(origin.partition(":")[0])
        is_same = is_known(sender) and (sender_port or default) == (port or default)
        if not (is_same or sender in named):
            return f"this dashboard takes no requests from pages of {origin!a}"
        return ""

    def own_sites_only(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        reason = why_refused(environ)
        if not reason:
            return app(environ, start_response)
        body = f"{reason}\n".encode()
        headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
        start_response("403 Forbidden", [*headers, ("X-Content-Type-Options", "nosniff")])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    return own_sites_only


def check_host_name(text: str) -> str:
    """Return a host name or IP address in the form of a Host header, without a port. Raises OptionError."""
    name = _plain(text)
    if not _is_address(name) and not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", name):
        raise OptionError(
            f"--allow-host must be a host name or an IP address, without a scheme or a port; got {text!r}"
        )
    return name


def is_loopback(host: str) -> bool:
    """Whether an address can be reached only from this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _own_names() -> set[str]:
    return {_plain(name) for name in (socket.gethostname(), socket.getfqdn())}


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _split(url: str) -> tuple[str, int | None]:
    """Return host and port of a URL; the host is empty if the text is not a URL."""
    try:
        parts = urlsplit(url)
        is_plain = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
        return (_plain(parts.hostname or ""), parts.port) if is_plain else ("", None)
    except ValueError:
        return "", None


def _plain(name: str) -> str:
    """Normalise a name as DNS does: lower case, ASCII, without the final dot and without the brackets of an address."""
    name = name.lower().removesuffix(".")
    if name.startswith("[") and name.endswith("]"):
        name = name[1:-1]
    try:
        return name.encode("idna").decode()
    except UnicodeError:
        return name
