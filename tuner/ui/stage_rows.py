"""The rows of a backbone's stages in the table of a network's layers, and its weights in words."""

from __future__ import annotations

from collections.abc import Iterator

from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.backbone_stages import stages_of
from tuner.space.backbone_space import UNKNOWN_WEIGHTS


def stage_rows(network: BackboneNetwork) -> Iterator[tuple[str, ...]]:
    """Part, modules, output, (no) arithmetic, parameters and FLOPs of each stage."""
    for number, stage in enumerate(stages_of(network), start=1):
        yield (
            f"stage {number}, frozen" if stage.is_frozen else f"stage {number}",
            ", ".join(stage.modules),
            "x".join(map(str, stage.output_shape)),
            "",
            f"{stage.num_parameters:,}",
            f"{stage.flops:,}",
        )


def weights_in_words(network: BackboneNetwork) -> str:
    """Describe the weights of a backbone, and the images that the stages behind the frozen ones are trained on.

    A crop fraction is omitted if it is that of the weights.
    """
    words = "pretrained" if network.weights == UNKNOWN_WEIGHTS else f"pretrained ({network.weights})"
    if network.crop_fraction:
        words += f"; crop fraction {network.crop_fraction:g}"
    if network.views:
        words += f"; trained on every image and {network.views} augmented view{'s' if network.views > 1 else ''} of it"
    return words
