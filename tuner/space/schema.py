"""SearchSpace: the TOML file that says what may be sampled, validated."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Generic, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tuner.architecture.blocks.fields import Activation, Count, DropoutRate, Normalization, Padding, Pooling, Window
from tuner.architecture.spec import FeatureCount, HeadPooling
from tuner.errors import SpaceError, reason_of
from tuner.names import shown_name
from tuner.training.candidate import (
    BatchSize,
    LabelSmoothing,
    LearningRate,
    Momentum,
    Optimizer,
    Schedule,
    WeightDecay,
)

T = TypeVar("T")
MAX_STEPS = 1_000_000
"""Most steps of a range; Optuna counts them in decimal numbers."""
Flag = Annotated[bool, Field(strict=True)]
NumBlocks = Annotated[int, Field(ge=1, le=64, strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Parameter(_Strict, Generic[T]):
    """A fixed value, a list of choices, or a range.

    In TOML: `3`, `[3, 5]`, `{ choices = [3, 5], shared = true }`, `{ low = 8, high = 64, step = 8 }`. A range holds
    both its ends; it is of whole numbers when both ends are. `shared`: one draw for all blocks.
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

    @property
    def by_optimizer(self) -> dict[str, Parameter[T]]:
        """The table of one parameter for each optimizer; empty when one serves for all."""
        own = {"adam": self.adam, "adamw": self.adamw, "sgd": self.sgd}
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


def _fixed(value: T) -> Any:
    """Default of a key that a space may omit."""
    return Field(default=value, validate_default=True)


class _Unshared(_Strict):
    """A section with one draw of each key."""

    @model_validator(mode="after")
    def _check_shared(self) -> Self:
        for name, parameter in self:
            if parameter.shared:
                raise ValueError(f"{name}: shared belongs in [block]; here there is one draw anyway")
        return self


class Network(_Unshared):
    """[network]"""

    num_blocks: Parameter[NumBlocks] = _fixed(2)


class BlockSpace(_Strict):
    """[block]: the plain family; each key is drawn for every block, or once where `shared`."""

    out_channels: Parameter[Count]
    kernel_size: Parameter[Window] = _fixed(3)
    stride: Parameter[Window] = _fixed(1)
    padding: Parameter[Padding] = _fixed("same")
    normalization: Parameter[Normalization] = _fixed("none")
    activation: Parameter[Activation] = _fixed("relu")
    pooling: Parameter[Pooling] = _fixed("none")
    pool_size: Parameter[Window] = _fixed(2)
    pool_stride: Parameter[Window] = _fixed(2)
    dropout: Parameter[DropoutRate] = _fixed(0.0)

    @model_validator(mode="after")
    def _check(self) -> BlockSpace:
        even = [size for size in self.kernel_size.values if size % 2 == 0]
        if "same" in self.padding.values and even:
            raise ValueError(f'kernel_size must be odd where padding may be "same", got {even[0]}')
        return self


class HeadSpace(_Unshared):
    """[head]"""

    pooling: Parameter[HeadPooling] = _fixed("flatten")
    hidden_features: Parameter[FeatureCount] = _fixed(0)
    activation: Parameter[Activation] = _fixed("relu")
    dropout: Parameter[DropoutRate] = _fixed(0.0)


class RecipeSpace(_Unshared):
    """[recipe]: how the networks are trained; the number of epochs is an option of the search."""

    optimizer: Parameter[Optimizer] = _fixed("adam")
    learning_rate: Rate[LearningRate]
    schedule: Parameter[Schedule] = _fixed("constant")
    batch_size: Parameter[BatchSize] = _fixed(64)
    weight_decay: Rate[WeightDecay] = _fixed(0.0)
    momentum: Parameter[Momentum] = _fixed(0.9)
    label_smoothing: Parameter[LabelSmoothing] = _fixed(0.0)

    @model_validator(mode="after")
    def _check(self) -> RecipeSpace:
        for name in ("learning_rate", "weight_decay"):
            rate = getattr(self, name)
            missing = [key for key in self.optimizer.values if rate.by_optimizer and key not in rate.by_optimizer]
            if missing:
                raise ValueError(f"{name} is given per optimizer, but not for {', '.join(missing)}")
        return self


