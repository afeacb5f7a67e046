"""Load a search space from its TOML file: one that comes with the tuner, or a user's own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.errors import SpaceError, reason_of
from tuner.names import shown_name
from tuner.space.backbone_file import check_names, refuse_without_effect
from tuner.space.first_sizes import SMALLEST_INPUT, refuse_large_first
from tuner.space.sampling import first_params
from tuner.space.schema import SearchSpace
from tuner.space.stages import OF_FIRST, has_pooling


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
    if "weights" in data:
        raise SpaceError(f"{path}: weights: files of weights are given with --weights NAME=FILE; remove the key")
    space = parse_space({"name": shown_name(path.stem), **data}, origin=str(path))
    _refuse_without_effect(data, space, origin=str(path))
    if space.backbone is not None:
        if path not in bundled_spaces().values():
            check_names(space.backbone, origin=str(path))
        refuse_without_effect(data, space, origin=str(path))
    first_params(space, origin=str(path))
    refuse_large_first(space, SMALLEST_INPUT, origin=str(path))
    return space


def parse_space(data: object, *, origin: str) -> SearchSpace:
    """The space in a TOML-like object; `origin` names it in errors. Raises SpaceError."""
    try:
        return SearchSpace.model_validate(data)
    except ValidationError as error:
        raise SpaceError(f"{origin}: {_in_one_line(error)}") from error


def _refuse_without_effect(data: Mapping[str, Any], space: SearchSpace, *, origin: str) -> None:
    """Raise SpaceError for what a file gives, even with the default's value, although nothing reads it."""
    if space.stage is None:
        return
    if "network" in data:
        raise SpaceError(f"{origin}: [network] has no effect in a space with [stage]; remove it")
    if "pooling" in data["stage"] and not any(map(has_pooling, space.stage.family.values)):
        raise SpaceError(
            f"{origin}: stage.pooling: has no effect, since no stage is of a family with pooling; remove it"
        )
    for name, own in OF_FIRST.items():
        if name in data["stage"] and own in data["stage"] and space.stage.max_stages == 1:
            raise SpaceError(f"{origin}: stage.{name}: has no effect beside {own}, since there is one stage; remove it")


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
