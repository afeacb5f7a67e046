"""What an error in a training says: whether memory ran out, and whether this process can still use its device."""

from __future__ import annotations

from collections.abc import Iterator

import torch

WANT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED")
"""Words of torch's allocators, of CUDA and MPS, of cuBLAS and cuDNN."""
OF_THE_DEVICE = ("CUDA error", "CUDA driver error", "CUDNN_STATUS")
"""Words of the errors that torch raises as plain RuntimeErrors: those of cuBLAS, of the driver and of cuDNN."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on the device or here."""
    return any(map(_says_out_of_memory, _chain(error)))


def is_device_broken(error: BaseException) -> bool:
    """Whether an error may have left this process unable to use its device again; then another process must go on.

    After a fault in a kernel (an illegal address, an assertion, an ECC error) every further call of CUDA in the process
    fails, and after a failed capture of a graph torch's random numbers do. Errors of the device that harm nothing are
    not told apart: another process costs seconds. Want of memory is none.

    Source: CUDA Runtime API, cudaErrorIllegalAddress: "To continue using CUDA, the process must be terminated and
    relaunched."
    """
    return any(_is_of_the_device(one) and not _says_out_of_memory(one) for one in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and those that it came up in: the end of a graph's capture fails in its turn.

    That last error hides the first one, which says what was wrong.
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
