"""Whether a candidate has no more parameters than its space allows."""

from __future__ import annotations

from tuner.architecture.cost import Cost


def size_excess(cost: Cost, max_parameters: int | None) -> tuple[float | None, str]:
    """How far a candidate is beyond the limit, as a share of it, and why; at most 0 and empty for one that keeps to it.

    None where there is no limit.
    """
    if max_parameters is None:
        return None, ""
    excess = cost.num_parameters / max_parameters - 1
    reason = f"it has {cost.num_parameters:,} parameters, more than the {max_parameters:,} that its space allows"
    return excess, reason if excess > 0 else ""
