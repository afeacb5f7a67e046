"""What a resumed search must share with the first one, and differences in the words of the user's options."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tuner.data.dataset import DataSpec
from tuner.data.given_path import given_path
from tuner.data.known_sets import KNOWN_NAMES

MAX_CHANGES = 3
"""How many changed parameters of a space an error lists."""
OR_OLDER = ", or an older version divided them into parts in another way"
"""Why the images of a study may differ that does not have its test part stored."""
Source = Mapping[str, Any]
"""`dataset`, by its absolute path where it is a folder; `data_dir`; `image_size`, [height, width] or None."""


def data_source(spec: DataSpec) -> dict[str, Any]:
    """Where the images come from, by absolute paths, as a study keeps it."""
    path = given_path(spec.dataset)
    dataset = str(path.resolve()) if path.is_dir() and spec.dataset not in KNOWN_NAMES else spec.dataset
    image_size = None if spec.image_size is None else list(spec.image_size)
    return {"dataset": dataset, "data_dir": str(spec.data_dir.resolve()), "image_size": image_size}


def differences(
    stored: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    data_before: Source | None = None,
    data_now: Source | None = None,
    is_older: bool = False,
) -> str:
    """What differs between two settings of a study; empty when nothing does.

    is_older: whether the study may be of a version that divided image folders in another way.
    """
    given = json.loads(json.dumps(given))  # as it comes out of the record
    differing = [key for key in given if stored.get(key) != given[key]]
    said = []
    for key in differing:
        if key == "space" and "space_name" in differing:
            continue  # another space, so of course
        one, other = _shortly(stored.get(key)), _shortly(given[key])
        if key == "dataset_digest":
            said += [] if "dataset" in differing else [_difference_of_images(data_before, data_now, is_older=is_older)]
        elif key == "space":
            said += _differences_of_spaces(stored.get(key) or {}, given[key])
        elif one == other:
            said.append(f"the {key} has changed since")
        else:
            said.append(f"{'space' if key == 'space_name' else key} was {one}, not {other}")
    return "; ".join(said)


def _differences_of_spaces(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The first few keys of a space whose values have changed, with both."""
    old, new = dict(_parameters(before)), dict(_parameters(now))
    changed = [key for key in (*old, *(key for key in new if key not in old)) if old.get(key) != new.get(key)]
    said = [f"{key} was {_told(old.get(key))}, not {_told(new.get(key))}" for key in changed[:MAX_CHANGES]]
    return said + ([f"and {len(changed) - MAX_CHANGES} more"] if len(changed) > MAX_CHANGES else [])


def _parameters(space: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in space.items():
        if isinstance(value, Mapping) and not {"choices", "low"} & set(value):
            yield from _parameters(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _as_in_toml(value) if isinstance(value, Mapping) else value


def _as_in_toml(parameter: Mapping[str, Any]) -> Any:
    """Without keys that have their default; choices alone are a list."""
    typed = {key: value for key, value in parameter.items() if value is not False}
    return typed["choices"] if [*typed] == ["choices"] else typed


def _told(value: object) -> str:
    return "unset" if value is None else _shortly(value)


def _difference_of_images(before: Source | None, now: Source | None, *, is_older: bool) -> str:
    """Why a data set of the same name has other images."""
    if before is None or now is None:
        return "the images have changed since"
    options = ["image_size", "dataset"] + (["data_dir"] if now["dataset"] in KNOWN_NAMES else [])
    for key in options:
        if before[key] != now[key]:
            one, other = (_as_typed(source[key]) for source in (before, now))
            return f"--{key.replace('_', '-')} was {one}, not {other}"
    older = OR_OLDER if is_older and now["dataset"] not in KNOWN_NAMES else ""
    return f"the images of {now['dataset']} have changed since{older}"


def _as_typed(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value))
    return "unset" if value is None else str(value)


def _shortly(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
