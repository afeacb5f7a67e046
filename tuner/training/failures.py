"""Classify errors in training: whether memory ran out, and whether this process can still use its device."""

from __future__ import annotations

from collections.abc import Iterator

import torch

WANT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED")
"""Phrases in the errors of torch's allocators, CUDA, MPS, cuBLAS and cuDNN that mean a lack of memory."""
OF_THE_DEVICE = ("CUDA error", "CUDA driver error", "CUDNN_STATUS")
"""Phrases of device errors that torch raises as plain RuntimeErrors: those of cuBLAS, the driver and cuDNN."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the device or on the host."""
    return any(map(_says_out_of_memory, _chain(error)))


def is_device_broken(error: BaseException) -> bool:
    """Whether an error may prevent this process from using its device again, so that a new process must take over.

    After a fault in a kernel (an illegal address, an assertion, an ECC error), every further CUDA call in the process
    fails, and after a failed graph capture, torch's random numbers do. Harmless device errors are treated the same,
    because a new process costs only seconds. Out-of-memory errors are not included.

    Source: CUDA Runtime API, cudaErrorIllegalAddress: "To continue using CUDA, the process must be terminated and
    relaunched."
    """
    return any(_is_of_the_device(one) and not _says_out_of_memory(one) for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause and its context, and theirs.

    When an error interrupts the capture of a graph, ending the capture fails too. That last error hides the first one,
    which says what was wrong.
    """
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) not in seen:
            seen.add(id(one))
            yield one
            waiting += [other for other in (one.__cause__, one.__context__) if other is not None]


def _says_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WANT_OF_MEMORY)


def _is_of_the_device(error: BaseException) -> bool:
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OF_THE_DEVICE)
