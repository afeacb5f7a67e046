"""StudySettings, which a resumed search must share with the first one, and descriptions of differences."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from pydantic import ConfigDict, TypeAdapter, with_config

from tuner.data.dataset import DataSpec, ImageDataset
from tuner.data.given_path import given_path
from tuner.data.image_parts import ImageParts
from tuner.data.known_sets import KNOWN_NAMES
from tuner.data.reading import WIDEST, Ground, Levels
from tuner.errors import SpaceError
from tuner.formats import refuse_newer_format
from tuner.space.schema import SearchSpace
from tuner.space.toml_file import parse_space

SETTINGS_FORMAT = 1
"""Version of the format.

Raised if older versions would misread new settings; a field with a default does not raise it.
"""
RELEASED_DEFAULTS: Mapping[str, Any] = {
    "image_size": None,
    "is_space_bundled": False,
    "levels": (0, 65535),
    "ground": "white",
}
"""Defaults of fields that stored settings may lack. A row is never changed, and a new field needs one."""
MAX_CHANGES = 3
"""How many changed parameters of a space an error lists."""
Source = Mapping[str, Any]
"""Source of images: `dataset` (an absolute path for a folder or file), `data_dir`, `image_size` ([height, width]).

Columns of a table and `group` are stored if they are given, as in `label_column`.
"""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class StudySettings:
    """The settings that a resumed search must share with the first one.

    dataset_digest: digest of the development part, as in ImageDataset. image_size: (height, width) of its images; None
    in studies from before it was stored. space: the search space as JSON, without its name and description.
    is_space_bundled: whether it is one of those that come with tuner, which a later version may change.
    levels, ground: how the values of image files became pixels, as in `Reading`.
    format: 0 in studies from before there was a format number.
    """

    dataset: str
    dataset_digest: str
    space_name: str
    space: dict[str, Any]
    seed: int
    epochs: int
    image_size: tuple[int, int] | None = None
    is_space_bundled: bool = False
    levels: Levels = WIDEST
    ground: Ground = "white"
    format: int = SETTINGS_FORMAT

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back to an equal value."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> StudySettings:
        """Read the settings in a JSON object; missing fields have their released defaults.

        Raises NewerFormatError, and ValueError (or its subclass pydantic.ValidationError) for anything else.
        """
        refuse_newer_format(data, known=SETTINGS_FORMAT, what="settings", first=0)
        return _ADAPTER.validate_python({"format": 0, **RELEASED_DEFAULTS, **data})


_ADAPTER = TypeAdapter(StudySettings)


def study_settings(
    dataset: ImageDataset, space: SearchSpace, *, seed: int, epochs: int, is_space_bundled: bool = False
) -> StudySettings:
    """Return the settings of a study for these images and this space. epochs: number of epochs of a full trial."""
    return StudySettings(
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        image_size=dataset.image_size,
        space_name=space.name,
        space=space_to_json(space),
        seed=seed,
        epochs=epochs,
        is_space_bundled=is_space_bundled,
        levels=dataset.reading.levels,
        ground=dataset.reading.ground,
    )


def space_to_json(space: SearchSpace) -> dict[str, Any]:
    """A search space as settings store it."""
    return space.model_dump(mode="json", exclude_none=True, exclude={"name", "description"})


def stored_space(settings: StudySettings) -> SearchSpace:
    """The search space that settings store. Raises SpaceError if this version does not know such a space."""
    name = settings.space_name
    return parse_space({"name": name, **settings.space}, origin=f"the space {name} that the study stores")


def has_another_version_of_its_space(stored: StudySettings, given: StudySettings) -> bool:
    """Whether both have the bundled space of one name, with other values."""
    are_bundled = stored.is_space_bundled and given.is_space_bundled
    return are_bundled and stored.space_name == given.space_name and _whole_space(stored) != _whole_space(given)


def _whole_space(settings: StudySettings) -> dict[str, Any]:
    """Return the space with defaults for keys that a later version has added."""
    try:
        return space_to_json(stored_space(settings))
    except SpaceError:
        return settings.space  # no space of this version: what is stored is compared, and the difference reported


def settings_in_full(settings: StudySettings) -> dict[str, Any]:
    """Return settings as JSON, with defaults for keys of the space that a later version has added."""
    return {**settings.to_json(), "space": _whole_space(settings)}


def space_note(stored: StudySettings, given: StudySettings) -> str:
    """What has changed in a bundled space since a study began, as a note for the user."""
    changes = "; ".join(_differences_of_spaces(_whole_space(stored), _whole_space(given)))
    return (
        f"the bundled space {stored.space_name} has changed since the study began ({changes}); "
        "the study's own version is used"
    )


def data_source(spec: DataSpec) -> dict[str, Any]:
    """Return the source of the images with absolute paths, as a study stores it."""
    if isinstance(spec.dataset, ImageParts):
        from tuner.data.listed_parts import stored_name  # imports torch, which commands that only read do without

        dataset = stored_name(spec.dataset)
    else:
        path = given_path(spec.dataset)
        dataset = str(path.resolve()) if path.exists() and spec.dataset not in KNOWN_NAMES else spec.dataset
    image_size = None if spec.image_size is None else list(spec.image_size)
    source = {"dataset": dataset, "data_dir": str(spec.data_dir.resolve()), "image_size": image_size}
    return {**source, **spec.columns.given(), **({} if spec.group is None else {"group": spec.group})}


def differences(
    stored: StudySettings,
    given: StudySettings,
    *,
    data_before: Source | None = None,
    data_now: Source | None = None,
) -> str:
    """What differs between two settings of a study; empty when nothing does."""
    # As JSON, tuples and lists are the same.
    before, now = settings_in_full(stored), settings_in_full(given)
    names = [field.name for field in fields(StudySettings) if field.name not in ("format", "is_space_bundled")]
    differing = [key for key in names if before[key] != now[key]]
    said = []
    for key in differing:
        if key == "space" and "space_name" in differing:
            continue  # another space, so of course
        one, other = _shortly(before[key]), _shortly(now[key])
        if key == "dataset_digest":
            said += [] if "dataset" in differing else [_difference_of_images(data_before, data_now)]
        elif key == "image_size":
            if "dataset_digest" not in differing:  # otherwise it is among what was reported with that
                sizes = [before[key], now[key]]
                if data_before is not None and data_now is not None and data_before[key] != data_now[key]:
                    sizes = [data_before[key], data_now[key]]
                said.append("--image-size was {}, not {}".format(*map(_as_typed, sizes)))
        elif key in ("levels", "ground"):
            if "dataset_digest" not in differing:
                said.append(_difference_of_readings(key, before[key], now[key]))
        elif key == "space":
            said += _differences_of_spaces(before[key], now[key])
        elif one == other:
            said.append(f"the {key} has changed since")
        else:
            said.append(f"{'space' if key == 'space_name' else key} was {one}, not {other}")
    return "; ".join(said)


def _differences_of_spaces(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the first few keys of a space whose values have changed."""
    old, new = dict(_parameters(before)), dict(_parameters(now))
    changed = [key for key in (*old, *(key for key in new if key not in old)) if old.get(key) != new.get(key)]
    said = []
    for key in changed[:MAX_CHANGES]:
        one, other = _told(old.get(key)), _told(new.get(key))
        said.append(f"{key} has changed" if one == other else f"{key} was {one}, not {other}")
    return said + ([f"and {len(changed) - MAX_CHANGES} more"] if len(changed) > MAX_CHANGES else [])


