"""Parameter: a key of a search space that is a fixed value, a list of choices, or a range."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

T = TypeVar("T")
MAX_STEPS = 1_000_000
"""Maximum number of steps of a range, because Optuna counts steps in decimal arithmetic."""
Flag = Annotated[bool, Field(strict=True)]


class Strict(BaseModel):
    """Part of a search space: frozen, without unknown keys, and with finite numbers only."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Parameter(Strict, Generic[T]):
    """A fixed value, a list of choices, or a range.

    In TOML: `3`, `[3, 5]`, `{ choices = [3, 5], shared = true }`, `{ low = 8, high = 64, step = 8 }`. A range includes
    both ends, and has only whole numbers if both ends are whole. `shared`: one value for all blocks, or for all stages.
    """

    choices: Annotated[list[T], Field(min_length=1)] | None = None
    low: T | None = None
    high: T | None = None
    step: T | None = None
    log: Flag = False
    shared: Flag = False

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, value: object) -> object:
        if isinstance(value, dict | BaseModel):
            return value
        return {"choices": value if isinstance(value, list) else [value]}

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_form()
        return self

    def _check_form(self) -> None:
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("give either choices or a range (low, high), not both")
            repeated = [choice for choice in self.choices if self.choices.count(choice) > 1]
            if repeated:
                raise ValueError(f"choices must differ, got {repeated[0]!r} more than once")
        else:
            _check_range(self.low, self.high, self.step, log=self.log)

    def __str__(self) -> str:
        if self.choices is not None:
            words = " | ".join(map(str, self.choices))
        else:
            words = f"{self.low} to {self.high}"
            words += f" by {self.step}" if self.step is not None else ""
            words += ", log" if self.log else ""
        return f"{words}, one for all blocks" if self.shared else words

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to sample."""
        return self.choices is not None and len(self.choices) == 1

    @property
    def default(self) -> T:
        """The first choice, or the low end."""
        value = self.choices[0] if self.choices else self.low
        assert value is not None
        return value

    @property
    def values(self) -> list[T]:
        """Every value of choices or of a range of whole numbers."""
        if self.choices is not None:
            return self.choices
        low, high, step = cast(int, self.low), cast(int, self.high), cast(int | None, self.step)
        return cast(list[T], list(range(low, high + 1, step or 1)))


def _check_range(low: object, high: object, step: object, *, log: bool) -> None:
    if not isinstance(low, int | float) or not isinstance(high, int | float):
        raise ValueError(
            f"needs choices, or a range of numbers from low to high, got low = {low!r} and high = {high!r}"
        )
    if not low < high:
        raise ValueError(f"a range needs low < high, got low = {low} and high = {high}")
    if log and (low <= 0 or step is not None):
        raise ValueError(f"a log range needs low > 0 and no step, got low = {low} and step = {step}")
    if isinstance(step, int | float):
        num_steps = (high - low) / step if step > 0 else 0.0
        if not 0 < num_steps <= MAX_STEPS or abs(num_steps - round(num_steps)) > 1e-9:
            rule = f"high must be low plus at most {MAX_STEPS:,} whole steps"
            raise ValueError(f"{rule}, got low = {low}, high = {high}, step = {step}")


class Rate(Parameter[T], Generic[T]):
    """A parameter of the optimizer: one for all of them, or a table of one for each."""

    adam: Parameter[T] | None = None
    adamw: Parameter[T] | None = None
    sgd: Parameter[T] | None = None
    sgdw: Parameter[T] | None = None
    muon: Parameter[T] | None = None

    @property
    def by_optimizer(self) -> dict[str, Parameter[T]]:
        """The table of one parameter for each optimizer; empty when one serves for all."""
        own = {"adam": self.adam, "adamw": self.adamw, "sgd": self.sgd, "sgdw": self.sgdw, "muon": self.muon}
        return {optimizer: parameter for optimizer, parameter in own.items() if parameter is not None}

    def _check_form(self) -> None:
        if not self.by_optimizer:
            super()._check_form()
        elif self.choices or (self.low, self.high, self.step, self.log, self.shared) != (
            None,
            None,
            None,
            False,
            False,
        ):
            raise ValueError("give either one parameter for all optimizers or one for each, not both")


def fixed(value: object) -> Any:
    """Default of a key that a space may omit."""
    return Field(default=value, validate_default=True)


class Unshared(Strict):
    """A section whose keys are drawn once in each trial, so that none can be `shared`."""

    @model_validator(mode="after")
    def _check_shared(self) -> Self:
        for name, parameter in self:
            if parameter.shared:
                raise ValueError(f"{name}: shared belongs in [block]; here there is one draw anyway")
        return self
