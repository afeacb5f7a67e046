"""What torch, oneDNN and the C library keep for a whole process: threads, TF32, denormals, freed memory."""

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

    GPU, threads, denormals, TF32, compiled kernels, freed memory.
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
    """Give back what a training that is over has left in this process, for the others that share its device.

    On a GPU torch keeps freed memory for its process, and that of a captured graph even for this graph alone. What
    hangs in cycles of references, such as those of an error, is freed first. On a CPU the C library keeps it.
    """
    if torch.device(engine.device).type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
    elif sys.platform == "linux":
        give_back_freed_memory()


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """No TF32 within the block: scores are fp32's, as plain torch computes them."""
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = matmul, cudnn