def _parameters(space: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in space.items():
        if isinstance(value, Mapping) and not {"choices", "low"} & set(value):
            yield from _parameters(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _as_in_toml(value) if isinstance(value, Mapping) else value


def _as_in_toml(parameter: Mapping[str, Any]) -> Any:
    """Format a parameter as in TOML: keys with their default are omitted, and choices alone are a list."""
    typed = {key: value for key, value in parameter.items() if value is not False}
    return typed["choices"] if [*typed] == ["choices"] else typed


def _told(value: object) -> str:
    return "unset" if value is None else _shortly(value)


def _difference_of_images(before: Source | None, now: Source | None) -> str:
    """Why a data set of the same name has other images."""
    if before is None or now is None:
        return "the images have changed since"
    options = ["image_size", "dataset"] + (["data_dir"] if now["dataset"] in KNOWN_NAMES else [])
    for key in (*options, *(f"{role}_column" for role in ("image", "label", "split", "group")), "group"):
        if before.get(key) != now.get(key):
            one, other = (_as_typed(source.get(key)) for source in (before, now))
            if key == "dataset":
                return f"the images of {other} are not those of {one}"
            return f"--{key.replace('_', '-')} was {one}, not {other}"
    return f"the images of {now['dataset']} have changed since"


def _difference_of_readings(key: str, before: Any, now: Any) -> str:
    if key == "ground":
        return f"transparent pixels were laid over {before}, and would now be laid over {now}"
    return "grey values of more than 8 bits were scaled from {}..{}, and would now be from {}..{}".format(*before, *now)


def _as_typed(value: Any) -> str:
    if isinstance(value, list):
        return "x".join(map(str, value))
    return "unset" if value is None else str(value)


def _shortly(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"
