"""What a resumed search must share with the first one, and how a difference is told: by what the user gave."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.data.dataset import DataSpec
from tuner.data.sources import KNOWN_NAMES

Source = Mapping[str, Any]
"""`dataset`, by its absolute path where it is a folder; `data_dir`; `image_size`, [height, width] or None."""


def data_source(spec: DataSpec) -> dict[str, Any]:
    """Where the images come from, by absolute paths, as a study keeps it."""
    path = Path(spec.dataset).expanduser()
    dataset = str(path.resolve()) if path.is_dir() and spec.dataset not in KNOWN_NAMES else spec.dataset
    image_size = None if spec.image_size is None else list(spec.image_size)
    return {"dataset": dataset, "data_dir": str(spec.data_dir.resolve()), "image_size": image_size}


def differences(
    stored: Mapping[str, Any],
    given: Mapping[str, Any],
    *,
    data_before: Source | None = None,
    data_now: Source | None = None,
) -> str:
    """What differs between two settings of a study; empty when nothing does."""
    given = json.loads(json.dumps(given))  # as it comes out of the record
    differing = [key for key in given if stored.get(key) != given[key]]
    said = []
    for key in differing:
        if key == "space" and "space_name" in differing:
            continue  # another space, so of course
        one, other = _shortly(stored.get(key)), _shortly(given[key])
        if key == "dataset_digest":
            said += [] if "dataset" in differing else [_difference_of_images(data_before, data_now)]
        elif one == other or key == "space":
            said.append(f"the {key} has changed since")
        else:
            said.append(f"{'space' if key == 'space_name' else key} was {one}, not {other}")
    return "; ".join(said)


def _difference_of_images(before: Source | None, now: Source | None) -> str:
    """Why a data set of the same name has other images."""
    if before is None or now is None:
        return "the images have changed since"
    options = ["image_size", "dataset"] + (["data_dir"] if now["dataset"] in KNOWN_NAMES else [])
    for key in options:
        if before[key] != now[key]:
            one, other = (_as_typed(source[key]) for source in (before, now))
            return f"--{key.replace('_', '-')} was {one}, not {other}"
    return f"the images of {now['dataset']} have changed since"


def _as_typed(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value))
    return "left out" if value is None else str(value)


def _shortly(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
