"""Engine: how training steps are computed, as a value that the study stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from tuner.formats import refuse_newer_format

ENGINE_FORMAT = 1
"""Raised when an engine of a later version would be read wrongly by this one; a new field raises nothing."""


@dataclass(frozen=True)
class Engine:
    """How training steps are computed. The study stores it, so that a resumed study computes in the same way.

    The defaults are the plain PyTorch way, and every alternative is checked against it.

    device: name of the torch device. num_threads: threads of each runner on a CPU.
    precision: of activations; weights, optimizer state and scores are always fp32.
    blocks: `layers` runs torch's modules one after another, and `fused` runs a whole block as one autograd node (CPU).
    early_pooling: in fused blocks, a monotone activation runs after max pooling, on a quarter of the values.
    byte_dropout: in fused blocks, dropout masks use one random byte for each element.
    optimizer: implementation in torch.optim.
    keep_freed_memory: glibc does not return freed memory to the system until the trial ends.
    graph: the whole step is replayed as one CUDA graph. tf32: CUDA may multiply fp32 matrices in TF32.
    seeds_together: when a candidate is trained with several seeds, their models are trained in the same steps, as one
    network.
    """

    device: str = "cpu"
    num_threads: int = 1
    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = False
    blocks: Literal["layers", "fused"] = "layers"
    early_pooling: bool = False
    byte_dropout: bool = False
    optimizer: Literal["foreach", "fused"] = "foreach"
    flush_denormals: bool = False
    keep_freed_memory: bool = False
    tf32: bool = False
    graph: bool = False
    seeds_together: bool = False

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `Engine.from_json` reads it back."""
        return {"format": ENGINE_FORMAT, **asdict(self)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Engine:
        """The engine in a JSON object; fields that it lacks have the plain way, as before there was a choice.

        An object without a format number is of format 1. Raises NewerFormatError, ValueError for no format number, and
        TypeError for a field of a newer version.
        """
        refuse_newer_format(data, known=ENGINE_FORMAT, what="engines")
        return Engine(**{name: value for name, value in dict(data).items() if name != "format"})


def tail_engine(engine: Engine) -> Engine:
    """Return the engine for layers of other libraries: layer by layer, in fp32, without a CUDA graph."""
    return replace(engine, blocks="layers", precision="fp32", graph=False)
