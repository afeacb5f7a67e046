"""Check whether a candidate stays within the memory limits of a trial, for training and for streaming its batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tuner.architecture.cost import Cost
from tuner.data.stream_limit import StreamLimit
from tuner.errors import SpaceError
from tuner.space.schema import SearchSpace

if TYPE_CHECKING:
    from tuner.architecture.backbone_cost import TailCost

GIB = 2**30


def memory_excess(
    cost: Cost | TailCost, batch_size: int, *, step_bytes: float, stream: StreamLimit | None, has_average: bool = False
) -> tuple[float | None, str]:
    """How far a candidate exceeds its memory limits, in GiB, and why; at most 0 and empty if it does not.

    step_bytes: limit for training. stream: limit for batches, None if images are held in memory. has_average: whether
    training keeps a moving average of the weights. If there are two limits, the one with the larger excess is reported.
    The excess is None if nothing is limited.
    """
    needed = cost.training_bytes(batch_size, has_average=has_average)
    excesses = [] if math.isinf(step_bytes) else [needed - step_bytes]
    reason = ""
    if needed > step_bytes:
        allowed = f"{step_bytes / GIB:.1f} allowed"
        reason = f"its training needs {needed / GIB:.1f} GiB of memory, more than the {allowed}"
    if stream is not None:
        excesses.append(stream.needed_bytes(batch_size) - stream.memory_bytes)
        reason = reason or stream.reason_against(batch_size)
    return max(excesses) / GIB if excesses else None, reason


def check_batch_sizes(space: SearchSpace, stream: StreamLimit | None) -> None:
    """Raise SpaceError if images must be streamed and even the smallest batch of a space does not fit."""
    parameter = space.recipe.batch_size
    smallest = min(parameter.choices) if parameter.choices is not None else parameter.low
    assert smallest is not None
    reason = "" if stream is None else stream.reason_against(smallest)
    if reason:
        raise SpaceError(
            f"space {space.name!r}: recipe.batch_size: even the smallest is too large: {reason}; "
            "give smaller ones, or a smaller --image-size"
        )
