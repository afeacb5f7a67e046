"""Forward, backward and optimizer step as one CUDA graph: captured once, then replayed without a word from Python."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP_STEPS = 3
"""Steps that run as they come before the capture, as torch's notes on CUDA graphs ask for; they are real steps."""

Learn = Callable[[Tensor, Tensor], Tensor]
"""(images_NCHW, labels_N) -> the batch's loss, a scalar that is still on the device; the weights have learned."""


def graphed(learn: Learn, *, batch_size: int) -> Learn:
    """The same, replayed for batches of `batch_size` images; the first few, and other sizes, run as they come.

    What changes from step to step must be read from tensors on the device: the optimizer is fused and capturable, its
    learning rate a tensor. Source: "CUDA Graphs" in torch's notes, whole-network capture.
    """
    return _Graphed(learn, batch_size)


class _Graphed:
    def __init__(self, learn: Learn, batch_size: int) -> None:
        self._learn, self._batch_size = learn, batch_size
        self._num_warm = 0
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._captured: tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor] | None = None

    def __call__(self, images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        if len(images_NCHW) != self._batch_size:
            return self._learn(images_NCHW, labels_N)
        if self._num_warm < WARM_UP_STEPS:
            self._num_warm += 1
            return self._warm_up(images_NCHW, labels_N)
        if self._captured is None:
            self._captured = self._capture(images_NCHW, labels_N)
        graph, static_images_NCHW, static_labels_N, static_loss = self._captured
        static_images_NCHW.copy_(images_NCHW)
        static_labels_N.copy_(labels_N)
        graph.replay()
        return static_loss.clone()

    def _warm_up(self, images_NCHW: Tensor, labels_N: Tensor) -> Tensor:
        """A step on a stream of its own, where the libraries set up what a capture may not."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            loss = self._learn(images_NCHW, labels_N)
        torch.cuda.current_stream().wait_stream(self._stream)
        return loss

    def _capture(self, images_NCHW: Tensor, labels_N: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]:
        """Record a step on copies of a batch; recording computes nothing."""
        graph = torch.cuda.CUDAGraph()
        static_images_NCHW, static_labels_N = images_NCHW.clone(), labels_N.clone()
        # On a stream of its own: graphs of one stream share the workspace of cuBLAS, which goes with the first of them.
        with torch.cuda.graph(graph, stream=self._stream):
            static_loss = self._learn(static_images_NCHW, static_labels_N)
        return graph, static_images_NCHW, static_labels_N, static_loss
