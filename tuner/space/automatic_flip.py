"""Decide whether a space that leaves the flip to the data set (`flip = "auto"`) flips images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuner.data.image_parts import STORED, ImageParts
from tuner.data.known_sets import SETS_OF_CHARACTERS
from tuner.data.prepare import TABLE_ENDINGS
from tuner.space.schema import SearchSpace
from tuner.training.candidate import Flip

AUTO = "auto"


def is_flip_automatic(space: SearchSpace) -> bool:
    """Whether the data set decides on a flip of this space, as a choice or in a configuration to try first."""
    return AUTO in (space.recipe.flip.choices or []) or any(one.recipe.get("flip") == AUTO for one in space.first)


def decide_flip(space: SearchSpace, dataset: str | ImageParts, class_names: Sequence[str]) -> tuple[SearchSpace, str]:
    """Return the space with the flip that suits a data set, and a note for the user; unchanged, with no note, if fixed.

    dataset: as in DataSpec; of a set in memory, only the class names count. A mirrored digit or letter is another one
    or none, so these are never flipped. Nor are images of arrays and tables whose labels are only numbers, because
    their classes have no names that say what the images show.
    """
    if not is_flip_automatic(space):
        return space, ""
    if dataset in SETS_OF_CHARACTERS:
        return with_flip(space, "none"), f"flip is none, since mirrored images of {dataset} would be other characters"
    if _has_labels_alone(dataset) and all(name.isdecimal() for name in class_names):
        reason = "the labels are numbers without class names, so the images may be digits or letters"
        return with_flip(space, "none"), f"flip is none, since {reason}; to decide it, set flip in the search space"
    if all(len(name) == 1 and name.isalnum() for name in class_names):
        return with_flip(space, "none"), "flip is none, since each class name is a single letter or digit"
    return with_flip(space, "horizontal"), "flip is horizontal, since the classes are not digits or letters"


def _has_labels_alone(dataset: str | ImageParts) -> bool:
    """Whether the classes of a data set may be named after its labels: those of arrays and tables, but not folders."""
    if isinstance(dataset, ImageParts):
        return True
    return dataset.startswith(STORED) or Path(dataset).suffix.lower() in (".npz", *TABLE_ENDINGS)


def choose_flip_without_images(space: SearchSpace) -> tuple[SearchSpace, str]:
    """Return the space as for images that are not digits or letters, and a note for the user, as `decide_flip` does."""
    if not is_flip_automatic(space):
        return space, ""
    return with_flip(space, "horizontal"), 'flip is "auto": horizontal, except for digits and letters'


def with_flip(space: SearchSpace, flip: Flip) -> SearchSpace:
    """Return the space with this flip wherever it says "auto"."""
    chosen: list[Any] = [flip if choice == AUTO else choice for choice in space.recipe.flip.choices or []]
    parameter = space.recipe.flip.model_copy(update={"choices": list(dict.fromkeys(chosen))})
    first = [
        one.model_copy(update={"recipe": {**one.recipe, "flip": flip}}) if one.recipe.get("flip") == AUTO else one
        for one in space.first
    ]
    recipe = space.recipe.model_copy(update={"flip": parameter})
    sections = {name: getattr(space, name) for name in SearchSpace.model_fields}
    return SearchSpace.model_validate({**sections, "recipe": recipe, "first": first})
