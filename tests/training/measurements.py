"""Engines that are tested, and measurements as they would be made on machines where just their choices pay."""

import torch

from tuner.hardware import device_kind
from tuner.training.engine import Engine
from tuner.training.engine_choices import CHOICES, SLOWER, ChoiceVerdict, Measurement, Runners
from tuner.training.family_networks import FAMILY_NETWORKS
from tuner.training.timing import NetworkTimes, StepTimes

FUSED = Engine(channels_last=True, blocks="fused", early_pooling=True, byte_dropout=True, optimizer="fused")
"""The fast ways of a CPU, in fp32."""


def step_times(plain: float, fast: float, /, **fast_on: float) -> StepTimes:
    """Seconds of a step on the network of each family; `fast_on` names families on which the fast engine differs."""
    by_family = {family: fast_on.get(family, fast) for family in FAMILY_NETWORKS}
    return StepTimes({family: NetworkTimes(plain, seconds, seconds) for family, seconds in by_family.items()})


def measurement_of(engine: Engine, *, kind: str | None = None) -> Measurement:
    """A measurement that has come to this engine, with a verdict on every choice of its device.

    kind: of the device; that of the real one when left out.
    """
    device = torch.device(engine.device)
    verdicts = [
        ChoiceVerdict(choice.name, choice.plain, choice.fast, 1.0, 0.5, "" if is_taken else SLOWER, is_taken)
        for choice in CHOICES[device.type]
        for is_taken in [getattr(engine, choice.name) == choice.fast]
    ]
    return Measurement(engine, tuple(verdicts), Runners(1, 1, "rehearsed"), kind or device_kind(device))
