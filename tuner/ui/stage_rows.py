"""The rows of a backbone's stages in the table of a network's layers."""

from __future__ import annotations

from collections.abc import Iterator

from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.backbone_stages import stages_of


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
