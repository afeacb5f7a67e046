"""TrialRunner: trains one trial at a time, one epoch per call."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace

from tuner.errors import TunerError
from tuner.search.tasks import TrainingEnded, TrialTask
from tuner.training.failures import is_device_broken, is_out_of_memory
from tuner.training.results import Diverged, EpochResult, Preparing

Trainer = Callable[[TrialTask], Iterator[EpochResult | Preparing]]
"""Function that trains a task and yields epochs, and before them its progress; tests also use recorded curves."""


class TrialRunner:
    """Runs a trainer for one trial at a time."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._epochs: Iterator[EpochResult | Preparing] = iter(())

    def start(self, task: TrialTask) -> None:
        """Make a trial the current one, without training it yet."""
        self._epochs = self._trainer(task)

    def next_epoch(self) -> EpochResult | Preparing | TrainingEnded:
        """Train one epoch of the current trial, or prepare it for a while; errors are returned as a value."""
        try:
            result = next(self._epochs)
            return replace(result, weights=None) if isinstance(result, EpochResult) else result
        except StopIteration:
            return TrainingEnded("finished")
        except Diverged as error:
            return TrainingEnded("diverged", str(error))
        except Exception as error:  # noqa: BLE001 - a trial that fails must not end the search; it is stored with its traceback
            is_sentence = isinstance(error, TunerError)
            reason = str(error) if is_sentence else f"{type(error).__name__}: {error}".splitlines()[0]
            return TrainingEnded(
                "out of memory" if is_out_of_memory(error) else "failed",
                reason,
                traceback.format_exc(),
                device_is_broken=is_device_broken(error),
            )

    def stop(self) -> None:
        """Drop the current trial."""
        self._epochs = iter(())
