"""How an image gets the size of a network's input: its interpolation, and how much of it the centre crop keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

Interpolation = Literal["bilinear", "bicubic"]
LEAST_CROP_FRACTION = 0.1


@dataclass(frozen=True)
class Resizing:
    """How images are resized, by Pillow's filters, which are antialiased.

    crop_fraction: an image is resized so that it covers the target divided by it, and then centre-cropped to the
    target. With 0.875, images for 224x224 pixels are resized to cover 256x256. Raises ValueError for other values.
    """

    interpolation: Interpolation = "bilinear"
    crop_fraction: float = 1.0

    def __post_init__(self) -> None:
        known = get_args(Interpolation)
        if self.interpolation not in known:
            raise ValueError(f"interpolation must be {' or '.join(known)}, got {self.interpolation!r}")
        fraction = self.crop_fraction
        if isinstance(fraction, bool) or not isinstance(fraction, int | float):
            raise ValueError(f"crop_fraction must be a number, got {fraction!r}")
        if not LEAST_CROP_FRACTION <= fraction <= 1:
            raise ValueError(f"crop_fraction must be between {LEAST_CROP_FRACTION} and 1, got {fraction!r}")

    def to_json(self) -> dict[str, Any]:
        """Return plain values for json.dumps, without those that have their default."""
        return {key: value for key, value in asdict(self).items() if value != getattr(Resizing, key)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Resizing:
        """Read what to_json returned; other keys are ignored. Raises ValueError for other values."""
        return cls(**{key: values[key] for key in asdict(DEFAULT_RESIZING) if key in values})

    @property
    def verb(self) -> str:
        """What notes say is done to an image."""
        return "resized" if self.interpolation == "bilinear" else f"resized ({self.interpolation})"

    def covered_size(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that an image covers before it is cropped to `image_size`."""
        height, width = (round(side / self.crop_fraction) for side in image_size)
        return height, width


DEFAULT_RESIZING = Resizing()


def resize(image: PILImage, image_size: tuple[int, int], resizing: Resizing) -> PILImage:
    """Resize a grey or RGB image to (height, width), and crop what is beyond it on both sides.

    With a crop fraction below 1, the pixels are those of Resize and CenterCrop of torchvision.transforms, but for
    rounding by 1 or 2 of 255: the resized sides and the margins of the crop are whole numbers. Only the part that is
    kept is computed, so that a long and narrow image needs no more memory than others.
    """
    from PIL import Image, ImageOps

    height, width = image_size
    method = Image.Resampling[resizing.interpolation.upper()]
    if resizing.crop_fraction == 1:
        return image if image.size == (width, height) else ImageOps.fit(image, (width, height), method)
    own_width, own_height = image.size
    covered_height, covered_width = resizing.covered_size(image_size)
    if own_width * covered_height <= own_height * covered_width:
        whole_width, whole_height = covered_width, own_height * covered_width // own_width
    else:
        whole_width, whole_height = own_width * covered_height // own_height, covered_height
    left, top = round((whole_width - width) / 2), round((whole_height - height) / 2)
    box = (
        left * own_width / whole_width,
        top * own_height / whole_height,
        (left + width) * own_width / whole_width,
        (top + height) * own_height / whole_height,
    )
    return image.resize((width, height), method, box=box)


def resizing_in_words(resizing: Resizing, image_size: tuple[int, int]) -> str:
    """Describe how images must be resized to (height, width) before a network gets them; empty for the default."""
    if resizing == DEFAULT_RESIZING:
        return ""
    target, covered = ("x".join(map(str, size)) for size in (image_size, resizing.covered_size(image_size)))
    if resizing.crop_fraction == 1:
        return (
            f"An image of another size is resized (Pillow's {resizing.interpolation} filter) to cover {target} pixels "
            "(height x width) and centre-cropped."
        )
    return (
        f"Every image is resized (Pillow's {resizing.interpolation} filter) to cover {covered} pixels "
        f"(height x width) and centre-cropped to {target}."
    )
