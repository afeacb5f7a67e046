"""choose_space: the search space of a new study for which none is given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tuner.architecture.spec import InputSpec
from tuner.data.dataset import Report
from tuner.pretrained.downloads import Unavailable
from tuner.search.study_backbones import with_available_weights
from tuner.space.automatic_space import automatic_space
from tuner.space.schema import SearchSpace
from tuner.space.toml_file import load_space


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
