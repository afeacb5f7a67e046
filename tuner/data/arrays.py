"""Data sets that come as arrays, prepared by the same image rule as image files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tuner.data.dataset import DecodablePart, DecodableSource, Decoding, Report
from tuner.data.digests import hash_array
from tuner.data.image_records import describe_pixels, unknown_sources
from tuner.data.image_rule import ImageRule, choose_rule
from tuner.data.images import ImageFacts, picture_from, pixels_from
from tuner.data.reading import Levels, vanishes_over
from tuner.data.threads import map_in_threads
from tuner.errors import DataError


@dataclass(frozen=True, eq=False)
class ArrayPart:
    """images_NCHW: uint8 with 1, 3 or 4 channels; labels_N: int64. Rows from validation_start on are for validation.

    groups_N: as in ImageDataset.
    """

    images_NCHW: NDArray[np.uint8]
    labels_N: NDArray[np.int64]
    notes: tuple[str, ...] = ()
    validation_start: int | None = None
    groups_N: NDArray[np.int64] | None = None


def source_from_arrays(
    name: str,
    class_names: Sequence[str],
    *,
    development: ArrayPart,
    test: ArrayPart,
    decoding: Decoding,
    levels: Levels | None = None,
) -> DecodableSource:
    """Make a source from arrays, which are resized if the decoding says so or a side is too long.

    The development part determines channels, size and ground. levels: the range from which grey values of more
    than 8 bits were scaled to 0..255, if they were. Raises DataError if images, labels and classes do not match.
    """
    rule = choose_rule(_facts_of(development.images_NCHW), decoding)
    if levels is not None:
        rule = replace(rule, reading=replace(rule.reading, levels=levels))
    first, second = (
        _decodable(part, name=name, num_classes=len(class_names), rule=rule)
        for part in (replace(one, notes=(*one.notes, *rule.notes)) for one in (development, test))
    )
    return DecodableSource(name, tuple(class_names), rule.shape_CHW, first, second, rule.reading, rule.resizing)


def _facts_of(images_NCHW: NDArray[np.uint8]) -> list[ImageFacts]:
    _, channels, height, width = images_NCHW.shape
    facts = ImageFacts(height, width, grey=channels == 1)
    if channels < 4:
        return [facts]
    return [replace(facts, vanishes=vanishes_over(image_4HW.transpose(1, 2, 0))) for image_4HW in images_NCHW]


def _decodable(part: ArrayPart, *, name: str, num_classes: int, rule: ImageRule) -> DecodablePart:
    images_NCHW, labels_N = part.images_NCHW, part.labels_N
    if len(images_NCHW) != len(labels_N) or not len(labels_N):
        raise DataError(
            f"every image must have a label; {name} has {len(images_NCHW):,} images and {len(labels_N):,} labels: "
            "its files are damaged, fetch them again"
        )
    if labels_N.min() < 0 or labels_N.max() >= num_classes:
        raise DataError(
            f"the labels of {name} must be between 0 and {num_classes - 1}; "
            f"they are between {labels_N.min()} and {labels_N.max()}: "
            "its files are damaged, fetch them again"
        )
    channels, height, width = rule.shape_CHW
    resizing = rule.resizing
    sources_N = unknown_sources(len(images_NCHW))

    def describe_sources() -> None:
        rows_NB = np.ascontiguousarray(images_NCHW).reshape(len(images_NCHW), -1)
        sources_N["source"] = describe_pixels(rows_NB)["pixels"]
        sources_N["height"], sources_N["width"] = images_NCHW.shape[2:]

    if images_NCHW.shape[1:] == rule.shape_CHW and resizing.crop_fraction == 1:

        def copy_into(target_NCHW: NDArray[np.uint8], _: Report | None) -> str:
            np.copyto(target_NCHW, images_NCHW)
            describe_sources()
            return hash_array(images_NCHW)

        return DecodablePart(
            labels_N, copy_into, part.validation_start, part.notes, groups_N=part.groups_N, sources_N=sources_N
        )

    def resize(index: int) -> NDArray[np.uint8]:
        picture = picture_from(images_NCHW[index])
        return pixels_from(
            picture, channels=channels, height=height, width=width, reading=rule.reading, resizing=resizing
        )

    def decode_into(target_NCHW: NDArray[np.uint8], report: Report | None) -> str:
        resized = map_in_threads(resize, range(len(images_NCHW)), what=f"converting {name}", report=report)
        for index, image_CHW in enumerate(resized):
            target_NCHW[index] = image_CHW
        describe_sources()
        return hash_array(images_NCHW)

    notes = part.notes
    if images_NCHW.shape[2:] != (height, width) or resizing.crop_fraction < 1:
        own, target, covered = (
            "{}x{}".format(*size)
            for size in (images_NCHW.shape[2:], (height, width), resizing.covered_size((height, width)))
        )
        note = f"images of {own} pixels are {resizing.verb} to cover {covered} (height x width) and centre-cropped"
        notes = (*notes, note if covered == target else f"{note} to {target}")
    return DecodablePart(labels_N, decode_into, part.validation_start, notes, part.groups_N, sources_N)
