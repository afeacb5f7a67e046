"""WeightAverage: the exponential moving average of a model's weights and running statistics during training."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn


class WeightAverage:
    """A copy of a model, or of stacked models, that follows its weights and running statistics step by step.

    After step t, counted from 0, each number a of the copy becomes d * a + (1 - d) * w, where w is the model's number
    and d = min(decay, (1 + t) / (10 + t)). The smaller decay of the first steps lets the average forget the initial
    weights. Source: `num_updates` of TensorFlow's tf.train.ExponentialMovingAverage. Whole numbers, which count
    batches, are copied.
    """

    def __init__(self, model: nn.Sequential, *, decay: float) -> None:
        self.model = deepcopy(model)
        self._decay = decay
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self._averages = [average for average, _ in pairs if average.is_floating_point()]
        self._values = [value for _, value in pairs if value.is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Update the average after a training step; `step` is the number of steps before it."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._values, 1 - decay)
        for count, value in self._counts:
            count.copy_(value)
