"""The search space of a run, with the weights and the image sizes of its backbones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tuner.architecture.spec import InputSpec
from tuner.data.dataset import Report
from tuner.pretrained.downloads import Unavailable
from tuner.search.backbone_images import with_image_size
from tuner.search.study_backbones import with_available_weights, with_weights
from tuner.space.automatic_space import automatic_space
from tuner.space.large_backbones import without_large_backbones
from tuner.space.schema import SearchSpace
from tuner.space.toml_file import load_space


def space_of_run(
    given: SearchSpace | None,
    stored: SearchSpace | None,
    images: InputSpec,
    weights: Mapping[str, Path],
    *,
    cache_dir: Path,
    is_bundled: bool,
    download: bool = True,
    image_size: tuple[int, int] | None = None,
    report: Report | None = None,
) -> tuple[SearchSpace, list[str]]:
    """Return the space of a run with the available weights, the image size of each backbone, and notes.

    given: the space that was asked for, or the present version of the stored one; if there is none, a space is chosen
    that suits the images. stored: the space of a study that is resumed. weights: given files by backbone. is_bundled:
    whether the given space comes with tuner; the weights of any other space must all be there. image_size: (height,
    width) if the user sets it. Weights are downloaded if `download` allows it; report: is called with the progress.
    Raises BackboneError for weights that are not available, SpaceError for a space that is left without a backbone,
    OptionError for weights or an image size that the space cannot have, and StudyError for those that a stored space
    does not have.
    """
    size_notes: list[str] = []
    if given is None:
        space, notes = choose_space(
            images, weights, cache_dir=cache_dir, download=download, image_size=image_size, report=report
        )
    else:
        if stored is None:
            given, size_notes = without_large_backbones(given, images, given=weights)
        space, notes = with_weights(
            given, weights, stored, cache_dir=cache_dir, is_named=not is_bundled, download=download, report=report
        )
    return with_image_size(space, image_size, stored), [*size_notes, *notes]


def choose_space(
    images: InputSpec,
    weights: Mapping[str, Path],
    *,
    cache_dir: Path,
    download: bool = True,
    image_size: tuple[int, int] | None = None,
    report: Report | None = None,
) -> tuple[SearchSpace, list[str]]:
    """Return the bundled space that suits a data set, with the weights of its backbones, and notes with the reason.

    weights: given files by backbone. image_size: (height, width) if the user sets it; pretrained networks take only
    square images then. Weights are looked for, and downloaded if `download` allows it, only if the images are large
    enough for pretrained networks. report: is called with the progress of downloads. Raises BackboneError as
    with_available_weights, except if no weights are available.
    """
    reason = None
    if image_size is not None and image_size[0] != image_size[1]:
        reason = "its images must be square, and --image-size is {}x{}".format(*image_size)
    name, note = automatic_space(images.shape, are_weights_given=bool(weights), without_weights=reason)
    space = load_space(name)
    if space.backbone is None:
        return space, [note]
    try:
        space, notes = with_available_weights(
            space, weights, cache_dir=cache_dir, is_named=False, download=download, report=report
        )
    except Unavailable as error:
        name, note = automatic_space(images.shape, without_weights=str(error))
        return load_space(name), [note]
    return space, [note, *notes]
