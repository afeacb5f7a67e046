"""Trace a checkpoint's network together with its preprocessing, for ONNX and pt2: uint8 pixels to logits."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from tuner.data.images import Preprocessing
from tuner.data.resident import pixel_scaling
from tuner.training.checkpoint import Checkpoint, model_from

INPUT, OUTPUT = "images_NCHW", "logits_NK"


class WholeNetwork(nn.Module):
    """Preprocessing and network in one module, in eval mode."""

    shift_C11: Tensor
    scale_C11: Tensor

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.network = model_from(checkpoint)
        shift_C11, scale_C11 = scaling_of(checkpoint.preprocessing)
        self.register_buffer("shift_C11", shift_C11)
        self.register_buffer("scale_C11", scale_C11)
        self.eval()

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Compute fp32 logits (N, K) from uint8 images (N, C, H, W)."""
        logits_NK: Tensor = self.network((images_NCHW.float() - self.shift_C11) * self.scale_C11)
        return logits_NK


def scaling_of(preprocessing: Preprocessing) -> tuple[Tensor, Tensor]:
    """Return shift and scale of `pixel_scaling`, in fp32 on the CPU."""
    return pixel_scaling(preprocessing.mean, preprocessing.std, dtype=torch.float32, device=torch.device("cpu"))


def traced_program(checkpoint: Checkpoint) -> ExportedProgram:
    """Trace the network with torch.export, for any number of images; paths of this machine are removed."""
    sample_NCHW = torch.zeros(2, *checkpoint.candidate.architecture.input_shape, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of its own insides
        program = torch.export.export(
            WholeNetwork(checkpoint), (sample_NCHW,), dynamic_shapes={INPUT: {0: Dim("N", min=1)}}
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program
