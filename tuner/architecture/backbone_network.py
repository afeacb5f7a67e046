"""BackboneNetwork: a pretrained backbone with a new head, as a frozen value, to and from JSON. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, with_config

from tuner.architecture.shapes import Shape
from tuner.architecture.spec import Head, InputSpec

TrainedStages = Annotated[int, Field(ge=0, le=1_000, strict=True)]
NumViews = Annotated[int, Field(ge=0, le=1_000, strict=True)]
CropFraction = Annotated[float, Field(ge=0, le=1, strict=True)]
WeightsDigest = Annotated[str, Field(pattern="^[0-9a-f]{16}$", strict=True)]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class BackboneNetwork:
    """A pretrained network whose classifier is replaced by a head of our own.

    backbone: torchvision's name of the network, or `timm/NAME`. weights: digest of its pretrained weights.
    trained_stages: how many of its last stages with parameters are trained together with the head; the others are
    frozen. views: how many augmented views of every image are computed beforehand, for networks with frozen stages; 0
    trains on the images as they are. crop_fraction: side of the centre crop as a share of the shorter side of an
    image (tuner.data.resizing); 0 is that of the weights. head: `pooling` has no effect, since a backbone has a pooling
    of its own.
    """

    input: InputSpec
    backbone: str
    weights: WeightsDigest
    trained_stages: TrainedStages = 0
    views: NumViews = 0
    crop_fraction: CropFraction = 0.0
    head: Head = Head(pooling="average")

    @property
    def input_shape(self) -> Shape:
        """(C, H, W) of one image."""
        return self.input.shape

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self.input.num_classes

    def __str__(self) -> str:
        """In one line: `resnet18 224x224, 2 stages trained, 4 views | 256 relu d0.2 10`."""
        trained = f"{self.trained_stages} stage{'s' if self.trained_stages > 1 else ''} trained"
        how = trained if self.trained_stages else "frozen"
        head = str(self.head).removeprefix(self.head.pooling).strip()
        views = f", {self.views} view{'s' if self.views > 1 else ''}" if self.views else ""
        crop = f" (crop fraction {self.crop_fraction:g})" if self.crop_fraction else ""
        words = f"{self.backbone} {self.input.height}x{self.input.width}{crop}, {how}{views}"
        return f"{words} | {head + ' ' if head else ''}{self.num_classes}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back to an equal value."""
        data: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return data

    @staticmethod
    def from_json(data: object) -> BackboneNetwork:
        """The network in a JSON object. Raises pydantic.ValidationError for anything else."""
        return _ADAPTER.validate_python(data)


_ADAPTER = TypeAdapter(BackboneNetwork)
