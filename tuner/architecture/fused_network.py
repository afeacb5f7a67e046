"""A faster form of a network for training: whole blocks as single autograd nodes, activations in any precision.

The model is still the `nn.Sequential` of torch's own modules, which holds the weights and is scored and saved. The fast
form only computes with its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from tuner.architecture import layers as own
from tuner.architecture.activations import ACTIVATIONS
from tuner.architecture.excitation import excite, is_mean
from tuner.architecture.fused_block import FusedBlock, can_fuse, fused_length
from tuner.architecture.joined import Joined

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FastForm:
    """Options of the fast form, none of which changes the result; `Engine` describes them."""

    early_pooling: bool = True
    byte_dropout: bool = True


def fast_form(model: nn.Sequential, form: FastForm) -> Forward:
    """A function from images_NCHW (channels_last, fp32 or bf16) to logits_NK in the same precision, for training.

    A convolution and what follows it run as one node, on every path, and so do normalization and activation in front of
    a convolution or after a sum. What cannot be fused, and the head, run layer by layer.
    """
    return _fast_path(list(model), form)


def _fast_path(modules: Sequence[nn.Module], form: FastForm, *, shares_gradient: bool = False) -> Forward:
    """The modules in turn. `shares_gradient`: whether another path gets the same gradient as the last module."""
    steps: list[Forward] = []
    position = 0
    while position < len(modules):
        module = modules[position]
        length = max(1, fused_length(modules[position:]))
        group = modules[position : position + length]
        position += length
        if isinstance(module, Joined):
            steps.append(_fast_joined(module, form))
            continue
        in_turn = _in_turn([_in_any_precision(one, form) for one in group])
        if can_fuse(group):
            fused = FusedBlock(
                group,
                early_pooling=form.early_pooling,
                byte_dropout=form.byte_dropout,
                shares_gradient=shares_gradient and position == len(modules),
            )
            steps.append(_fused_or_in_turn(fused, in_turn))
        else:
            steps.append(in_turn)
    return _in_turn(steps)


def _fused_or_in_turn(fused: FusedBlock, in_turn: Forward) -> Forward:
    """The fused node, or its layers one by one if the input is not feature maps or has only one image.

    The 1x1 feature map of a single image has no variance; our BatchNorm2d handles this case.
    """
    return lambda x: fused(x) if x.dim() == 4 and len(x) > 1 else in_turn(x)


def _fast_joined(joined: Joined, form: FastForm) -> Forward:
    is_sum = joined.join == "add"
    if not is_sum and not len(joined.shortcut) and is_mean(joined.main[0]) and not _is_grouped(joined.main[1]):
        factors_from = _fast_path(list(joined.main)[1:], form)
        return lambda x: excite(x, factors_from)
    main = _fast_path(list(joined.main), form, shares_gradient=is_sum)
    shortcut = _fast_path(list(joined.shortcut), form, shares_gradient=is_sum)
    return (lambda x: main(x) + shortcut(x)) if is_sum else (lambda x: main(x) * shortcut(x))


def _is_grouped(module: nn.Module) -> bool:
    """Whether a convolution has groups, as one for several models has. `excite` then fails the check in fp32."""
    return isinstance(module, nn.Conv2d) and module.groups > 1


def scoring_form(model: nn.Sequential) -> Forward:
    """Return a function from images_NCHW (fp32) to logits_NK, for a model in evaluation, without gradients.

    Activations work in place. Tanh and ELU are our own functions, equal up to rounding, because torch's ELU can take 9
    ns per element, as long as the convolution before it.
    """
    return _in_turn(list(_scoring_steps(model)))


def _scoring_steps(path: nn.Sequential) -> Iterator[Forward]:
    """The steps of a path. The first one never works in place, because another path may have the same input."""
    for position, module in enumerate(path):
        if isinstance(module, Joined):
            yield _scoring_joined(module)
        elif position > 0 and type(module) in ACTIVATIONS:
            yield ACTIVATIONS[type(module)][0]
        else:
            yield module


def _scoring_joined(joined: Joined) -> Forward:
    main, shortcut = (_in_turn(list(_scoring_steps(path))) for path in (joined.main, joined.shortcut))
    if joined.join == "add":
        return lambda x: main(x) + shortcut(x)
    return lambda x: main(x) * shortcut(x)


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
