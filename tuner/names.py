"""Printable names of files, folders and classes, which may contain bytes that are not valid text, and lists of them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable

SHOWN = "tuner.shown"
"""Name of the encoding error handler that `show_what_cannot_be_encoded` is registered as."""


def shown_name(name: str) -> str:
    r"""Return a name with invalid UTF-8 bytes as escapes, as in `caf\xe9`; other names are returned unchanged.

    Python represents such bytes as surrogates, with which the file can still be opened but which cannot be encoded (PEP
    383). In an ASCII locale, all letters beyond ASCII are represented in this way, and this function restores them.
    """
    lone = re.sub("[\ud800-\udc7f\udd00-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", name)
    return lone.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def first_few(names: Iterable[object], *, most: int = 10) -> str:
    """List the first names in quotation marks, and count the others: `'ant', 'bee' and 7 more`."""
    names = list(names)
    shown = ", ".join(map(repr, names[:most]))
    return shown + (f" and {len(names) - most:,} more" if len(names) > most else "")


def shortened(name: str, *, most: int = 100) -> str:
    """Return a name of more than `most` characters as its beginning and end; other names are returned unchanged."""
    return name if len(name) <= most else f"{name[: most // 2]}...{name[-(most // 2) :]}"


def show_what_cannot_be_encoded(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""Escape what an output cannot encode: `\xe9` for a byte of a name, `\u72ac` for a letter."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(map(_escape, letters)), error.end


def _escape(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("ascii", "backslashreplace").decode()


codecs.register_error(SHOWN, show_what_cannot_be_encoded)
