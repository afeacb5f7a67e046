import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

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
