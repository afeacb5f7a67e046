"""Choose how the images of a data set are read, from the facts of its development part, by the rule of images.py."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.data.dataset import DataSpec, Decoding, ImageDataset
from tuner.data.images import ImageFacts, Preprocessing, choose_size
from tuner.data.reading import Reading, choose_reading
from tuner.data.resizing import Resizing

SIZE_OPTION = "; --image-size changes it"
"""What a note on the size of images says of the option that sets it."""


@dataclass(frozen=True)
class ImageRule:
    """Shape (C, H, W) of the images of a data set, how their values become pixels, and how they are resized.

    described: says which channels and size the images have, and how many are resized. notes: say what is not the
    default of a reading that was chosen here.
    """

    shape_CHW: tuple[int, int, int]
    reading: Reading
    resizing: Resizing
    described: str
    notes: tuple[str, ...]


def choose_rule(facts: Sequence[ImageFacts], decoding: Decoding) -> ImageRule:
    """Apply the rule to the facts of the development part; size, reading and 3 channels may be given."""
    height, width = choose_size(facts, decoding.image_size)
    shape_CHW = (decoding.channels or (1 if all(fact.grey for fact in facts) else 3), height, width)
    resizing = decoding.resizing
    described = _describe(facts, shape_CHW, resizing)
    if decoding.reading is not None:
        return ImageRule(shape_CHW, decoding.reading, resizing, described, ())
    reading, notes = choose_reading([fact.levels for fact in facts], [fact.vanishes for fact in facts])
    return ImageRule(shape_CHW, reading, resizing, described, notes)


def spec_for(spec: DataSpec, preprocessing: Preprocessing) -> DataSpec:
    """Return the same data set with images of the size, channels and resizing that a network expects.

    Rows, labels, digests and parts stay the same. The reading is not set: the same images are read in the same way.
    """
    return replace(
        spec,
        image_size=preprocessing.image_size,
        channels=3 if preprocessing.channels == 3 else None,
        interpolation=preprocessing.interpolation,
        crop_fraction=preprocessing.crop_fraction,
    )


def is_decoded_for(dataset: ImageDataset, preprocessing: Preprocessing) -> bool:
    """Whether images were decoded as a network expects them."""
    expected = ((preprocessing.channels, *preprocessing.image_size), preprocessing.reading, preprocessing.resizing)
    return (tuple(dataset.images_NCHW.shape[1:]), dataset.reading, dataset.resizing) == expected


def _describe(facts: Sequence[ImageFacts], shape_CHW: tuple[int, int, int], resizing: Resizing) -> str:
    channels, height, width = shape_CHW
    colours = "grey (1 channel)" if channels == 1 else "RGB (3 channels)"
    if channels == 3 and all(fact.grey for fact in facts):
        colours = "grey (in 3 equal channels)"
    if resizing.crop_fraction < 1:
        covered_height, covered_width = resizing.covered_size((height, width))
        return (
            f"images are {colours}; all are {resizing.verb} to cover {covered_height}x{covered_width} pixels "
            f"(height x width{SIZE_OPTION}), and centre-cropped to {height}x{width}"
        )
    num_other = sum((fact.height, fact.width) != (height, width) for fact in facts)
    if num_other == 0:
        return f"images are {colours}, {height}x{width} pixels (height x width)"
    return (
        f"images are {colours}; {num_other:,} of {len(facts):,} have another size and are {resizing.verb} to cover "
        f"{height}x{width} pixels (height x width{SIZE_OPTION}), and centre-cropped"
    )
