"""Whether a candidate has no more parameters than its space allows."""

from __future__ import annotations

from tuner.architecture.cost import Cost


def size_excess(cost: Cost, max_parameters: int | None) -> tuple[float | None, str]:
    """How far a candidate exceeds the limit, as a share of the limit, and the reason to reject it.

    The share is None if there is no limit. If the candidate is within the limit, the share is at most 0 and the reason
    is empty.
    """
    if max_parameters is None:
        return None, ""
    excess = cost.num_parameters / max_parameters - 1
    reason = f"it has {cost.num_parameters:,} parameters, more than the {max_parameters:,} that its space allows"
    return excess, reason if excess > 0 else ""
