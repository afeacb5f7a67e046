"""Layers of our own, each a drop-in for its twin in torch.nn and tested against it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


class BatchNorm2d(nn.BatchNorm2d):
    """torch.nn.BatchNorm2d that also trains on one value per channel.

    torch raises there, since one value has no variance: a last batch of one image over a 1x1 feature map. Then the
    running statistics normalise, as in evaluation, and stay as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if self.training and input.numel() == input.shape[1]:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)


TWINS: dict[str, type[nn.Module]] = {"BatchNorm2d": BatchNorm2d}
"""By the name of the torch.nn class that each stands in for."""
