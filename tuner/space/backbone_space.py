"""[backbone]: the section of a space of pretrained networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field, model_validator

from tuner.architecture.backbone_network import BackboneNetwork, CropFraction, NumViews, TrainedStages
from tuner.architecture.spec import Head, InputSpec
from tuner.data.resizing import LEAST_CROP_FRACTION
from tuner.errors import SpaceError
from tuner.space.parameter import Parameter, Unshared, fixed

BackboneName = Annotated[str, Field(min_length=1, max_length=200, strict=True)]
ImageSide = Annotated[int, Field(ge=0, le=1024, strict=True)]
PARAMETERS = {"name": "backbone"} | {name: name for name in ("trained_stages", "image_size", "crop_fraction", "views")}
"""The parameters of the section, with their names in the study."""
MOST_PAIRS = 16
"""Most pairs of an image size and a crop fraction. The images are decoded for all of them before the search begins."""
UNKNOWN_WEIGHTS = "0" * 16
"""Stands for the digest of weights in networks that are only shown."""


class BackboneSpace(Unshared):
    """[backbone]: which pretrained networks are tried, how much of them is trained, and on images of which size.

    name: torchvision's name of a network, or `timm/NAME`. trained_stages: how many of the last stages are trained
    together with the head. image_size: side in pixels; 0 is the size that the weights were trained with. crop_fraction:
    side of the centre crop as a share of the shorter side of an image; 0 is the fraction that the weights were trained
    with. views: how many augmented views of every image are computed beforehand for networks with frozen stages.
    """

    name: Parameter[BackboneName]
    trained_stages: Parameter[TrainedStages] = fixed(0)
    image_size: Parameter[ImageSide] = fixed(0)
    crop_fraction: Parameter[CropFraction] = fixed(0.0)
    views: Parameter[NumViews] = fixed(0)

    @model_validator(mode="after")
    def _check(self) -> BackboneSpace:
        if self.name.choices is None:
            raise ValueError("name must be a name or a list of names, not a range")
        if len(self.image_size.values) > MOST_PAIRS:
            raise ValueError(
                f"image_size must have at most {MOST_PAIRS} values, since all images are decoded for each of them, got "
                f"{len(self.image_size.values)}: give a list, or a range with a step"
            )
        self._check_crop_fractions()
        return self

    def _check_crop_fractions(self) -> None:
        fractions = self.crop_fraction.choices
        if fractions is None:
            raise ValueError("crop_fraction must be a number or a list of numbers, not a range")
        too_small = [fraction for fraction in fractions if 0 < fraction < LEAST_CROP_FRACTION]
        if too_small:
            raise ValueError(f"crop_fraction must be 0 or from {LEAST_CROP_FRACTION} to 1, got {too_small[0]}")
        pairs = len(self.image_size.values) * len(fractions)
        if pairs > MOST_PAIRS:
            raise ValueError(
                f"image_size and crop_fraction must have at most {MOST_PAIRS} pairs of values, since all images are "
                f"decoded for each of them, got {pairs}: give fewer values"
            )

    def own_parameters(self) -> Iterator[tuple[str, Parameter[Any]]]:
        """Every parameter with its name in the study."""
        for name, key in PARAMETERS.items():
            yield key, getattr(self, name)

    def unknown_weights(self) -> dict[str, str]:
        """Weights of each backbone for networks that are only shown, which needs no weights."""
        return dict.fromkeys(self.name.values, UNKNOWN_WEIGHTS)

    def with_names(self, names: Sequence[str]) -> BackboneSpace:
        """Return the section with these backbones, in this order."""
        return self.model_copy(update={"name": Parameter(choices=list(names))})


def backbone_network(
    values: Mapping[str, Any], weights: Mapping[str, str], head: Head, input_spec: InputSpec
) -> BackboneNetwork:
    """Return the network of a trial's values. weights: digest of the weights of each backbone.

    Raises SpaceError if the weights of its backbone are not known yet.
    """
    from tuner.architecture.backbones import input_of  # imports torch, which a space without backbones does without

    name, side = values["backbone"], values["image_size"]
    if name not in weights:
        raise SpaceError(f"backbone.name: the weights of {name} must be found before networks are sampled")
    own = input_of(name)
    height, width = (side, side) if side else (own.height, own.width)
    return BackboneNetwork(
        input=InputSpec(3, height, width, input_spec.num_classes),
        backbone=name,
        weights=weights[name],
        trained_stages=values["trained_stages"],
        views=values["views"],
        crop_fraction=values["crop_fraction"],
        head=replace(head, pooling="average"),
    )


def backbone_given(given: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Return the values of a configuration's `backbone` by their names in the study.

    Raises SpaceError for an unknown key.
    """
    unknown = [key for key in given if key not in PARAMETERS]
    if unknown:
        raise SpaceError(
            f"{origin}: backbone.{unknown[0]}: not a parameter of this space; remove it or fix its spelling"
        )
    return {PARAMETERS[name]: value for name, value in given.items()}
