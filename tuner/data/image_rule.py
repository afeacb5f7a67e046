"""Choose how the images of a data set are read, from the facts of its development part, by the rule of images.py."""

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.data.dataset import Decoding
from tuner.data.images import ImageFacts, choose_size
from tuner.data.reading import Reading, choose_reading


@dataclass(frozen=True)
class ImageRule:
    """Shape (C, H, W) of the images of a data set, and how their values become pixels.

    described: says which channels and size the images have, and how many are resized. notes: say what is not the
    default of a reading that was chosen here.
    """

    shape_CHW: tuple[int, int, int]
    reading: Reading
    described: str
    notes: tuple[str, ...]


def choose_rule(facts: Sequence[ImageFacts], decoding: Decoding) -> ImageRule:
    """Apply the rule to the facts of the development part; size and reading may be given."""
    height, width = choose_size(facts, decoding.image_size)
    shape_CHW = (1 if all(fact.grey for fact in facts) else 3, height, width)
    described = _describe(facts, shape_CHW)
    if decoding.reading is not None:
        return ImageRule(shape_CHW, decoding.reading, described, ())
    reading, notes = choose_reading([fact.levels for fact in facts], [fact.vanishes for fact in facts])
    return ImageRule(shape_CHW, reading, described, notes)


def _describe(facts: Sequence[ImageFacts], shape_CHW: tuple[int, int, int]) -> str:
    channels, height, width = shape_CHW
    colours = "grey (1 channel)" if channels == 1 else "RGB (3 channels)"
    num_other = sum((fact.height, fact.width) != (height, width) for fact in facts)
    if num_other == 0:
        return f"images are {colours}, {height}x{width} pixels (height x width)"
    return (
        f"images are {colours}; {num_other:,} of {len(facts):,} have another size and are resized to cover "
        f"{height}x{width} pixels (height x width; --image-size changes it), and centre-cropped"
    )
