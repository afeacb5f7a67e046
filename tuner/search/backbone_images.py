"""The images of a study of pretrained networks: their size from --image-size, and what is reported about them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tuner.architecture.shapes import Shape
from tuner.data.dataset import ImageDataset
from tuner.data.development_part import load_cached
from tuner.data.image_rule import SIZE_OPTION
from tuner.data.training_data import how_it_is_held
from tuner.errors import OptionError, SpaceError, StudyError
from tuner.search.backbone_data import DecodedFolders
from tuner.search.study_backbones import preprocessings
from tuner.space.schema import SearchSpace


def with_image_size(
    space: SearchSpace, image_size: tuple[int, int] | None, stored: SearchSpace | None = None
) -> SearchSpace:
    """Return a space whose backbones all take images of the given (height, width), unless it has no backbones.

    stored: the space of the study that is resumed. Raises OptionError for sides that differ, SpaceError if the space
    has another size, and StudyError if the study began with another size.
    """
    section = space.backbone
    if section is None or image_size is None:
        return space
    height, width = image_size
    if height != width:
        raise OptionError(
            f"--image-size must be the one side of square images for pretrained networks, got {height}x{width}: "
            f"give --image-size {min(image_size)}"
        )
    own = section.image_size
    if own.values not in ([0], [height]):
        raise SpaceError(
            f"space {space.name!r}: backbone.image_size ({own}) and --image-size {height} exclude each other: "
            "omit one of them"
        )
    fixed = stored.backbone if stored is not None and stored.name == space.name else None
    if fixed is not None and fixed.image_size.values != [height]:
        before = fixed.image_size.default
        raise StudyError(
            f"--image-size was {before or 'unset'}, not {height}, when the study began, and its images keep their "
            "size: give the same, or start another study with --study NAME"
        )
    return space.with_image_size(height)


@dataclass(frozen=True)
class ImagesInWords:
    """What is reported about the images of a study when a run begins.

    shapes: (C, H, W), without repetitions. held: whether they are in memory or streamed; of the largest set. notes:
    decisions that were made for the user.
    """

    shapes: tuple[Shape, ...]
    held: str
    notes: tuple[str, ...]


def describe_decoded(
    space: SearchSpace, dataset: ImageDataset, decoded: DecodedFolders, *, device: torch.device, memory_bytes: int
) -> ImagesInWords:
    """Describe the images as they are decoded for the backbones of a space.

    A note that is not the same for all backbones begins with the names of its backbones. If the space gives several
    crop fractions, a note that is not the same for all of them begins with its own. memory_bytes: limit for the images
    of one set.
    """
    section = space.backbone
    assert section is not None
    by_preprocessing = preprocessings(space, dataset)
    sets = [load_cached(decoded.folders[preprocessing]) for preprocessing in by_preprocessing]
    has_several_crops = (
        len(section.crop_fraction.values) > 1 and len({one.crop_fraction for one in by_preprocessing}) > 1
    )
    keys_of: dict[str, list[tuple[str, float]]] = {}
    for one, (preprocessing, names) in zip(sets, by_preprocessing.items(), strict=True):
        for note in one.notes:
            keys_of.setdefault(note, []).extend((name, preprocessing.crop_fraction) for name in names)
    notes = []
    for note, keys in keys_of.items():
        of_note, fractions = dict.fromkeys(name for name, _ in keys), {fraction for _, fraction in keys}
        words = [] if len(of_note) == len(section.name.values) else [*of_note]
        if has_several_crops and len(fractions) == 1:
            words.append(f"crop fraction {fractions.pop():g}")
        text = note if section.image_size.values == [0] else note.replace(SIZE_OPTION, "")
        notes.append(f"{', '.join(words)}: {text}" if words else text)
    largest = max(sets, key=lambda one: one.images_NCHW.numel())
    shapes = dict.fromkeys(tuple(one.images_NCHW.shape[1:]) for one in sets)
    return ImagesInWords(tuple(shapes), how_it_is_held(largest, device=device, memory_bytes=memory_bytes), tuple(notes))
