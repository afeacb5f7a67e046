"""FlipTest: a network whose logits are the mean of those of an image and of its mirror image."""

from __future__ import annotations

from torch import Tensor, nn


class FlipTest(nn.Sequential):
    """The layers of an nn.Sequential, with the same names, run on each image and on its mirror image.

    Logits are averaged and not probabilities, so that the output is still logits, of which a softmax gives
    probabilities. Source: the evaluation of Keller Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024.
    """

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Return logits (N, K)."""
        logits_NK: Tensor = super().forward(images_NCHW)  # type: ignore[no-untyped-call]
        mirrored_NK: Tensor = super().forward(images_NCHW.flip(3))  # type: ignore[no-untyped-call]
        return (logits_NK + mirrored_NK) / 2
