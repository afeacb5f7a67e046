"""Memory that a process holds but no tensor uses: blocks kept by the C library, and kernels kept by oneDNN."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Parameters of glibc's mallopt, from malloc.h."""
DEFAULT_MMAP_MAX, MAX_MMAP_THRESHOLD = 65_536, 32 * 2**20
"""Number of mappings that glibc allows, and the largest size to which it raises its threshold for mapping a block."""
KERNELS_KEPT = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": 768, "LRU_CACHE_CAPACITY": 32}
"""Number of compiled kernels kept by oneDNN, and of bf16 matrix products kept by torch.

A step must find its own kernels in this cache, or it compiles them again each time. A block needs about ten, and a
space has up to 64 blocks; a head needs twelve products. By default both limits are 1,024, and every network adds
others. Source: oneDNN's developer guide, Primitive Cache; lru_cache.hpp of intel/ideep.
"""
OLDER_NAMES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "DNNL_PRIMITIVE_CACHE_CAPACITY"}
"""Older names that are still read if the newer ones are not set."""


def keep_freed_memory(keep: bool) -> bool:
    """Make glibc keep freed memory, or restore its default; return whether there is a glibc that accepted it.

    By default glibc learns: a block that is larger than the largest block freed so far is mapped, and every page of it
    is faulted in at every step. Setting any parameter ends this learning, so the default is restored as the values that
    glibc would reach: blocks of up to 32 MiB are not mapped, and up to 64 MiB are kept at the end of the heap. Source:
    mallopt(3), M_MMAP_THRESHOLD.
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
    """Return free pages of the heap to the system, whatever glibc was set to keep; False if there is no glibc.

    This takes milliseconds, and the pages of later allocations must be faulted in again.
    """
    malloc_trim = _from_glibc("malloc_trim")
    if malloc_trim is None:
        return False
    malloc_trim(0)
    return True


def keep_few_kernels() -> None:
    """Limit the kernels that oneDNN keeps in this process, unless the user's environment sets the limit.

    Both limits are read only once: one when the first kernel is compiled, the other as early as torch.set_num_threads.
    """
    for name, count in KERNELS_KEPT.items():
        if OLDER_NAMES.get(name, name) not in os.environ:
            os.environ.setdefault(name, str(count))


def _from_glibc(name: str) -> Callable[..., int] | None:
    """Return a function of glibc, or None if another C library such as musl is used."""
    function: Callable[..., int] | None = getattr(ctypes.CDLL(None), name, None)
    return function
