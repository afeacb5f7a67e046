"""Remove backbones with more parameters than their space allows, before weights are looked for."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from tuner.architecture.spec import Head, InputSpec
from tuner.errors import SpaceError
from tuner.space.schema import SearchSpace


def without_large_backbones(
    space: SearchSpace, input_spec: InputSpec, *, given: Collection[str] = ()
) -> tuple[SearchSpace, list[str]]:
    """Return a space without the backbones whose smallest network is larger than `max_parameters`, and a note on them.

    given: backbones that the user has added by their weights. Raises SpaceError if one of these or one of [[first]] is
    too large, and if no backbone is left; BackboneError for the name of no backbone.
    """
    section, limit = space.backbone, space.max_parameters
    if section is None or limit is None:
        return space, []
    names = list(dict.fromkeys([*given, *section.name.values]))
    sizes = {name: _smallest_size(name, space, input_spec) for name in names}
    large = [name for name in names if sizes[name] > limit]
    if not large:
        return space, []
    rule = f"must have at most max_parameters = {limit:,} parameters"
    listed = ", ".join(f"{name} ({sizes[name]:,})" for name in large)
    for name in large:
        if name in given:
            raise SpaceError(
                f"space {space.name!r}: networks {rule}, and those of {name} have at least {sizes[name]:,}: "
                f"omit --weights {name}=..., or raise max_parameters"
            )
    for number, configuration in enumerate(space.first):
        named = (configuration.backbone or {}).get("name")
        if named in large:
            raise SpaceError(
                f"space {space.name!r}: first.{number}: {rule}, got at least {sizes[named]:,} with {named}: "
                "raise max_parameters or choose another backbone"
            )
    kept = [name for name in section.name.values if name not in large]
    if not kept and not given:
        raise SpaceError(
            f"space {space.name!r}: at least one backbone {rule}, got {listed}: raise max_parameters or choose "
            "smaller backbones"
        )
    note = f"backbones with more than max_parameters = {limit:,} parameters, which are not searched: {listed}"
    return space.with_backbone_names(kept or list(given)), [note]


def _smallest_size(name: str, space: SearchSpace, input_spec: InputSpec) -> int:
    """Parameters of the smallest network with a backbone: the head with the fewest, whatever is trained."""
    import torch  # here and below: spaces without backbones do without it
    from torch import nn

    from tuner.architecture.backbone_modules import layers_of_head
    from tuner.architecture.backbone_network import BackboneNetwork
    from tuner.architecture.backbones import build_backbone
    from tuner.architecture.cost import layer_cost
    from tuner.space.backbone_space import UNKNOWN_WEIGHTS

    with torch.device("meta"):
        backbone = build_backbone(name)
        model = backbone.attach_head(nn.Identity())
    network = BackboneNetwork(replace(input_spec, channels=3), name, UNKNOWN_WEIGHTS)
    widths = space.head.hidden_features.values
    smallest = [width for width in (0, min(filter(None, widths), default=0)) if width in widths]
    heads = [
        layers_of_head(
            replace(network, head=Head("average", hidden_features=width)), num_features=backbone.num_features
        )
        for width in smallest
    ]
    of_head = min(sum(layer_cost(layer).num_parameters for layer in layers) for layers in heads)
    return of_head + sum(parameter.numel() for parameter in model.parameters())
