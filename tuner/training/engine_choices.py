"""The choices of an engine: what may be faster on which type of device, and what was measured of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from tuner.training.engine import Engine
from tuner.training.unused_memory import keep_freed_memory

MIN_GAIN = 1.02
"""A fast way is taken when it is at least this much faster: below that, noise decides."""
TIE = 0.97
"""The same for a way that is known to pay where the timed network does not show it: it must be no slower here.

That is on larger networks, and on denormal numbers, which come up late in a training, as weights decay.
"""
FAILED = "failed: "
"""What the problem of a way begins with that could not be computed."""
SLOWER = "no faster"
"""The problem of a way that was timed and not checked."""
WORDS = {"on": True, "off": False}
"""How the values of a choice that is taken or not are written."""


@dataclass(frozen=True)
class Choice:
    """A field of Engine that has a plain value and one that may be faster.

    requires: what must have been taken before. brings: what the fast value cannot be without, and is taken with it.
    tried_with: choices that are fast when this one is tried, and are then judged each by itself.
    min_gain: how many times faster it must be to be taken.
    """

    name: str
    plain: Any
    fast: Any
    requires: Mapping[str, Any] = field(default_factory=dict)
    brings: Mapping[str, Any] = field(default_factory=dict)
    tried_with: Sequence[str] = ()
    min_gain: float = MIN_GAIN

    def engine(self, base: Engine) -> Engine:
        """The engine with the fast value, and with what comes with it."""
        changes: dict[str, Any] = {self.name: self.fast, **self.brings, **dict.fromkeys(self.tried_with, True)}
        return replace(base, **changes)

    @property
    def needs(self) -> Mapping[str, Any]:
        """What the fast value cannot be without."""
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
"""By type of device, in the order in which they are tried, each on top of those already taken."""


@dataclass(frozen=True)
class ChoiceVerdict:
    """What was measured of a choice, and whether the engine has its fast value.

    Seconds of a seed's step, plain and fast, are None where it was not tried. problem: why it is not taken.
    comes_with: the choice that brought it, where it was not taken for its own sake.
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
        """Whether the device could not compute the fast way, or the plain one."""
        return self.problem.startswith(FAILED)


@dataclass(frozen=True)
class Runners:
    """How many trials at once a device bears, and why. `num_threads` is for a runner that has the CPU to itself."""

    count: int
    num_threads: int
    why: str


@dataclass(frozen=True)
class Measurement:
    """The engine for a device and an input shape, with the evidence. kind: of the device, as `device_kind` words it.

    problem: why the plain step is used although faster ways were found, one by one. not_kept: why it had to be measured
    and will be again.
    """

    engine: Engine
    verdicts: tuple[ChoiceVerdict, ...]
    runners: Runners
    kind: str
    problem: str = ""
    not_kept: str = ""

    def __str__(self) -> str:
        """Which fast ways are used and which are not, with the reason, as a line of a log."""
        taken = [verdict.name for verdict in self.verdicts if verdict.is_taken]
        left_out = [f"{verdict.name} ({verdict.problem})" for verdict in self.verdicts if not verdict.is_taken]
        how = ", ".join(taken) or "the plain step"
        why = f", as {self.problem}" if self.problem else ""
        return f"engine: {how}{why}" + (f"; not used: {', '.join(left_out)}" if left_out else "")

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `from_json` reads it back."""
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Measurement:
        """The measurement in a JSON object. Raises TypeError or KeyError for anything else."""
        verdicts = tuple(ChoiceVerdict(**verdict) for verdict in data["verdicts"])
        engine, runners = Engine.from_json(data["engine"]), Runners(**data["runners"])
        return Measurement(engine, verdicts, runners, data["kind"], data["problem"])


def unmet_need(choice: Choice, engine: Engine) -> str:
    """What an engine lacks for the fast value of a choice, as in `needs blocks=fused`; empty when nothing."""
    lacks = any(getattr(engine, name) != value for name, value in choice.requires.items())
    return f"needs {written(choice.requires)}" if lacks else ""


def no_effect(choice: Choice) -> str:
    """Why the fast value of a choice would change nothing on this machine; empty where it would.

    To find out, this process is set to the plain value.
    """
    if choice.name == "keep_freed_memory" and (sys.platform != "linux" or not keep_freed_memory(False)):
        return "does nothing here: the C library is not glibc"
    if choice.name == "flush_denormals" and not torch.set_flush_denormal(False):
        return "does nothing here: torch cannot have this CPU do it"
    return ""


def verdicts_of(
    engine: Engine, verdicts: Sequence[ChoiceVerdict], choices: Sequence[Choice]
) -> tuple[ChoiceVerdict, ...]:
    """The verdicts with what an engine has in the end: a choice may come with another that was taken later."""
    corrected = []
    for verdict in verdicts:
        if getattr(engine, verdict.name) == verdict.fast and not verdict.is_taken:
            taken = [choice for choice in choices if getattr(engine, choice.name) == choice.fast]
            brought = next((choice.name for choice in taken if verdict.name in choice.brings), "")
            verdict = replace(verdict, problem="", is_taken=True, comes_with=brought)
        corrected.append(verdict)
    return tuple(corrected)


def written(values: Mapping[str, Any]) -> str:
    """Values of choices as `--engine` takes them."""
    return ",".join(f"{name}={word(value)}" for name, value in values.items())


def word(value: object) -> str:
    """A value of a choice as `--engine` takes it."""
    return next((word for word, known in WORDS.items() if known is value), str(value))
