"""What `python -m benchmarks spaces` measures: the curves of each space's networks, as a JSON file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from tuner.errors import DataError, reason_of
from tuner.formats import refuse_newer_format

FORMAT = 1
Interval = tuple[float, float]


@dataclass(frozen=True)
class Run:
    """One training run. curve: validation accuracy (0..1) by epoch. seconds: of all its epochs."""

    outcome: Literal["finished", "diverged", "out of memory", "failed", "lost"]
    reason: str
    curve: tuple[float, ...]
    seconds: float

    @property
    def is_counted(self) -> bool:
        """Whether it belongs to the distribution of its space: not if it was the machine that ended it."""
        return self.outcome in ("finished", "diverged")

    @property
    def accuracy(self) -> float:
        """After the last epoch; 0 for a network that diverged."""
        return self.curve[-1] if self.outcome == "finished" else 0.0


@dataclass(frozen=True)
class SampledNetwork:
    """A network that was drawn from a space, and its training. flops: of one image's forward pass."""

    params: dict[str, Any]
    without_effect: tuple[str, ...]
    candidate: dict[str, Any]
    flops: int
    num_parameters: int
    run: Run


@dataclass(frozen=True)
class RepeatedNetwork:
    """A network that was trained with several seeds. accuracy: mean after the last epoch, with its 95 % interval."""

    candidate: dict[str, Any]
    flops: int
    num_parameters: int
    runs: tuple[Run, ...]
    accuracy: float
    interval: Interval | None


@dataclass(frozen=True)
class SpaceResult:
    """A space: its first configuration and its sampled networks, in the order in which they were drawn.

    space: as a study stores it. difference: accuracy of the first configuration minus that of the reference.
    num_untrained: networks that were drawn, and not trained to their last epoch within the time limit.
    """

    name: str
    space: dict[str, Any]
    first: RepeatedNetwork
    difference: float
    difference_interval: Interval | None
    networks: tuple[SampledNetwork, ...]
    num_rejected: int
    num_repeated: int
    num_untrained: int
    seconds: float


@dataclass(frozen=True)
class Settings:
    """What two measurements must share to be comparable."""

    dataset: str
    digest: str
    num_train: int
    num_validation: int
    epochs: int
    reference: str


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Measurement:
    """All that one run of the command measured."""

    format: int
    settings: Settings
    seed: int
    machine: str
    torch: str
    engine: dict[str, Any]
    reference: RepeatedNetwork
    spaces: tuple[SpaceResult, ...]


_ADAPTER = TypeAdapter(Measurement)


def refuse_existing(path: Path) -> None:
    """Raise DataError if results would replace a file or have no folder; called before anything is trained."""
    if path.exists():
        raise DataError(f"--output must be a new file; {path} already exists: give another --output, or remove it")
    if not path.parent.is_dir():
        raise DataError(f"--output must be in an existing folder; {path.parent} is none: create it")


def save_results(measured: Measurement, path: Path) -> None:
    path.write_text(json.dumps(_ADAPTER.dump_python(measured, mode="json"), indent=1), encoding="utf-8")


def load_results(path: Path) -> Measurement:
    """Raises DataError, with the file and the reason, for a file that `save_results` has not written."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        refuse_newer_format(data, known=FORMAT, what="results of spaces")
        return _ADAPTER.validate_python(data)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}") from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        reason = f"{where}: {error.errors()[0]['msg']}"
        raise DataError(f"{path}: must be a file that `python -m benchmarks spaces` wrote: {reason}") from error
    except ValueError as error:
        raise DataError(f"{path}: must be a file that `python -m benchmarks spaces` wrote: {error}") from error