class Configuration(_Strict):
    """[[first]]: a configuration to try first; what it omits takes the first choice or the low end."""

    block: list[dict[str, Any]] = Field(min_length=1)
    head: dict[str, Any] = {}
    recipe: dict[str, Any] = {}


class SearchSpace(_Strict):
    """A search space, as its TOML file says."""

    name: str
    description: str = ""
    network: Network = Network()
    block: BlockSpace
    head: HeadSpace = HeadSpace()
    recipe: RecipeSpace
    first: list[Configuration] = []

    @cached_property
    def max_blocks(self) -> int:
        """The depth of the deepest network."""
        return int(max(self.network.num_blocks.values))

    @cached_property
    def parameters(self) -> dict[str, Parameter[Any]]:
        """Every parameter by its name in the study, fixed ones included, in a stable order.

        All of them are sampled in every trial, whatever the depth and the optimizer drawn: so the sampler sees one
        joint space (Optuna's multivariate TPE samples what is not in every trial independently).
        """
        return dict(self._name_parameters())

    def _name_parameters(self) -> Iterator[tuple[str, Parameter[Any]]]:
        yield "num_blocks", self.network.num_blocks
        for name, parameter in self.block:
            if parameter.shared:
                yield f"block_{name}", parameter
            else:
                for number in range(1, self.max_blocks + 1):
                    yield f"block{number}_{name}", parameter
        for name, parameter in self.head:
            yield f"head_{name}", parameter
        for name, parameter in self.recipe:
            own: dict[str, Parameter[Any]] = parameter.by_optimizer if isinstance(parameter, Rate) else {}
            if own:
                yield from ((f"{name}_{optimizer}", own[optimizer]) for optimizer in self.recipe.optimizer.values)
            else:
                yield name, parameter


def load_space(name_or_path: str) -> SearchSpace:
    """The space of a bundled name (`cnn`) or of a TOML file's path.

    Raises SpaceError with file, key, the rule and the value.
    """
    from tuner.space.sampling import first_params

    path = Path(name_or_path)
    if path.suffix != ".toml":
        bundled = bundled_spaces()
        if name_or_path not in bundled:
            raise SpaceError(
                f"no search space {name_or_path!r}: bundled are {', '.join(bundled)}; a space of your own is a path "
                "that ends in .toml, and a network of a study is `tuner inspect STUDY --trial N`"
            )
        path = bundled[name_or_path]
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows editors put a mark in front
    except OSError as error:
        raise SpaceError(f"{path}: cannot be read: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:  # of the encoding, of the syntax, of brackets in brackets
        raise SpaceError(f"{path}: not a TOML file: {error}") from error
    if "name" in data:
        raise SpaceError(f"{path}: name: a space is named after its file; remove the key")
    space = parse_space({"name": shown_name(path.stem), **data}, origin=str(path))
    first_params(space, origin=str(path))
    return space


def parse_space(data: object, *, origin: str) -> SearchSpace:
    """The space in a TOML-like object; `origin` names it in errors. Raises SpaceError."""
    try:
        return SearchSpace.model_validate(data)
    except ValidationError as error:
        raise SpaceError(f"{origin}: {_in_one_line(error)}") from error


def bundled_spaces() -> dict[str, Path]:
    """The spaces that come with the tuner, by name."""
    packaged = Path(str(resources.files("tuner"))) / "search_spaces"
    folder = packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "search_spaces"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _in_one_line(error: ValidationError) -> str:
    first, *others = error.errors(include_url=False)
    where = ".".join(str(part) for part in first["loc"] if part not in ("choices",))
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key; remove it or fix its spelling{_and_more(others)}"
    if first["type"] == "missing":
        return f"{where}: required key is missing{_and_more(others)}"
    value = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    return f"{where}: {message[:1].lower()}{message[1:]}{value}{_and_more(others)}"


def _and_more(others: list[Any]) -> str:
    return f" (and {len(others)} more)" if others else ""
