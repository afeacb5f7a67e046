"""ImageParts: a data set that a program gives as arrays, tensors or torch data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner.errors import DataError

PART_NAMES = ("train", "validation", "test")
STORED = "arrays:"
"""Beginning of what a study stores in place of a path: `arrays:NAME:DIGEST`."""


@dataclass(frozen=True, eq=False)
class ImageParts:
    """A data set in memory, for `RunOptions(dataset=...)` and `DataSpec(...)`.

    A part is a pair (images, labels) or a triple (images, labels, groups) of arrays or tensors, or a
    `torch.utils.data.Dataset` of pairs (image, label). Arrays of images have shape (N, H, W), (N, H, W, C) or
    (N, C, H, W). Labels and groups are whole numbers or text. Images of one group, such as those of one patient, stay
    on one side of every split. A data set gives Pillow images, arrays or tensors, and must give the same image whenever
    it is asked for it. Neither may be changed while tuner uses it.

    validation, test: taken from the training part if they are not given. class_names: the name of each label from 0;
    without them, each distinct label is a class. name: a study is named after it.
    """

    train: Any = field(repr=False)
    validation: Any = field(default=None, repr=False)
    test: Any = field(default=None, repr=False)
    class_names: Sequence[str] | None = field(default=None, repr=False)
    name: str = "arrays"
    known: dict[str, Any] = field(default_factory=dict, init=False, repr=False)
    """What was found out about the images, so that they are read once."""

    def __str__(self) -> str:
        return self.name

    @property
    def are_arrays(self) -> bool:
        """Whether the parts are pairs of arrays; otherwise they are data sets.

        Raises DataError for parts that are neither, or not all of one kind.
        """
        if not isinstance(self.name, str) or self.name.splitlines() != [self.name]:
            raise DataError(f"the name of a data set must be a line of text that is not empty; got {self.name!r}")
        kinds = {name: isinstance(part, tuple) for name, part in self.given().items()}
        for name, part in self.given().items():
            is_pair = isinstance(part, tuple) and len(part) in (2, 3)
            if not is_pair and not _is_data_set(part):
                raise DataError(
                    f"the {name} part of {self.name} must be a pair (images, labels), a triple with groups, or a torch "
                    f"Dataset with a length; it is {_described(part)}"
                )
        if "train" not in kinds:
            raise DataError(f"a data set must have a training part; {self.name} has none")
        if len(set(kinds.values())) > 1:
            raise DataError(f"all parts must be of one kind; {self.name} mixes pairs of arrays and data sets")
        return kinds["train"]

    def given(self) -> dict[str, Any]:
        """Return the parts that are given by their names, in the order of PART_NAMES."""
        parts = {name: getattr(self, name) for name in PART_NAMES}
        return {name: part for name, part in parts.items() if part is not None}


def may_be_images(dataset: object) -> bool:
    """Whether an object can be indexed, so that it may be a pair of arrays or a torch data set, and is no text."""
    return not isinstance(dataset, str | bytes) and hasattr(dataset, "__getitem__")


def parts_from(dataset: object) -> ImageParts:
    """Return a pair of arrays, or a torch data set, as the only part of a data set.

    A data set is named after its class, except for those of torch.utils.data.
    """
    kind = type(dataset)
    is_own = not isinstance(dataset, tuple | list) and not kind.__module__.startswith("torch.utils.data")
    return ImageParts(dataset, name=kind.__name__ if is_own else "arrays")


def _is_data_set(part: object) -> bool:
    is_other = isinstance(part, str | bytes | tuple | Mapping) or hasattr(part, "dtype")
    return not is_other and hasattr(part, "__getitem__") and hasattr(part, "__len__")


def _described(part: object) -> str:
    return f"a tuple of {len(part)}" if isinstance(part, tuple) else f"of type {type(part).__name__}"
