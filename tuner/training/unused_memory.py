"""Memory that a process holds and no tensor uses: what the C library keeps of freed blocks, and oneDNN of kernels."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Parameters of glibc's mallopt, from malloc.h."""
DEFAULT_MMAP_MAX, MAX_MMAP_THRESHOLD = 65_536, 32 * 2**20
"""How many mappings it makes, and up to which size it learns to do without one, once such a block was freed."""
KERNELS_KEPT = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": 768, "LRU_CACHE_CAPACITY": 32}
"""How many compiled kernels oneDNN keeps of all, and torch itself of matrix products in bf16.

A step must find its own there, or it compiles them again each time: about ten for a block, of which a space has up to
64, and twelve products for a head. By default both are 1,024, and every network has others. Source: oneDNN's developer
guide, Primitive Cache; lru_cache.hpp of intel/ideep.
"""
OLDER_NAMES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "DNNL_PRIMITIVE_CACHE_CAPACITY"}
"""That are still read, where the newer ones are not set."""


def keep_freed_memory(keep: bool) -> bool:
    """Tell glibc to keep freed memory, or to do as it does by default; whether there is a glibc that took it.

    By default it learns: what is larger than the largest block freed so far is mapped, and every page of it faulted in,
    at every step. To set any parameter ends that learning, so "by default" is here what it comes to: blocks of up to
    32 MiB are not mapped, and up to twice that is kept at the end of the heap. Source: mallopt(3), M_MMAP_THRESHOLD.
    """
    mallopt = _from_glibc("mallopt")
    if mallopt is None:
        return False
    values = {
        M_MMAP_MAX: 0 if keep else DEFAULT_MMAP_MAX,
        M_MMAP_THRESHOLD: MAX_MMAP_THRESHOLD,
        M_TRIM_THRESHOLD: 2**31 - 1 if keep else 2 * MAX_MMAP_THRESHOLD,
    }
    return all(mallopt(parameter, value) for parameter, value in values.items())


def give_back_freed_memory() -> bool:
    """Give every free page of the heap back to the system, whatever glibc was told to keep; whether there is a glibc.

    It takes milliseconds, and what is allocated next has its pages faulted in again.
    """
    malloc_trim = _from_glibc("malloc_trim")
    if malloc_trim is None:
        return False
    malloc_trim(0)
    return True


def keep_few_kernels() -> None:
    """Bound the kernels that oneDNN keeps in this process, where the user's environment does not say how many.

    Both numbers are read once: when the first kernel is compiled, and the second by torch.set_num_threads already.
    """
    for name, count in KERNELS_KEPT.items():
        if OLDER_NAMES.get(name, name) not in os.environ:
            os.environ.setdefault(name, str(count))


def _from_glibc(name: str) -> Callable[..., int] | None:
    """A function of the C library, None where it is another one, such as musl."""
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return function
