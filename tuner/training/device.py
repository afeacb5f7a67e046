"""Find the torch device for a name such as `auto` or `cuda:1`."""

from __future__ import annotations

import torch

from tuner.errors import DeviceError


def choose_device(name: str) -> torch.device:
    """Return the device for a name: `auto` prefers CUDA, then MPS, then the CPU. Other devices must exist.

    Raises DeviceError.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"--device must be auto, cpu, mps, cuda or cuda:N, got {name!r}") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(
                f"--device {name}: this machine has {count} CUDA devices that torch can use; try --device auto"
            )
    elif device.type == "mps":
        if not torch.backends.mps.is_available():
            raise DeviceError("--device mps: torch finds no MPS device here; try --device auto")
    elif device.type != "cpu" or device.index is not None:
        raise DeviceError(f"--device must be auto, cpu, mps, cuda or cuda:N, got {name!r}")
    return device
