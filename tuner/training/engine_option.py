"""Ways of computing that are asked for instead of chosen: `--engine precision=fp32,optimizer=foreach`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from tuner.errors import DeviceError, OptionError
from tuner.training.engine import Engine
from tuner.training.engine_choices import CHOICES, WORDS, Measurement, no_effect, unmet_need, verdicts_of, word, written
from tuner.training.engine_measurement import forms_problem


@dataclass(frozen=True)
class Forced:
    """Choices of the engine with the values that were asked for. As text, what `parse_forced` reads."""

    values: Mapping[str, Any]

    def __str__(self) -> str:
        return written(self.values)

    def differs_from(self, engine: Engine) -> bool:
        """Whether an engine computes in another way than was asked for."""
        return any(getattr(engine, name) != value for name, value in self.values.items())


NOTHING_FORCED = Forced({})


def parse_forced(text: str, device: torch.device) -> Forced:
    """Read `CHOICE=VALUE,...`: on or off, or what `tuner doctor` lists as plain and fast. `auto` forces nothing.

    Raises OptionError for a choice that this type of device does not have, and for a value that it cannot take.
    """
    if text == "auto":
        return NOTHING_FORCED
    choices = {choice.name: choice for choice in CHOICES[device.type]}
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, _, asked = (piece.strip() for piece in part.partition("="))
        if name not in choices:
            there = ", ".join(choices) or "none: it always trains in the plain way"
            raise OptionError(f"engine: {name!r} is no choice on {device.type}; there are {there}")
        value = WORDS.get(asked, asked)
        known = (choices[name].plain, choices[name].fast)
        if value not in known:
            raise OptionError(f"engine: {name} must be {' or '.join(map(word, known))}, got {asked!r}")
        if name in values:
            raise OptionError(f"engine: {name} must be given once, got {word(values[name])} and {word(value)}")
        values[name] = value
    return Forced(values)


def force(measured: Measurement, forced: Forced) -> Measurement:
    """A measurement with the engine that is asked for; its other choices stay, where they can without these.

    A way that was measured to be slower is taken all the same; one that does not compute what the plain step computes
    is refused, with one seed as with several together, and so is one that does nothing here. Raises DeviceError.
    """
    if not forced.values:
        return measured
    engine = measured.engine
    choices = CHOICES[torch.device(engine.device).type]
    for choice in choices:
        if choice.name in forced.values:
            value = forced.values[choice.name]
            if value == choice.fast and (reason := no_effect(choice)):
                raise DeviceError(f"engine {forced}: {choice.name}={word(value)} {reason}")
            engine = choice.engine(engine) if value == choice.fast else replace(engine, **{choice.name: value})
    engine = replace(engine, **forced.values)
    for choice in choices:
        needs = choice.needs
        if getattr(engine, choice.name) == choice.fast and any(getattr(engine, name) != needs[name] for name in needs):
            if choice.name in forced.values:
                raise DeviceError(f"engine {forced}: {choice.name}={word(choice.fast)} needs {written(needs)}")
            engine = replace(engine, **{choice.name: choice.plain})
    problem = forms_problem(engine, checked={Engine(device=engine.device, num_threads=engine.num_threads)})
    if problem:
        raise DeviceError(f"engine {forced}: does not train as plain PyTorch does here: {problem}")
    lacks = {choice.name: unmet_need(choice, engine) for choice in choices}
    verdicts = []
    for verdict in measured.verdicts:
        name = verdict.name
        is_fast = getattr(engine, name) == verdict.fast
        reason = "" if is_fast else lacks[name] or verdict.problem or "as asked"
        is_taken = is_fast and (name in forced.values or verdict.is_taken)
        verdicts.append(replace(verdict, is_taken=is_taken, problem=reason, comes_with=""))
    return replace(measured, engine=engine, verdicts=verdicts_of(engine, verdicts, choices), problem="")
