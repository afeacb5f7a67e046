"""Names of files and folders as they can be shown: not every one is text that can be encoded."""

from __future__ import annotations

import codecs
import re

SHOWN = "tuner.shown"
"""The name of the handler of encoding errors that `show_what_cannot_be_encoded` is registered as."""


def shown_name(name: str) -> str:
    r"""A name in which bytes that are no UTF-8 are escapes, as in `caf\xe9`; any other is returned as it is.

    Python has such bytes of a name as surrogates, with which the file can still be opened, and which nothing can
    encode (PEP 383). In an ASCII locale it has all letters beyond ASCII so, and these become letters.
    """
    lone = re.sub("[\ud800-\udc7f\udd00-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", name)
    return lone.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def show_what_cannot_be_encoded(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""Escapes for what an output cannot encode: `\xe9` for the byte of a name, `\u72ac` for a letter."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    return "".join(map(_escape, letters)), error.end


def _escape(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("ascii", "backslashreplace").decode()


codecs.register_error(SHOWN, show_what_cannot_be_encoded)
