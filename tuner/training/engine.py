"""The training step for one device: where it runs, in which precision and layout."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import nn

from tuner.errors import DeviceError
from tuner.training.candidate import Recipe

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Engine:
    """How the steps of every trial of a study are computed; kept in the study, so that a resumed one computes the same.

    device: as torch names it. num_threads: of each runner, on a CPU.
    """

    device: str
    precision: Precision = "fp32"
    channels_last: bool = True
    num_threads: int = 1

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `Engine(**data)` reads it back."""
        return asdict(self)


def choose_device(name: str) -> torch.device:
    """The device of a name: `auto` takes CUDA, then MPS, then the CPU; anything else must be there.

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
    elif device.type != "cpu":
        raise DeviceError(f"--device must be auto, cpu, mps, cuda or cuda:N, got {name!r}")
    return device


def prepare_process(engine: Engine) -> None:
    """Set what torch keeps for the whole process: threads, and denormals flushed to zero."""
    if engine.device == "cpu":
        torch.set_num_threads(engine.num_threads)
    torch.set_flush_denormal(True)


def build_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer; the learning rate is set anew before every step."""
    parameters = list(parameters)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            nesterov=recipe.momentum > 0,
            weight_decay=recipe.weight_decay,
        )
    optimizer_class = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return optimizer_class(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
