"""Settings of torch, oneDNN and the C library for a whole process: threads, TF32, denormals, freed memory."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tuner.training.engine import Engine
from tuner.training.unused_memory import give_back_freed_memory, keep_few_kernels, keep_freed_memory


def prepare_process(engine: Engine) -> None:
    """Set what torch, oneDNN and the C library keep for the whole process, before the first step.

    These are the GPU, threads, denormals, TF32, compiled kernels and freed memory.
    """
    keep_few_kernels()
    device = torch.device(engine.device)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # where streams are made and graphs captured
    torch.set_num_threads(engine.num_threads)
    torch.set_flush_denormal(engine.flush_denormals)
    torch.backends.cudnn.benchmark = False  # it times every new shape: no use in short trials
    torch.backends.cuda.matmul.allow_tf32 = engine.tf32
    torch.backends.cudnn.allow_tf32 = engine.tf32
    if sys.platform == "linux":
        keep_freed_memory(engine.keep_freed_memory)


def give_back_memory(engine: Engine) -> None:
    """Release the memory that finished training still holds in this process, for other processes on the device.

    On a GPU, torch keeps freed memory for its process, and the memory of a captured graph for that graph only. Objects
    in reference cycles, such as those of an error, are freed first. On a CPU, the C library keeps freed memory.
    """
    if torch.device(engine.device).type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        give_back_freed_memory()


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Turn TF32 off within the block, so that scores are computed in fp32 as in plain torch."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
