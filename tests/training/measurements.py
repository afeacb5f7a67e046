"""Engines that are tested, and measurements as they would be made on machines where just their choices pay."""

import torch

from tuner.hardware import device_kind
from tuner.training.engine import Engine
from tuner.training.engine_choices import CHOICES, SLOWER, ChoiceVerdict, Measurement, Runners

FUSED = Engine(channels_last=True, blocks="fused", early_pooling=True, byte_dropout=True, optimizer="fused")
"""The fast ways of a CPU, in fp32."""


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
