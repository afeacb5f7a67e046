"""A row of the table in docs/results.md, read from a confirmed study and the file of an Optuna example."""

from __future__ import annotations

import shlex

import torch

from benchmarks.example_result import ExampleResult
from tuner.errors import StudyError
from tuner.hardware import device_name
from tuner.search.record import StudyRecord

HEADER = (
    "| set | space | budget | device | confirmed test accuracy | parameters | seconds "
    "| Optuna example: test accuracy | parameters | seconds | command |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)
NOT_MEASURED = "-"


def row_of(record: StudyRecord, *, budget: str, epochs: int | None, example: ExampleResult | None) -> str:
    """Format a study as a row of Markdown.

    budget, epochs: the options that the study was run with; a study does not store its budget. The seconds are those
    from the start of the first trial to the end of the last, and those of the confirmation. The device is one of this
    machine, so the row must be printed on the machine that ran the study. Raises StudyError for a study that is not
    confirmed or was run with other epochs, and for an example of another data set.
    """
    confirmed, settings = record.confirmed, record.settings
    if confirmed is None:
        raise StudyError(f"a row needs a confirmed study; {record.name!r} is not: run `tuner confirm {record.name}`")
    if epochs is not None and epochs != settings.epochs:
        raise StudyError(f"--epochs must be that of study {record.name!r}, {settings.epochs}; got {epochs}")
    if example is not None and example.dataset != settings.dataset:
        raise StudyError(
            f"--example must be of the data set of study {record.name!r}, {settings.dataset}; got {example.dataset}"
        )
    trials = record.trials()
    (winner,) = [trial for trial in trials if trial.number == confirmed.number]
    starts = [trial.started for trial in trials if trial.started is not None]
    ends = [trial.ended for trial in trials if trial.ended is not None]
    space = settings.space_name if settings.is_space_bundled else f"{settings.space_name}.toml"
    command = ["tuner", "run", "--dataset", settings.dataset, "--space", space, "--budget", budget]
    command += [] if epochs is None else ["--epochs", str(epochs)]
    command += ["--seed", str(settings.seed)]
    cells = [
        settings.dataset,
        settings.space_name,
        budget,
        device_name(torch.device(record.engine.device)),
        _accuracy(confirmed.test_accuracy, confirmed.interval),
        f"{winner.num_parameters:,}",
        f"{(max(ends) - min(starts)).total_seconds() + confirmed.seconds:,.0f}",
        NOT_MEASURED if example is None else _accuracy(example.test_accuracy, example.test_interval),
        NOT_MEASURED if example is None else f"{example.num_parameters:,}",
        NOT_MEASURED if example is None else f"{example.seconds:,.0f}",
        f"`{shlex.join(command)}`",
    ]
    return "| " + " | ".join(cells) + " |"


def _accuracy(accuracy: float, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return f"{accuracy:.2%}, no interval"
    low, high = interval
    return f"{accuracy:.2%} ({low:.2%} to {high:.2%})"
