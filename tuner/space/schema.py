"""SearchSpace: what may be sampled, with the sections and keys of its TOML file and their rules."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from tuner.architecture.blocks.plain import Activation, Count, DropoutRate, Normalization, Padding, Pooling, Window
from tuner.architecture.spec import FeatureCount, HeadPooling
from tuner.space.parameter import Parameter, Rate, Strict
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


def _fixed(value: object) -> Any:
    """Default of a key that a space may omit."""
    return Field(default=value, validate_default=True)


class _Unshared(Strict):
    """Base of the sections whose keys have one value per network."""

    @model_validator(mode="after")
    def _check_shared(self) -> Self:
        for name, parameter in self:
            if parameter.shared:
                raise ValueError(f"{name}: shared belongs in [block]; here there is one draw anyway")
        return self


class Network(_Unshared):
    """The section [network] of a space."""

    num_blocks: Parameter[NumBlocks] = _fixed(2)


class BlockSpace(Strict):
    """The section [block]: the plain family. Each key is sampled for every block, or only once if it is `shared`."""

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
    """The section [head] of a space."""

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


class Configuration(Strict):
    """A section [[first]]: a configuration to try first. Missing keys take the first choice or the low end."""

    block: list[dict[str, Any]] = Field(min_length=1)
    head: dict[str, Any] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)


class SearchSpace(Strict):
    """A search space, as its TOML file says."""

    name: str
    description: str = ""
    network: Network = Network()
    block: BlockSpace
    head: HeadSpace = HeadSpace()
    recipe: RecipeSpace
    first: list[Configuration] = Field(default_factory=list)

    @cached_property
    def max_blocks(self) -> int:
        """The depth of the deepest network."""
        return int(max(self.network.num_blocks.values))

    @cached_property
    def parameters(self) -> dict[str, Parameter[Any]]:
        """Return every parameter by its name in the study, including fixed ones, in a stable order.

        All of them are sampled in every trial, whatever the depth and the optimizer, so that the sampler sees one joint
        space. (Optuna's multivariate TPE samples parameters independently if they are not in every trial.)
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
