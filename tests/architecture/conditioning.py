"""Whether a network computes more than rounding: where equal values are normalized, rounding is all that is left."""

from __future__ import annotations

import copy

from torch import Tensor, nn

LEAST_DEVIATION = 1e-3


def has_spread(model: nn.Module, images_NCHW: Tensor) -> bool:
    """Whether the values in every channel, or group, that is normalized in training differ from one another.

    A channel of a single value is not normalized in training.
    """
    deviations: list[float] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x_NCHW,) = inputs
        if isinstance(module, nn.GroupNorm):
            rows = x_NCHW.reshape(len(x_NCHW) * module.num_groups, -1)
        else:
            rows = x_NCHW.transpose(0, 1).flatten(1)
        if rows.shape[1] > 1:
            deviations.append(float(rows.detach().std(1, unbiased=False).min()))

    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
            module.register_forward_pre_hook(look)
    model(images_NCHW)
    return min(deviations, default=1.0) > LEAST_DEVIATION
