"""SearchSpace: the TOML file that says what may be sampled, validated."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from tuner.architecture.blocks.fields import Activation, Count, DropoutRate, Normalization, Padding, Pooling, Window
from tuner.architecture.spec import FeatureCount, HeadPooling
from tuner.errors import SpaceError, reason_of
from tuner.names import shown_name
from tuner.space.parameters import Parameter, Rate, Strict, Unshared, fixed
from tuner.space.stages import (
    InvertedResidualSpace,
    PlainSpace,
    ResidualSpace,
    StageSpace,
    StemSpace,
    check_sections,
    section_of,
    stage_parameters,
)
from tuner.training.candidate import (
    BatchSize,
    LabelSmoothing,
    LearningRate,
    Momentum,
    Optimizer,
    Schedule,
    WeightDecay,
)

NumBlocks = Annotated[int, Field(ge=1, le=64, strict=True)]
MaxParameters = Annotated[int, Field(ge=1, strict=True)]
Tables = Annotated[list[dict[str, Any]], Field(min_length=1)]


class Network(Unshared):
    """[network]"""

    num_blocks: Parameter[NumBlocks] = fixed(2)


class BlockSpace(Strict):
    """[block]: the plain family; each key is drawn for every block, or once where `shared`."""

    out_channels: Parameter[Count]
    kernel_size: Parameter[Window] = fixed(3)
    stride: Parameter[Window] = fixed(1)
    padding: Parameter[Padding] = fixed("same")
    normalization: Parameter[Normalization] = fixed("none")
    activation: Parameter[Activation] = fixed("relu")
    pooling: Parameter[Pooling] = fixed("none")
    pool_size: Parameter[Window] = fixed(2)
    pool_stride: Parameter[Window] = fixed(2)
    dropout: Parameter[DropoutRate] = fixed(0.0)

    @model_validator(mode="after")
    def _check(self) -> BlockSpace:
        even = [size for size in self.kernel_size.values if size % 2 == 0]
        if "same" in self.padding.values and even:
            raise ValueError(f'kernel_size must be odd where padding may be "same", got {even[0]}')
        return self


class HeadSpace(Unshared):
    """[head]"""

    pooling: Parameter[HeadPooling] = fixed("flatten")
    hidden_features: Parameter[FeatureCount] = fixed(0)
    activation: Parameter[Activation] = fixed("relu")
    dropout: Parameter[DropoutRate] = fixed(0.0)


class RecipeSpace(Unshared):
    """[recipe]: how the networks are trained; the number of epochs is an option of the search."""

    optimizer: Parameter[Optimizer] = fixed("adam")
    learning_rate: Rate[LearningRate]
    schedule: Parameter[Schedule] = fixed("constant")
    batch_size: Parameter[BatchSize] = fixed(64)
    weight_decay: Rate[WeightDecay] = fixed(0.0)
    momentum: Parameter[Momentum] = fixed(0.9)
    label_smoothing: Parameter[LabelSmoothing] = fixed(0.0)

    @model_validator(mode="after")
    def _check(self) -> RecipeSpace:
        for name in ("learning_rate", "weight_decay"):
            rate = getattr(self, name)
            missing = [key for key in self.optimizer.values if rate.by_optimizer and key not in rate.by_optimizer]
            if missing:
                raise ValueError(f"{name} is given per optimizer, but not for {', '.join(missing)}")
        return self


class Configuration(Strict):
    """[[first]]: a configuration to try first; what it omits takes the first choice or the low end."""

    block: Tables | None = None
    stem: dict[str, Any] | None = None
    stage: Tables | None = None
    last_channels: int | None = None
    head: dict[str, Any] = Field(default={})
    recipe: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _check(self) -> Configuration:
        if (self.block is None) == (self.stage is None):
            raise ValueError("needs either block or stage, a list of tables")
        return self


class SearchSpace(Strict):
    """A search space, as its TOML file says.

    max_parameters: candidates with more parameters are rejected before they train.
    """

    name: str
    description: str = ""
    max_parameters: MaxParameters | None = None
    network: Network = Network()
    block: BlockSpace | None = None
    stem: StemSpace | None = None
    stage: StageSpace | None = None
    plain: PlainSpace | None = None
    residual: ResidualSpace | None = None
    inverted_residual: InvertedResidualSpace | None = None
    head: HeadSpace = HeadSpace()
    recipe: RecipeSpace
    first: list[Configuration] = Field(default=[])

    @model_validator(mode="after")
    def _check(self) -> SearchSpace:
        check_sections(self)
        return self

    @cached_property
    def max_stages(self) -> int:
        """The stages of the network with the most of them."""
        return int(max(self.stage.num_stages.values)) if self.stage else 0

    @property
    def sections(self) -> dict[str, Strict]:
        """The sections that something is drawn from, by their names in the file."""
        if self.block is not None:
            networks: dict[str, Strict] = {"network": self.network, "block": self.block}
        else:
            assert self.stage is not None
            names = ["stem", *self.stage.family.values]
            networks = {"stage": self.stage, **{name: section_of(self, name) for name in names}}
        return {**networks, "head": self.head, "recipe": self.recipe}

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
        if self.block is None:
            yield from stage_parameters(self)
        else:
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
    place = f"{where}: " if where else ""
    return f"{place}{message[:1].lower()}{message[1:]}{value}{_and_more(others)}"


def _and_more(others: list[Any]) -> str:
    return f" (and {len(others)} more)" if others else ""
