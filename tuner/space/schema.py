"""SearchSpace: what may be sampled, with the sections and keys of its TOML file and their rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tuner.architecture.backbone_network import WeightsDigest
from tuner.architecture.blocks.fields import Activation, Count, DropoutRate, Normalization, Padding, Pooling, Window
from tuner.architecture.spec import FeatureCount, HeadPooling
from tuner.space.backbone_space import BackboneSpace
from tuner.space.parameter import Parameter, Rate, Strict, Unshared, fixed
from tuner.space.stages import (
    OF_FIRST,
    ONE_DRAW,
    SECTIONS,
    InvertedResidualSpace,
    PlainSpace,
    ResidualSpace,
    StageSpace,
    StemSpace,
    stage_parameters,
)
from tuner.training.candidate import (
    BatchSize,
    ClassWeights,
    Cutout,
    FactorRange,
    LabelSmoothing,
    LearningRate,
    MixingAlpha,
    Momentum,
    Optimizer,
    Schedule,
    StageDecay,
    Translate,
    WarmUp,
    WeightAverageDecay,
    WeightDecay,
)

SpaceFlip = Literal["none", "horizontal", "auto"]
NumBlocks = Annotated[int, Field(ge=1, le=64, strict=True)]
MaxParameters = Annotated[int, Field(ge=1, strict=True)]
Tables = Annotated[list[dict[str, Any]], Field(min_length=1)]


class Network(Unshared):
    """[network]"""

    num_blocks: Parameter[NumBlocks] = fixed(2)


class BlockSpace(Strict):
    """The section [block]: the plain family. Each key is sampled for every block, or only once if it is `shared`."""

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
    warm_up: Parameter[WarmUp] = fixed(0.0)
    ema: Parameter[WeightAverageDecay] = fixed(0.0)
    class_weights: Parameter[ClassWeights] = fixed("none")
    stage_decay: Parameter[StageDecay] = fixed(1.0)
    flip: Parameter[SpaceFlip] = fixed("none")
    translate: Parameter[Translate] = fixed(0.0)
    cutout: Parameter[Cutout] = fixed(0.0)
    mixup: Parameter[MixingAlpha] = fixed(0.0)
    cutmix: Parameter[MixingAlpha] = fixed(0.0)
    brightness: Parameter[FactorRange] = fixed(0.0)
    contrast: Parameter[FactorRange] = fixed(0.0)

    @model_validator(mode="after")
    def _check(self) -> RecipeSpace:
        for name in ("learning_rate", "weight_decay"):
            rate = getattr(self, name)
            missing = [key for key in self.optimizer.values if rate.by_optimizer and key not in rate.by_optimizer]
            if missing:
                raise ValueError(f"{name} is given per optimizer, but not for {', '.join(missing)}")
        without = [one for one in self.optimizer.values if one in ("sgdw", "muon")]
        lowest = min(self.stage_decay.choices or [self.stage_decay.low or 1.0])
        if lowest < 1.0 and without:
            raise ValueError(f"stage_decay below 1 must go with adam, adamw or sgd, got {without[0]}")
        return self


class Configuration(Strict):
    """A section [[first]]: a configuration to try first. Missing keys take the first choice or the low end."""

    backbone: dict[str, Any] | None = None
    block: Tables | None = None
    stem: dict[str, Any] | None = None
    stage: Tables | None = None
    last_channels: FeatureCount | None = None
    head: dict[str, Any] = Field(default_factory=dict)
    recipe: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Configuration:
        if [self.block, self.stage, self.backbone].count(None) != 2:
            raise ValueError("needs either block or stage, a list of tables, or backbone")
        for name in ("stem", "last_channels"):
            if self.stage is None and getattr(self, name) is not None:
                kind = "block" if self.block is not None else "backbone"
                raise ValueError(f"{name} has no effect in a configuration with {kind}; remove it")
        return self


class SearchSpace(Strict):
    """A search space, as described in its TOML file.

    max_parameters: candidates with more parameters are rejected before they train. weights: digest of the pretrained
    weights of each backbone. A file has none; a study stores them when it begins.
    """

    name: str
    description: str = ""
    max_parameters: MaxParameters | None = None
    network: Network = Network()
    block: BlockSpace | None = None
    backbone: BackboneSpace | None = None
    weights: dict[str, WeightsDigest] = Field(default_factory=dict)
    stem: StemSpace | None = None
    stage: StageSpace | None = None
    plain: PlainSpace | None = None
    residual: ResidualSpace | None = None
    inverted_residual: InvertedResidualSpace | None = None
    head: HeadSpace = HeadSpace()
    recipe: RecipeSpace
    first: list[Configuration] = Field(default_factory=list)

    @model_validator(mode="after")
    def _check(self) -> SearchSpace:
        """Refuse sections that are missing, that exclude each other, or that nothing would be drawn from."""
        if [self.block, self.stage, self.backbone].count(None) != 2:
            raise ValueError(
                "a space needs either [block], for plain networks, or [stage], for networks in stages, or [backbone], "
                "for pretrained networks"
            )
        for name in SECTIONS:
            if getattr(self, name) is not None and name not in self.stage_sections:
                reason = f"no stage is of the {name} family" if self.stage is not None else "the space has no [stage]"
                raise ValueError(f"[{name}] has no effect, since {reason}; remove it")
        if self.stage is not None:
            self._check_stage(self.stage)
        for configuration in self.first:
            needed = "block" if self.block else "stage" if self.stage else "backbone"
            if getattr(configuration, needed) is None:
                raise ValueError(f"first: a configuration of this space needs {needed}")
        return self

    def with_backbones(self, weights: Mapping[str, str]) -> SearchSpace:
        """Return the space with these backbones, in this order. weights: digest of the weights of each."""
        return self.with_backbone_names(list(weights))._validated_with(weights=dict(weights))

    def with_backbone_names(self, names: Sequence[str]) -> SearchSpace:
        """Return the space with these backbones, in this order."""
        assert self.backbone is not None
        return self._validated_with(backbone=self.backbone.with_names(names))

    def with_image_size(self, side: int) -> SearchSpace:
        """Return the space with backbones that all take images of this side."""
        assert self.backbone is not None
        section = self.backbone.model_copy(update={"image_size": Parameter(choices=[side])})
        return self._validated_with(backbone=section)

    def _validated_with(self, **changes: Any) -> SearchSpace:
        """Return a changed space. A copy of the model would keep the parameters that were computed before."""
        sections = {name: getattr(self, name) for name in SearchSpace.model_fields}
        return SearchSpace.model_validate(sections | changes)

    def _check_stage(self, stage: StageSpace) -> None:
        for name in (*ONE_DRAW, *OF_FIRST.values()):
            parameter = getattr(stage, name)
            if parameter is not None and parameter.shared:
                raise ValueError(
                    f"stage.{name}: shared has no effect, since a trial has one value of this key; remove shared"
                )

    @cached_property
    def stage_sections(self) -> dict[str, Strict]:
        """The stem and the section of each family that a stage may be of, as the file has them or by default."""
        names = [] if self.stage is None else ["stem", *self.stage.family.values]
        return {name: SECTIONS[name]() if getattr(self, name) is None else getattr(self, name) for name in names}

    @property
    def sections(self) -> dict[str, Strict]:
        """The sections that something is drawn from, by their names in the file."""
        networks: dict[str, Strict]
        if self.block is not None:
            networks = {"network": self.network, "block": self.block}
        elif self.backbone is not None:
            networks = {"backbone": self.backbone}
        else:
            assert self.stage is not None
            networks = {"stage": self.stage, **self.stage_sections}
        return {**networks, "head": self.head, "recipe": self.recipe}

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
        if self.backbone is not None:
            yield from self.backbone.own_parameters()
        elif self.block is None:
            assert self.stage is not None
            yield from stage_parameters(self.stage, self.stage_sections)
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
