"""Values of engine choices that the user forces: `--engine precision=fp32,optimizer=foreach`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from tuner.errors import DeviceError, OptionError
from tuner.training.engine import Engine, tail_engine
from tuner.training.engine_choices import CHOICES, WORDS, Measurement, no_effect, unmet_need, verdicts_of, word, written
from tuner.training.engine_measurement import forms_problem


@dataclass(frozen=True)
class Forced:
    """The choices of the engine that the user has forced, with their values. `str` gives text for `parse_forced`."""

    values: Mapping[str, Any]

    def __str__(self) -> str:
        return written(self.values)

    def differs_from(self, engine: Engine) -> bool:
        """Whether an engine has other values than the forced ones."""
        return any(getattr(engine, name) != value for name, value in self.values.items())


NOTHING_FORCED = Forced({})


def parse_forced(text: str, device: torch.device) -> Forced:
    """Parse `CHOICE=VALUE,...`; `auto` forces nothing.

    A value is on or off, or one of the values that `tuner doctor` lists as plain and fast. Raises OptionError for a
    choice that this type of device does not have, or a value that the choice cannot take.
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


def refuse_without_effect(forced: Forced) -> None:
    """Refuse forced values that pretrained networks, which are layers of other libraries, cannot have.

    Raises OptionError.
    """
    engine = tail_engine(Engine(**forced.values))
    known = {choice.name: choice for choices in CHOICES.values() for choice in choices}
    for name, value in forced.values.items():
        if getattr(engine, name) != value or (value == known[name].fast and unmet_need(known[name], engine)):
            raise OptionError(f"engine: {name}={word(value)} has no effect on pretrained networks: omit it")


def force(measured: Measurement, forced: Forced) -> Measurement:
    """Return a measurement whose engine has the forced values.

    Its other choices stay if they can be combined with these. A forced value is used even if it was measured to be
    slower. It is refused if it has no effect here, or if its results differ from those of the plain step, with one seed
    or with several together. Raises DeviceError.
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
