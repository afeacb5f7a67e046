"""The choices of an engine: the alternatives that may be faster on a device, and what was measured for each."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from tuner.training.engine import Engine
from tuner.training.unused_memory import keep_freed_memory

MIN_GAIN = 1.02
"""A fast alternative is used if it is at least this many times faster in the mean over the timed networks.

Smaller differences are noise.
"""
TIE = 0.97
"""The same minimum for alternatives that pay off where the timed network does not show it.

They help on larger networks, or on denormal numbers, which appear late in training as weights decay. They need only be
about as fast as the plain way here.
"""
MAX_LOSS = 1.25
"""A fast alternative is not used if a step takes more than this many times as long on the network of any block family.

A gain on other families does not make up for such a loss. Smaller losses are within the noise of a single network, and
count in the mean.
"""
FAILED = "failed: "
"""Start of the problem text of an alternative that could not be computed."""
SLOWER = "no faster"
"""Start of the problem text of an alternative that was timed but not checked, because it is no faster."""
WORDS = {"on": True, "off": False}
"""How `--engine` writes the values of a choice that is either on or off."""


@dataclass(frozen=True)
class Choice:
    """A field of Engine that has a plain value and one that may be faster.

    requires: values that must already have been chosen. brings: values that the fast value depends on, and that are
    chosen together with it.
    tried_with: other choices that are set to their fast values while this one is tried, and are judged separately
    afterwards.
    min_gain: how many times faster the fast value must be.
    """

    name: str
    plain: Any
    fast: Any
    requires: Mapping[str, Any] = field(default_factory=dict)
    brings: Mapping[str, Any] = field(default_factory=dict)
    tried_with: Sequence[str] = ()
    min_gain: float = MIN_GAIN

    def engine(self, base: Engine) -> Engine:
        """Return the engine with the fast value, and with the values that come with it."""
        changes: dict[str, Any] = {self.name: self.fast, **self.brings, **dict.fromkeys(self.tried_with, True)}
        return replace(base, **changes)

    @property
    def needs(self) -> Mapping[str, Any]:
        """The values of other fields that the fast value depends on."""
        return {**self.requires, **self.brings}


CHOICES: dict[str, tuple[Choice, ...]] = {
    "cpu": (
        Choice("keep_freed_memory", False, True, min_gain=TIE),
        Choice("flush_denormals", False, True, min_gain=TIE),
        Choice("channels_last", False, True),
        # The only layout that fused blocks know.
        Choice(
            "blocks",
            "layers",
            "fused",
            brings={"channels_last": True},
            tried_with=("early_pooling", "byte_dropout"),
        ),
        Choice("early_pooling", False, True, requires={"blocks": "fused"}),
        Choice("byte_dropout", False, True, requires={"blocks": "fused"}),
        Choice("precision", "fp32", "bf16"),
        Choice("optimizer", "foreach", "fused", min_gain=TIE),
        Choice("seeds_together", False, True),
    ),
    "cuda": (
        Choice("channels_last", False, True),
        Choice("tf32", False, True),
        Choice("precision", "fp32", "bf16"),
        Choice("optimizer", "foreach", "fused", min_gain=TIE),
        Choice("graph", False, True, brings={"optimizer": "fused"}),
        Choice("seeds_together", False, True),
    ),
    "mps": (),
}
"""Choices by type of device, in the order in which they are tried. Each is tried on top of those already chosen."""


@dataclass(frozen=True)
class ChoiceVerdict:
    """What was measured for a choice, and whether the engine has its fast value.

    The seconds of a step for one seed, plain and fast, are means over the timed networks. They are None if the choice
    was not tried. problem: why the fast value is not used. comes_with: the choice that brought it, if it was not chosen
    for its own speed.
    """

    name: str
    plain: Any
    fast: Any
    seconds_plain: float | None
    seconds_fast: float | None
    problem: str
    is_taken: bool
    comes_with: str = ""

    @property
    def has_failed(self) -> bool:
        """Whether the device failed to compute the fast way or the plain way."""
        return self.problem.startswith(FAILED)


@dataclass(frozen=True)
class Runners:
    """How many trials a device can train at once, and why. `num_threads` is for a runner that has the CPU to itself."""

    count: int
    num_threads: int
    why: str


@dataclass(frozen=True)
class Measurement:
    """The engine for a device and an input shape, with the evidence for it. kind: `device_kind` of the device.

    problem: why the plain step is used although faster alternatives were found individually. not_kept: why it could not
    be cached, so that it will be measured again.
    """

    engine: Engine
    verdicts: tuple[ChoiceVerdict, ...]
    runners: Runners
    kind: str
    problem: str = ""
    not_kept: str = ""

    def __str__(self) -> str:
        """One line for a log: which fast alternatives are used, and which are not and why."""
        taken = [verdict.name for verdict in self.verdicts if verdict.is_taken]
        left_out = [f"{verdict.name} ({verdict.problem})" for verdict in self.verdicts if not verdict.is_taken]
        how = ", ".join(taken) or "the plain step"
        why = f", as {self.problem}" if self.problem else ""
        return f"engine: {how}{why}" + (f"; not used: {', '.join(left_out)}" if left_out else "")

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object that `from_json` reads back."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Measurement:
        """Read the measurement in a JSON object. Raises TypeError or KeyError for anything else."""
        verdicts = tuple(ChoiceVerdict(**verdict) for verdict in data["verdicts"])
        engine, runners = Engine.from_json(data["engine"]), Runners(**data["runners"])
        return Measurement(engine, verdicts, runners, data["kind"], data["problem"])


def unmet_need(choice: Choice, engine: Engine) -> str:
    """The value that an engine lacks for the fast value of a choice, as in `needs blocks=fused`; empty if none."""
    lacks = any(getattr(engine, name) != value for name, value in choice.requires.items())
    return f"needs {written(choice.requires)}" if lacks else ""


def no_effect(choice: Choice) -> str:
    """Why the fast value of a choice would change nothing on this machine; empty if it would change something.

    To find out, this function sets the process to the plain value.
    """
    if choice.name == "keep_freed_memory" and (sys.platform != "linux" or not keep_freed_memory(False)):
        return "has no effect: the C library is not glibc"
    if choice.name == "flush_denormals" and not torch.set_flush_denormal(False):
        return "has no effect: torch does not support it on this CPU"
    return ""


def verdicts_of(
    engine: Engine, verdicts: Sequence[ChoiceVerdict], choices: Sequence[Choice]
) -> tuple[ChoiceVerdict, ...]:
    """Update the verdicts to match the final engine, since a later choice may have brought the value of another one."""
    corrected = []
    for verdict in verdicts:
        if getattr(engine, verdict.name) == verdict.fast and not verdict.is_taken:
            taken = [choice for choice in choices if getattr(engine, choice.name) == choice.fast]
            brought = next((choice.name for choice in taken if verdict.name in choice.brings), "")
            verdict = replace(verdict, problem="", is_taken=True, comes_with=brought)
        corrected.append(verdict)
    return tuple(corrected)


def written(values: Mapping[str, Any]) -> str:
    """Format the values of choices in the syntax of `--engine`."""
    return ",".join(f"{name}={word(value)}" for name, value in values.items())


def word(value: object) -> str:
    """Format one value of a choice in the syntax of `--engine`."""
    return next((word for word, known in WORDS.items() if known is value), str(value))
