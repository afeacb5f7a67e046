"""Groups of images, such as those of one patient, scene or burst, which stay on one side of every split."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.data.array_values import array_from
from tuner.errors import DataError
from tuner.names import first_few, shown_name

LARGE = 0.2
"""Share of all images, about that of a part that is set aside, above which the largest group is reported."""


def groups_from_names(names: Sequence[str], pattern: str) -> list[str]:
    """Return the group of each file: what the first group of a regular expression matches, or the whole match.

    Raises DataError for an invalid expression, and for files that do not match or match nothing.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--group must be a regular expression; {pattern!r} is not ({error})") from error
    matches = [compiled.search(name) for name in names]
    groups = [(match[1] if compiled.groups else match[0]) if match else None for match in matches]
    unmatched = [shown_name(name) for name, group in zip(names, groups, strict=True) if not group]
    if unmatched:
        raise DataError(
            f"--group must match every file name; {pattern!r} finds no group in {len(unmatched):,} of {len(names):,}: "
            f"{first_few(unmatched)}"
        )
    return [group for group in groups if group]


def groups_from_array(value: Any, what: str, *, num_images: int) -> list[str]:
    """Return the group of each image in an array of numbers or texts. Raises DataError for anything else."""
    groups = array_from(value, what)
    if groups.ndim == 2 and groups.shape[1] == 1:
        groups = groups[:, 0]
    if groups.ndim != 1 or len(groups) != num_images:
        raise DataError(f"{what} must be one per image; there are {num_images:,}, and they have shape {groups.shape}")
    named = [
        group.decode("utf-8", "surrogateescape") if isinstance(group, bytes) else group for group in groups.tolist()
    ]
    if not all(isinstance(group, str | int) and str(group).strip() for group in named):
        raise DataError(f"{what} must be whole numbers or texts that are not empty; they have type {groups.dtype}")
    return [str(group) for group in named]


def numbers_of(groups: Sequence[str]) -> NDArray[np.int64]:
    """Return the number of each image's group, in the order of the groups' names."""
    return np.unique(np.array(groups), return_inverse=True)[1].astype(np.int64).reshape(-1)


def refuse_cut_groups(parts: Mapping[str, Iterable[str]], place: object) -> None:
    """Raise DataError if a group has images in two of the given parts. parts: the groups of each part's images."""
    sets = {name: set(groups) for name, groups in parts.items()}
    names = list(sets)
    cut = {
        (one, other): sorted(sets[one] & sets[other])
        for number, one in enumerate(names)
        for other in names[number + 1 :]
        if sets[one] & sets[other]
    }
    if cut:
        (one, other), groups = next(iter(cut.items()))
        num_cut = len({group for some in cut.values() for group in some})
        num_groups = len(set().union(*sets.values()))
        shown = first_few([shown_name(group) for group in groups])
        raise DataError(
            f"every group must be in one part; {num_cut:,} of the {num_groups:,} groups of {place} are in several "
            f"({shown} in {one} and {other}): move their images, or give other groups"
        )


def describe_groups(groups: Iterable[str]) -> str:
    """Say how many groups there are, and whether one of them unbalances the splits. groups: the group of each image."""
    sizes = Counter(groups)
    note = f"the images are in {len(sizes):,} groups, each of which stays on one side of every split"
    (name, largest), total = sizes.most_common(1)[0], sizes.total()
    if largest <= LARGE * total:
        return note
    return (
        f"{note}; the largest, {shown_name(name)!r}, has {largest:,} of the {total:,} images, so the parts may be much "
        "smaller or larger than planned"
    )
