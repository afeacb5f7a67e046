"""Learning-rate schedules as pure functions of the step."""

from __future__ import annotations

from math import cos, pi

from tuner.training.candidate import Schedule

WARM_UP = 0.3
"""Share of the steps of a one-cycle schedule in which the rate rises."""
START_DIVISOR, FINAL_DIVISOR = 25.0, 25.0 * 1e4
"""Peak rate of a one-cycle schedule divided by its first and by its last rate."""


def learning_rate_factor(schedule: Schedule, step: int, *, num_steps: int, warm_up: float = 0.0) -> float:
    """Learning rate of a step (0 <= step < num_steps) as a factor of the recipe's rate.

    `warm_up` is the share of the steps in which the rate of the other two schedules first rises linearly, to the full
    rate in the step after them. One-cycle has a rise of its own.

    Source: torch.optim.lr_scheduler, CosineAnnealingLR (to zero, over all steps after the warm-up) and OneCycleLR
    (cosine annealing, torch's default shape, constant momentum). Warm-up: Goyal et al., Accurate, Large Minibatch SGD,
    2017, section 2.2.
    """
    num_warm = 0 if schedule == "one_cycle" else round(warm_up * num_steps)
    if step < num_warm:
        return (step + 1) / (num_warm + 1)
    if schedule == "cosine":
        return (1 + cos(pi * (step - num_warm) / (num_steps - num_warm))) / 2
    if schedule == "one_cycle":
        peak = WARM_UP * num_steps - 1
        if step <= peak:
            return _anneal(1 / START_DIVISOR, 1.0, step / peak)
        return _anneal(1.0, 1 / FINAL_DIVISOR, (step - peak) / (num_steps - 1 - peak))
    return 1.0


def _anneal(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + cos(pi * share))
