"""Load a search space from its TOML file: one that comes with the tuner, or a user's own."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.errors import SpaceError, reason_of
from tuner.names import shown_name
from tuner.space.first_sizes import SMALLEST_INPUT, refuse_large_first
from tuner.space.sampling import first_params
from tuner.space.schema import SearchSpace


def load_space(name_or_path: str) -> SearchSpace:
    """The space of a bundled name (`cnn`) or of a TOML file's path.

    Raises SpaceError with file, key, the rule and the value.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        bundled = bundled_spaces()
        if name_or_path not in bundled:
            raise SpaceError(
                f"no search space {name_or_path!r}: bundled are {', '.join(bundled)}; a space of your own is a path "
                "that ends in .toml, and a network of a study is `tuner inspect STUDY --trial N`"
            )
        path = bundled[name_or_path]
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors put a mark in front
    except OSError as error:
        raise SpaceError(f"{path}: cannot be read: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:  # of the encoding, of the syntax, of brackets in brackets
        raise SpaceError(f"{path}: not a TOML file: {error}") from error
    if "name" in data:
        raise SpaceError(f"{path}: name: a space is named after its file; remove the key")
    space = parse_space({"name": shown_name(path.stem), **data}, origin=str(path))
    first_params(space, origin=str(path))
    refuse_large_first(space, SMALLEST_INPUT, origin=str(path))
    return space


def parse_space(data: object, *, origin: str) -> SearchSpace:
    """The space in a TOML-like object; `origin` names it in errors. Raises SpaceError."""
    try:
        return SearchSpace.model_validate(data)
    except ValidationError as error:
        raise SpaceError(f"{origin}: {_in_one_line(error)}") from error


def bundled_spaces() -> dict[str, Path]:
    """The spaces that come with the tuner, by name."""
    packaged = Path(str(resources.files("tuner"))) / "search_spaces"
    folder = packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "search_spaces"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _in_one_line(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False)
    where = ".".join(str(part) for part in first["loc"] if part not in ("choices",))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key; remove it or fix its spelling{_and_more(others)}"
    if first["type"] == "missing":
        return f"{where}: required key is missing{_and_more(others)}"
    value = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    place = f"{where}: " if where else ""
    return f"{place}{message[:1].lower()}{message[1:]}{value}{_and_more(others)}"


def _and_more(others: list[Any]) -> str:
    return f" (and {len(others)} more)" if others else ""
