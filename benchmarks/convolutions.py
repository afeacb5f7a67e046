"""Seconds that a network's convolutions take alone, forward and backward. No step with them can be faster."""

from __future__ import annotations

import json
import time
from statistics import median

import torch
from torch import nn

from tuner.architecture.any_architecture import as_traced
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.layer_modules import build_layer
from tuner.architecture.parts import layers_of
from tuner.architecture.trace import trace
from tuner.training.candidate import Candidate
from tuner.training.engine import Engine
from tuner.training.process_settings import prepare_process
from tuner.training.step import input_dtype, place, prepare_forward

MIN_REPEATS, MAX_REPEATS, TIMED_SECONDS = 3, 15, 0.1


def seconds_in_convolutions(candidate: Candidate, *, engine: Engine, num_images: int) -> float:
    """Seconds of all convolutions in an epoch of `num_images` images, in the precision and layout of the engine.

    Each convolution runs alone and repeatedly on the same values. In a step it may be slower but not faster, because
    other layers use the caches too.
    """
    prepare_process(engine)
    layers = [layer for layer in layers_of(trace(as_traced(candidate.architecture))) if layer.kind == "Conv2d"]
    known: dict[str, float] = {}
    total = 0.0
    for position, layer in enumerate(layers):
        key = json.dumps([layer.arguments, layer.input_shape, position == 0])
        if key not in known:
            known[key] = step_seconds(layer, candidate, engine=engine, is_first=position == 0)
        total += known[key]
    return total * num_images / candidate.recipe.batch_size


def step_seconds(layer: Layer, candidate: Candidate, *, engine: Engine, is_first: bool) -> float:
    """Median seconds of one convolution for one batch. The first one's input is the images, which need no gradient."""
    model = nn.Sequential(build_layer(layer)).train()
    place(model, engine)
    forward = prepare_forward(model, engine=engine)
    layout = torch.channels_last if engine.channels_last else torch.contiguous_format
    x_NCHW = torch.randn(candidate.recipe.batch_size, *layer.input_shape)
    x_NCHW = x_NCHW.to(engine.device, dtype=input_dtype(engine)).contiguous(memory_format=layout)
    x_NCHW.requires_grad_(not is_first)
    grad_NCHW = torch.randn_like(forward(x_NCHW)).contiguous(memory_format=layout)
    times: list[float] = []
    while len(times) < MIN_REPEATS + 1 or (len(times) < MAX_REPEATS and sum(times) < TIMED_SECONDS):
        synchronise(engine)
        started = time.perf_counter()
        forward(x_NCHW).backward(grad_NCHW)  # type: ignore[no-untyped-call]
        synchronise(engine)
        times.append(time.perf_counter() - started)
        x_NCHW.grad = None
        model.zero_grad()
    return median(times[1:])


def synchronise(engine: Engine) -> None:
    """Wait until the device has computed what it was given."""
    torch.zeros((), device=engine.device).item()
