"""BackboneLatencies: one latency in a study for each backbone and image size."""

from __future__ import annotations

from tuner.architecture.any_architecture import AnyArchitecture
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.shapes import Shape


class BackboneLatencies:
    """The first latency that a study has stored for each backbone and image size, which all of its trials show.

    Each runner measures a backbone of its own, and so does a resumed study. Two measurements of the same network differ
    by what else the machine does, and comparing trials by them would be misleading.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, Shape], float] = {}

    def shared(self, architecture: AnyArchitecture, measured: float | None) -> float | None:
        """Return the latency of a trial in milliseconds: for a backbone, that of the first trial that had one."""
        if measured is None or not isinstance(architecture, BackboneNetwork):
            return measured
        return self._known.setdefault((architecture.backbone, architecture.input_shape), measured)
