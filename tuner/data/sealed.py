"""The sealed test part: fixed together with the development part, and opened only when there is a winner.

search/ may not import this file.
"""

from dataclasses import dataclass, replace

from tuner.data.cache import CachedPart, is_intact, load_cached, load_meta, load_records
from tuner.data.data_checks import DataChecks, compare_parts
from tuner.data.dataset import DataSpec, ImageDataset, Report
from tuner.data.image_records import PartRecords
from tuner.data.image_rule import is_decoded_for, spec_for
from tuner.data.images import Preprocessing
from tuner.data.prepare import prepare
from tuner.errors import DataError


@dataclass(frozen=True, eq=False)
class FixedParts:
    """Both parts of a data set as read at one time: the development part open, the test part sealed."""

    development: ImageDataset
    test: "SealedPart"


@dataclass(frozen=True)
class SealedPart:
    """A test part that is known by its metadata; its images are not opened.

    development_digest: digest of the development part that was fixed with it. repairs: as in ImageDataset.
    """

    spec: DataSpec
    cached: CachedPart
    development_digest: str
    repairs: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of the source of the images, labels and class names."""
        return self.cached.digest

    @property
    def num_images(self) -> int:
        """Number of images in the test part."""
        return self.cached.num_images


def fix_parts(spec: DataSpec, *, report: Report | None = None) -> FixedParts:
    """Load the development part, and fix the test part that goes with it, without opening its images.

    Raises DataError as load_development does.
    """
    parts = prepare(spec, report=report)
    development = replace(load_cached(parts.development), repairs=parts.repairs, unused=parts.unused)
    return FixedParts(development, SealedPart(spec, load_meta(parts.test), development.digest))


def fix_parts_for(parts: FixedParts, preprocessing: Preprocessing, *, report: Report | None = None) -> FixedParts:
    """Return the same parts, decoded as a network expects them. Raises DataError as fix_parts does."""
    if is_decoded_for(parts.development, preprocessing):
        return parts
    return fix_parts(spec_for(parts.test.spec, preprocessing), report=report)


def fix_test_part(spec: DataSpec, *, report: Report | None = None) -> SealedPart:
    """Fix the current test part of a data set; no image of either part is opened.

    Raises DataError as fix_parts does.
    """
    parts = prepare(spec, report=report, opened=None)
    return SealedPart(spec, load_meta(parts.test), load_meta(parts.development).digest, parts.repairs)


def check_parts(parts: FixedParts) -> DataChecks:
    """Look at both parts of a data set before anything is trained on it.

    The test part stays sealed: its labels and the digests of its images are compared, no image is returned, and no
    network sees one. This is therefore not an opening. Raises DataError if a part is missing or damaged.
    """
    development = parts.development
    validation = development.validation_indices_N
    return compare_parts(
        load_records(development.folder),
        _records_of(parts.test),
        development.class_names,
        validation_start=None if validation is None else len(development.labels_N) - len(validation),
        image_size=development.image_size,
        resizing=development.resizing,
        unused=development.unused,
    )


def _records_of(part: SealedPart) -> PartRecords:
    """Load the records of a test part, which is decoded again if it has none and is damaged."""
    try:
        return load_records(part.cached.folder)
    except DataError:
        return load_records(prepare(part.spec, report=None, opened="test").test)


def open_sealed(part: SealedPart, *, report: Report | None = None) -> ImageDataset:
    """Open a test part from the folder in which it was fixed, after comparing its pixels with their digest.

    The source is read again only if that folder is damaged or missing. Raises DataError if the source does not have the
    same images.
    """
    folder = part.cached.folder
    if is_intact(folder, report=report) and load_meta(folder) == part.cached:
        return replace(load_cached(folder), repairs=part.repairs)
    parts = prepare(part.spec, report=report, opened="test")
    if load_meta(parts.test).digest != part.digest:
        raise DataError(
            f"the cached test images of {part.spec.dataset} are damaged, and its files have changed since they were "
            "decoded: put the old ones back"
        )
    again = f"the cached test images of {part.spec.dataset} were damaged or missing, and have been decoded again"
    return replace(load_cached(parts.test), repairs=parts.repairs or (again,))


def load_test_set(spec: DataSpec, *, report: Report | None = None) -> ImageDataset:
    """Load the current test part of a data set; its classes and image shape are those of the development part.

    Raises DataError as load_development does.
    """
    return open_sealed(fix_test_part(spec, report=report), report=report)
