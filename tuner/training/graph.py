"""Run forward, backward and the optimizer step as one CUDA graph, which is captured once and then replayed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARM_UP_STEPS = 3
"""Ordinary training steps that run before the capture, as torch's notes on CUDA graphs require."""

Learn = Callable[[Tensor, Tensor], Tensor]
"""Function that trains on one batch: (images_NCHW, labels_N) -> loss, a scalar still on the device."""


def graphed(learn: Learn, *, batch_size: int) -> Learn:
    """Return `learn` as a graph that is replayed for batches of `batch_size` images.

    The first few steps, and batches of other sizes, call `learn` itself. What changes from step to step must be read
    from tensors on the device: the optimizer is fused and capturable, and its learning rate is a tensor. Source: "CUDA
    Graphs" in torch's notes, whole-network capture.
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
        """Take a step on a separate stream, where libraries can initialize what they cannot during a capture."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            loss = self._learn(images_NCHW, labels_N)
        torch.cuda.current_stream().wait_stream(self._stream)
        return loss

    def _capture(self, images_NCHW: Tensor, labels_N: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]:
        """Capture a step on copies of a batch; capturing computes nothing."""
        graph = torch.cuda.CUDAGraph()
        static_images_NCHW, static_labels_N = images_NCHW.clone(), labels_N.clone()
        # On a stream of its own: graphs of one stream share the workspace of cuBLAS, which goes with the first of them.
        with torch.cuda.graph(graph, stream=self._stream):
            static_loss = self._learn(static_images_NCHW, static_labels_N)
        return graph, static_images_NCHW, static_labels_N, static_loss
