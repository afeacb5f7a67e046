"""Format numbers of stored values, and the refusal of a value that a newer version has stored."""

from __future__ import annotations

from collections.abc import Mapping


class NewerFormatError(ValueError):
    """A stored value is of a format that this version does not know; the text names both."""


def refuse_newer_format(data: object, *, known: int, what: str, first: int = 1) -> None:
    """Raise NewerFormatError for a JSON object whose `format` is above `known`, the newest that this version reads.

    first: the oldest format, which objects without a number have. what: the values of this format, in the plural.
    Raises ValueError for a `format` that is no such number. Whether the rest can be read is not checked.
    """
    found = data.get("format", first) if isinstance(data, Mapping) else first
    if type(found) is not int or found < first:
        raise ValueError(f"the format of {what} must be a whole number from {first}, got {found!r}")
    if found > known:
        raise NewerFormatError(f"format {found} of {what}, and this version reads format {known}")
