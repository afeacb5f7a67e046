"""The machine: its processor, its devices and their memory."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

import psutil
import torch

from tuner import control_groups

GPU_CONTEXT_BYTES = 700 * 2**20
"""GPU memory that a process takes before its first tensor: CUDA's context and its libraries' kernels."""
MAX_RUNNERS_PER_GPU = 8


def devices_for(device: torch.device, *, is_auto: bool) -> tuple[torch.device, ...]:
    """Return the devices that runners are distributed over: every GPU of the machine if none was named."""
    if device.type == "cuda" and (is_auto or device.index is None):
        return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))
    return (device,)


def num_cores() -> int:
    """Processor cores that this process may use; a container's CPU quota is rounded up to whole cores."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = control_groups.cpu_quota()
    return cores if quota is None else min(cores, math.ceil(quota))


def limit_threads() -> None:
    """Limit torch to the cores that this process may use; by default, it uses all of the machine's cores."""
    if torch.get_num_threads() > num_cores():
        torch.set_num_threads(num_cores())


def memory_bytes(device: torch.device) -> int:
    """Total memory of a device in bytes; for a CPU, the memory of the machine or the container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    total = int(psutil.virtual_memory().total)
    limit = control_groups.memory_limit()
    return total if limit is None else min(total, limit)


def device_name(device: torch.device) -> str:
    """Name of a device, as in `AMD EPYC 9R14, AVX512` or `NVIDIA H100`."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor_name()}, {torch.backends.cpu.get_cpu_capability()}"


def device_kind(device: torch.device) -> str:
    """Describe the kind of a device: a measurement is valid for every device with the same description.

    Memory is rounded, because GPUs of one model differ by a few MiB.
    """
    if device.type != "cuda":
        return device_name(device)
    about = torch.cuda.get_device_properties(device)
    return (
        f"{about.name} ({about.total_memory / 2**30:.0f} GiB, {about.multi_processor_count} multiprocessors, "
        f"compute capability {about.major}.{about.minor})"
    )


def cpu_flags() -> str:
    """Return the instruction sets of the processor, as in `fpu sse2 avx2 amx_bf16`, or its name if they are unknown."""
    return _cpuinfo("flags", "Features") or platform.processor()


def _processor_name() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(*names: str) -> str:
    """Return the first value that Linux lists under any of these names; empty on other systems."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() in names:
                return value.strip()
    return ""
