"""What `python -m benchmarks optuna-example` measures, as a JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from tuner.errors import DataError, reason_of


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class ExampleResult:
    """Result of one run. Accuracies are in 0..1; best_params and num_parameters are those of the best trial's network.

    test_interval: 95 % interval for the test images; it does not cover other seeds. seconds: without reading images.
    """

    dataset: str
    machine: str
    torch: str
    optuna: str
    minutes: float
    seed: int
    num_train: int
    num_validation: int
    num_test: int
    num_complete: int
    num_pruned: int
    seconds: float
    best_trial: int
    best_params: dict[str, Any]
    num_parameters: int
    validation_accuracy: float
    test_accuracy: float
    test_interval: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Return the object that the command prints and stores."""
        return asdict(self)


_ADAPTER = TypeAdapter(ExampleResult)


def save_example(result: ExampleResult, path: Path) -> None:
    """Write a result to a file."""
    path.write_text(json.dumps(result.to_json(), indent=2) + "\n", encoding="utf-8")


def load_example(path: Path) -> ExampleResult:
    """Read a result. Raises DataError, with the file and the reason, for a file that `save_example` has not written."""
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason_of(error)}") from error
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        reason = f"{where}: {error.errors()[0]['msg']}" if where else error.errors()[0]["msg"]
        raise DataError(f"{path}: must be a file that `python -m benchmarks optuna-example` wrote: {reason}") from error
