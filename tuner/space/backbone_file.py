"""Rules for the file of a space with [backbone]: known names, and no keys without effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tuner.errors import BackboneError, SpaceError
from tuner.space.backbone_space import BackboneSpace
from tuner.space.schema import SearchSpace
from tuner.training.candidate import IN_VIEWS

MIXING = ("mixup", "cutmix")
"""Keys of [recipe] that networks with frozen stages never apply."""


def check_names(section: BackboneSpace, *, origin: str) -> None:
    """Raise SpaceError, with the nearest known names, for the name of no backbone; origin: names the file."""
    from tuner.architecture.backbones import check_name  # imports torch, which a space without backbones does without

    for name in section.name.values:
        try:
            check_name(name)
        except BackboneError as error:
            raise SpaceError(f"{origin}: backbone.name: {error}") from error


def refuse_without_effect(data: Mapping[str, Any], space: SearchSpace, *, origin: str) -> None:
    """Raise SpaceError for a key that the file of a space with [backbone] gives although nothing reads it."""
    for place, why in _without_effect(data, space):
        raise SpaceError(f"{origin}: {place} has no effect {why}; remove it")


def _without_effect(data: Mapping[str, Any], space: SearchSpace) -> Iterator[tuple[str, str]]:
    """Each key without effect, and the reason."""
    section = space.backbone
    assert section is not None
    if "network" in data:
        yield "[network]", "in a space with [backbone]"
    tables = [("", data), *((f"first.{number}.", one) for number, one in enumerate(data.get("first", [])))]
    if section.views.values != [0] and not any(key in data.get("recipe", {}) for key in IN_VIEWS):
        yield "backbone.views", f"without augmentation in [recipe] ({', '.join(IN_VIEWS)})"
    only_frozen = section.trained_stages.values == [0]
    unused = {"stage_decay": "since no stage is trained"} if only_frozen else {}
    if only_frozen:
        unused |= dict.fromkeys(MIXING, "since networks with frozen stages are trained on features")
        if section.views.values == [0]:
            unused |= dict.fromkeys(IN_VIEWS, "since there are no views of the images, which backbone.views sets")
    for prefix, table in tables:
        if "pooling" in table.get("head", {}):
            yield f"{prefix}head.pooling", "in a space with [backbone], whose networks have a pooling of their own"
        for key, why in unused.items():
            if key in table.get("recipe", {}):
                yield f"{prefix}recipe.{key}", why
