"""The stages of a backbone network, for tables: their layers, output shapes, parameters and FLOPs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tuner.architecture.backbone_modules import split_network
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.backbones.without_classifier import WithoutClassifier
from tuner.architecture.shapes import Shape


@dataclass(frozen=True)
class Stage:
    """One stage. modules: the names that its modules have in the library; the class of those without a name."""

    modules: tuple[str, ...]
    output_shape: Shape
    num_parameters: int
    flops: int
    is_frozen: bool


def stages_of(network: BackboneNetwork) -> list[Stage]:
    """The stages of a resolved network, counted on the meta device as `backbone_cost` counts."""
    with torch.device("meta"):
        split = split_network(network)
        x = torch.empty(1, *network.input_shape)
    split.model.eval()
    name_of = {id(module): name for name, module in split.model.named_modules()}
    stages: list[Stage] = []
    for module in (*split.frozen, *split.stages):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            x = module(x)
        stages.append(
            Stage(
                modules=_names(module, name_of, head=split.head_name),
                output_shape=tuple(x.shape[1:]),
                num_parameters=sum(parameter.numel() for parameter in module.parameters()),
                flops=counter.get_total_flops(),
                is_frozen=len(stages) < len(split.frozen),
            )
        )
    return stages


def _names(stage: nn.Module, name_of: dict[int, str], *, head: str) -> tuple[str, ...]:
    """The names of a stage's modules: its own if the library's network has it, or else those of its children."""
    if id(stage) in name_of:
        return (name_of[id(stage)],)
    if isinstance(stage, nn.Sequential):
        return tuple(name for child in stage for name in _names(child, name_of, head=head))
    if isinstance(stage, WithoutClassifier):
        return (f"all but {head}",)
    return (type(stage).__name__,)
