"""The module of a part with a join: a main path and a shortcut, whose outputs are added or multiplied."""

from __future__ import annotations

from torch import Tensor, nn

from tuner.architecture.parts import Join


class Joined(nn.Module):
    """The sum, or with `multiply` the product, of two paths. A shortcut without modules is the identity."""

    def __init__(self, main: nn.Sequential, shortcut: nn.Sequential, join: Join) -> None:
        super().__init__()
        assert join != "none"
        self.main, self.shortcut, self.join = main, shortcut, join

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the shape of the sum. For a product, the main path's (N, C, 1, 1) is broadcast."""
        main_NCHW: Tensor = self.main(x)
        shortcut_NCHW: Tensor = self.shortcut(x)
        return main_NCHW + shortcut_NCHW if self.join == "add" else main_NCHW * shortcut_NCHW
