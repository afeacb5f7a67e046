from typing import Literal

import pytest
import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from tuner.training.schedule import learning_rate_factor

RATE = 0.05
num_steps_of_a_run = pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 7, 10, 100, 997])


def rates_of(scheduler: LRScheduler, optimizer: torch.optim.Optimizer, num_steps: int) -> list[float]:
    """The learning rate at each step, as torch's scheduler sets it."""
    rates = []
    for step in range(num_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < num_steps:
            scheduler.step()
    return rates


def one_parameter() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)


@num_steps_of_a_run
def test_one_cycle_is_torchs_step_by_step(num_steps: int) -> None:
    optimizer = one_parameter()
    scheduler = OneCycleLR(optimizer, max_lr=RATE, total_steps=num_steps, cycle_momentum=False)
    expected = rates_of(scheduler, optimizer, num_steps)
    ours = [RATE * learning_rate_factor("one_cycle", step, num_steps=num_steps) for step in range(num_steps)]
    assert ours == pytest.approx(expected, rel=1e-9)


@num_steps_of_a_run
def test_cosine_is_torchs_step_by_step(num_steps: int) -> None:
    optimizer = one_parameter()
    expected = rates_of(CosineAnnealingLR(optimizer, T_max=num_steps), optimizer, num_steps)
    ours = [RATE * learning_rate_factor("cosine", step, num_steps=num_steps) for step in range(num_steps)]
    assert ours == pytest.approx(expected, rel=1e-6)


@num_steps_of_a_run
def test_constant_is_constant(num_steps: int) -> None:
    assert {learning_rate_factor("constant", step, num_steps=num_steps) for step in range(num_steps)} == {1.0}


@pytest.mark.parametrize(
    ("warm_up", "num_steps", "num_warm"), [(0.1, 100, 10), (0.05, 997, 50), (0.5, 4, 2), (0.9, 2, 2)]
)
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_warm_up_is_torchs_linear_one_and_the_schedule_follows_it(
    schedule: Literal["constant", "cosine"], warm_up: float, num_steps: int, num_warm: int
) -> None:
    optimizer = one_parameter()
    rise = LinearLR(optimizer, start_factor=1 / (num_warm + 1), total_iters=num_warm)
    rest: LRScheduler = ConstantLR(optimizer, factor=1.0)
    if schedule == "cosine":
        rest = CosineAnnealingLR(optimizer, T_max=max(1, num_steps - num_warm))
    expected = rates_of(SequentialLR(optimizer, [rise, rest], milestones=[num_warm]), optimizer, num_steps)
    ours = [
        RATE * learning_rate_factor(schedule, step, num_steps=num_steps, warm_up=warm_up) for step in range(num_steps)
    ]
    assert ours == pytest.approx(expected, rel=1e-6)


def test_a_warm_up_of_four_steps_rises_by_a_fifth_of_the_rate() -> None:
    factors = [learning_rate_factor("constant", step, num_steps=10, warm_up=0.4) for step in range(6)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_a_one_cycle_schedule_has_no_other_warm_up() -> None:
    with_and_without = [
        [learning_rate_factor("one_cycle", step, num_steps=20, warm_up=share) for step in range(20)]
        for share in (0.0, 0.5)
    ]
    assert with_and_without[0] == with_and_without[1]
