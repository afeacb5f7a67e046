"""Recipe (how a network is trained) and Candidate (network and recipe), with its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, with_config

from tuner.architecture.any_architecture import AnyArchitecture, resolve_any
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.formats import refuse_newer_format
from tuner.training.released_defaults import CANDIDATE_FORMAT, with_defaults, without_defaults

Optimizer = Literal["adam", "adamw", "sgd", "sgdw", "muon"]
WITH_MOMENTUM: tuple[Optimizer, ...] = ("sgd", "sgdw", "muon")
"""Optimizers that the momentum of a recipe has an effect on."""
IN_VIEWS = ("flip", "translate", "cutout", "brightness", "contrast")
"""Augmentation of a recipe that the views of a backbone with frozen stages have."""
Schedule = Literal["constant", "cosine", "one_cycle"]
LearningRate = Annotated[float, Field(gt=0.0, le=100.0, strict=True)]
WeightDecay = Annotated[float, Field(ge=0.0, le=10.0, strict=True)]
Momentum = Annotated[float, Field(ge=0.0, lt=1.0, strict=True)]
LabelSmoothing = Annotated[float, Field(ge=0.0, lt=1.0, strict=True)]
WarmUp = Annotated[float, Field(ge=0.0, lt=1.0, strict=True)]
WeightAverageDecay = Annotated[float, Field(ge=0.0, lt=1.0, strict=True)]
StageDecay = Annotated[float, Field(gt=0.0, le=1.0, strict=True)]
ClassWeights = Literal["none", "balanced"]
BatchSize = Annotated[int, Field(ge=1, le=65_536, strict=True)]
Epochs = Annotated[int, Field(ge=1, le=100_000, strict=True)]
Flip = Literal["none", "horizontal"]
Translate = Annotated[float, Field(ge=0.0, le=0.5, strict=True)]
Cutout = Annotated[float, Field(ge=0.0, le=1.0, strict=True)]
MixingAlpha = Annotated[float, Field(ge=0.0, le=100.0, strict=True)]
FactorRange = Annotated[float, Field(ge=0.0, le=1.0, strict=True)]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    learning_rate: the constant rate, or the peak of the schedule. weight_decay: L2 for Adam and SGD, decoupled for
    AdamW, as in torch.optim, and for SGDW and Muon, which exempt norms and biases. momentum: Nesterov momentum, used
    by SGD, SGDW and Muon. warm_up: share of all steps in which the rate first rises, for schedules other than
    one_cycle, which has a rise of its own. ema: decay of the exponential moving average of the weights that is scored
    and stored; 0 for none. class_weights: `balanced` weights classes in the training loss so that all count equally.
    stage_decay: factor of the learning rate of each trained stage of a backbone, relative to that of the stage behind
    it; the head has the full rate. flip to contrast: augmentation, as `tuner.data.augmentation.Augmentation` describes
    it.
    """

    optimizer: Optimizer = "adam"
    learning_rate: LearningRate = 1e-3
    schedule: Schedule = "constant"
    batch_size: BatchSize = 64
    epochs: Epochs = 10
    weight_decay: WeightDecay = 0.0
    momentum: Momentum = 0.9
    label_smoothing: LabelSmoothing = 0.0
    warm_up: WarmUp = 0.0
    ema: WeightAverageDecay = 0.0
    class_weights: ClassWeights = "none"
    stage_decay: StageDecay = 1.0
    flip: Flip = "none"
    translate: Translate = 0.0
    cutout: Cutout = 0.0
    mixup: MixingAlpha = 0.0
    cutmix: MixingAlpha = 0.0
    brightness: FactorRange = 0.0
    contrast: FactorRange = 0.0


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Candidate:
    """A network and its recipe: everything that training depends on except the data, the seed and the machine."""

    architecture: AnyArchitecture
    recipe: Recipe

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits, which are equal for two candidates that train the same network in the same way."""
        text = json.dumps(without_defaults(resolve_candidate(self).to_json()), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back to an equal value; it has every field, defaults included."""
        data: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return {"format": CANDIDATE_FORMAT, **data}

    @staticmethod
    def from_json(data: object) -> Candidate:
        """The candidate in a JSON object; fields that it lacks have their released defaults.

        An object without a format number is of format 1. Raises NewerFormatError, and ValueError (or its subclass
        pydantic.ValidationError) for anything else, such as a field of a newer version.
        """
        if not isinstance(data, Mapping):
            return _ADAPTER.validate_python(data)
        refuse_newer_format(data, known=CANDIDATE_FORMAT, what="candidates")
        return _ADAPTER.validate_python({key: value for key, value in with_defaults(data).items() if key != "format"})


def resolve_candidate(candidate: Candidate) -> Candidate:
    """Return the candidate with its architecture resolved and with defaults for all fields that have no effect."""
    recipe = candidate.recipe
    if recipe.optimizer not in WITH_MOMENTUM:
        recipe = replace(recipe, momentum=0.9)
    if recipe.schedule == "one_cycle":
        recipe = replace(recipe, warm_up=0.0)
    architecture = resolve_any(candidate.architecture)
    if isinstance(architecture, BackboneNetwork):
        recipe = _recipe_of_backbone(recipe, architecture)
        if all(getattr(recipe, name) == getattr(Recipe, name) for name in IN_VIEWS):
            architecture = replace(architecture, views=0)  # they would all be the images themselves
    else:
        recipe = replace(recipe, stage_decay=1.0)
    return Candidate(architecture, recipe)


def _recipe_of_backbone(recipe: Recipe, network: BackboneNetwork) -> Recipe:
    """Return the recipe without what has no effect: features are augmented only in views, and are not mixed."""
    from tuner.architecture.backbone_modules import has_frozen_stages  # imports torch

    if network.trained_stages == 0:
        recipe = replace(recipe, stage_decay=1.0)
    if not has_frozen_stages(network):
        return recipe
    recipe = replace(recipe, mixup=0.0, cutmix=0.0)
    if network.views == 0:
        recipe = replace(recipe, **{name: getattr(Recipe, name) for name in IN_VIEWS})
    return recipe


_ADAPTER = TypeAdapter(Candidate)
