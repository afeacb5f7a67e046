"""Remove passwords and other secrets from storage URLs, so that they can be printed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

HIDDEN = "***"
MIN_LENGTH = 3
"""Minimum length of a secret that is hidden in error texts; a shorter one would match parts of ordinary words."""
_NAMES = "pass|pwd|secret|token|key|credential|dsn|odbc_connect"
"""Parts of the names of URL parameters whose values are or contain secrets."""
_IN_VALUE = re.compile(rf"(?:{_NAMES})\w*\s*[=:]\s*([^;]*)", re.IGNORECASE)
_PARAMETER = re.compile(r"([?&;]([^=&;?]*)=)([^&]*)")


def shown_url(url: str) -> str:
    """Return a URL with `***` for every secret: the password, and parameters such as sslpassword.

    Everything else is unchanged. If a URL cannot be parsed, everything between `://` and the last `@` is hidden.
    """
    return _taken_apart(url)[0]


def hide_secrets(text: str, url: str) -> str:
    """Return a text, such as an error of a database driver, with `***` for every secret of a URL that is in it."""
    shown, secrets = _taken_apart(url)
    text = text.replace(url, shown)
    forms = {form for secret in secrets for form in (secret, quote(secret, safe=""), quote_plus(secret))}
    for form in sorted(forms, key=len, reverse=True):
        if len(form) >= MIN_LENGTH:
            text = text.replace(form, HIDDEN)
    return text


def _taken_apart(url: str) -> tuple[str, list[str]]:
    """Return a URL without its secrets, and the list of these secrets."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return _roughly_taken_apart(url)
    place = f"{parsed.host or ''}{parsed.database or ''}"
    if "@" in place and parsed.get_backend_name() != "sqlite":  # of a login with signs that should have been escaped
        return _roughly_taken_apart(url)
    secret = {name: _values(parsed, name) for name in parsed.query if _is_secret(name, _values(parsed, name))}
    if parsed.password is None and not secret:
        return url, []
    masked = parsed.set(query={**parsed.query, **dict.fromkeys(secret, HIDDEN)})
    shown = masked.render_as_string(hide_password=True).replace(quote_plus(HIDDEN), HIDDEN)
    secrets = [] if parsed.password is None else [str(parsed.password)]
    for value in (value for values in secret.values() for value in values):
        secrets += [value, *_IN_VALUE.findall(value)]
    return shown, secrets


def _roughly_taken_apart(url: str) -> tuple[str, list[str]]:
    before, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    login, at, place = rest.rpartition("@")
    secrets = re.split("[:@/]", login)

    def hide(parameter: re.Match[str]) -> str:
        start, name, value = parameter.groups()
        if not _is_secret(name, [value]):
            return parameter[0]
        secrets.append(value)
        return f"{start}{HIDDEN}"

    place = _PARAMETER.sub(hide, place)
    wrong_port = re.match(r"([^:/?]*:)(?!\d*(?:[/?]|$))([^/?]+)", place)
    if wrong_port:  # it may be the password, where the host is missing
        secrets.append(wrong_port[2])
        place = f"{wrong_port[1]}{HIDDEN}{place[wrong_port.end() :]}"
    return f"{before}{mark}{HIDDEN + at if at else ''}{place}", [secret for secret in secrets if secret]


def _values(url: URL, name: str) -> list[str]:
    value = url.query[name]
    return [value] if isinstance(value, str) else list(value)


def _is_secret(name: str, values: Iterable[str]) -> bool:
    is_named = re.search(_NAMES, name, re.IGNORECASE) is not None
    return is_named or any(_IN_VALUE.search(value) for value in values)
