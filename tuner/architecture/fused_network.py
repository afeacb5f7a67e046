"""A faster form of a network for training: whole blocks as single autograd nodes, activations in any precision.

The model is still the `nn.Sequential` of torch's own modules, which holds the weights and is scored and saved. The fast
form only computes with its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from torch import Tensor, nn
from torch.nn import functional

from tuner.architecture import layers as own
from tuner.architecture.fused_block import ACTIVATIONS, FusedBlock, can_fuse
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FastForm:
    """Options of the fast form, none of which changes the result; `Engine` describes them."""

    early_pooling: bool = True
    byte_dropout: bool = True


def fast_form(model: nn.Sequential, architecture: Architecture, form: FastForm) -> Forward:
    """A function from images_NCHW (channels_last, fp32 or bf16) to logits_NK in the same precision, for training.

    Blocks that cannot be fused, and the head, run layer by layer.
    """
    steps: list[Forward] = []
    traced = zip(trace(architecture), model, strict=True)
    for _, group in groupby(traced, key=lambda pair: pair[0].part):
        modules = [module for _, module in group]
        in_turn = _in_turn([_in_any_precision(module, form) for module in modules])
        if can_fuse(modules):
            fused = FusedBlock(modules, early_pooling=form.early_pooling, byte_dropout=form.byte_dropout)
            # One image over a 1x1 feature map has no variance; our BatchNorm2d knows what to do then.
            steps.append(lambda x, fused=fused, in_turn=in_turn: fused(x) if len(x) > 1 else in_turn(x))  # type: ignore[misc]
        else:
            steps.append(in_turn)
    return _in_turn(steps)


def scoring_form(model: nn.Sequential) -> Forward:
    """Return a function from images_NCHW (fp32) to logits_NK, for a model in evaluation, without gradients.

    Activations work in place. Tanh and ELU are our own functions, equal up to rounding, because torch's ELU can take 9
    ns per element, as long as the convolution before it.
    """
    return _in_turn([ACTIVATIONS[type(module)][0] if type(module) in ACTIVATIONS else module for module in model])


def _in_turn(steps: Sequence[Forward]) -> Forward:
    def forward(values: Tensor) -> Tensor:
        for step in steps:
            values = step(values)
        return values

    return forward


def _in_any_precision(module: nn.Module, form: FastForm) -> Forward:
    """A layer that follows the dtype of its input, with fp32 parameters."""
    if isinstance(module, nn.Conv2d):
        return lambda x: functional.conv2d(
            x, module.weight.to(x.dtype), _cast(module.bias, x), module.stride, module.padding, groups=module.groups
        )
    if isinstance(module, nn.Linear):
        return lambda x: functional.linear(x, module.weight.to(x.dtype), _cast(module.bias, x))
    if isinstance(module, nn.Dropout) and form.byte_dropout:
        return own.Dropout(module.p)
    return module


def _cast(bias: Tensor | None, like: Tensor) -> Tensor | None:
    return None if bias is None else bias.to(like.dtype)
