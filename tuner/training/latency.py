"""Measure how long a network takes for one image, on the device that it was trained on."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from tuner.architecture.shapes import Shape
from tuner.training.engine import Engine
from tuner.training.process_settings import exact_arithmetic

NUM_WARM_UP, NUM_MEASURED = 3, 25
MAX_SECONDS = 0.02
"""Time for all measured passes together. A network that is too slow for NUM_MEASURED passes is measured fewer times."""


def measure_latency(model: nn.Module, image_shape: Shape, *, engine: Engine) -> float:
    """Return the median milliseconds of a forward pass for one fp32 image (C, H, W), with the model in eval mode.

    This uses no random numbers, and restores the mode of the model. If several runners work at the same time, they slow
    this measurement down as they do the trial itself.
    """
    was_training = model.training
    model.eval()
    layout = torch.channels_last if engine.channels_last else torch.contiguous_format
    device = torch.device(engine.device)
    image_1CHW = torch.zeros(1, *image_shape, device=device).contiguous(memory_format=layout)
    wait = _waiting_for(device)
    milliseconds: list[float] = []
    with torch.inference_mode(), exact_arithmetic():
        for _ in range(NUM_WARM_UP):
            model(image_1CHW)
        wait()
        started = time.perf_counter()
        while len(milliseconds) < NUM_MEASURED and time.perf_counter() - started < MAX_SECONDS:
            before = time.perf_counter()
            model(image_1CHW)
            wait()
            milliseconds.append(1e3 * (time.perf_counter() - before))
    model.train(was_training)
    return median(milliseconds)


def _waiting_for(device: torch.device) -> Callable[[], None]:
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None
