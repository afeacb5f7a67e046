"""Show a search in TensorBoard while it runs: `python examples/events.py [TRIALS]`, then `tensorboard --logdir runs`.

TensorBoard is not installed with tuner: `pip install tensorboard`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import closing
from typing import Protocol

import tuner
from tuner.search.events import EpochFinished, TrialEnded


class Writer(Protocol):
    """The part of torch.utils.tensorboard.SummaryWriter that is used here."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """Add one point of a curve."""


def write_events(events: Iterable[object], writer: Writer) -> None:
    """Write a curve for each trial, and the best validation accuracy after each trial."""
    for event in events:
        match event:
            case EpochFinished(number=number, result=result):
                writer.add_scalar(f"train_loss/trial_{number}", result.train_loss, result.epoch)
                writer.add_scalar(f"validation_accuracy/trial_{number}", result.validation_accuracy, result.epoch)
            case TrialEnded(number=number, best=best) if best is not None:
                writer.add_scalar("best_validation_accuracy", best.validation_accuracy, number)


if __name__ == "__main__":
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        sys.exit(f"this example needs TensorBoard ({error}): pip install tensorboard")
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    with closing(SummaryWriter("runs")) as writer, closing(tuner.run_events(tuner.RunOptions(trials=trials))) as events:
        write_events(events, writer)
