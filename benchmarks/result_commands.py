"""Commands for docs/results.md: `optuna-example`, and `results`, which prints the table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.output import say, show
from tuner import interrupts


def optuna_example(
    dataset: Annotated[str, typer.Option(help="Name of a data set, or path of an image folder.")] = "digits",
    data_dir: Annotated[Path, typer.Option(help="Folder that contains MNIST and other sets.")] = Path("data"),
    minutes: Annotated[
        float, typer.Option(help="Time in minutes; the trial that runs at its end is completed.", min=0.001)
    ] = 3.0,
    seed: Annotated[int, typer.Option(help="Random seed for splitting, sampling and training.", min=0)] = 0,
    cache_dir: Annotated[Path, typer.Option(help="Folder for decoded images.")] = Path("studies/.cache"),
    output: Annotated[Path | None, typer.Option("--output", "-o", help="New JSON file for the result.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
) -> None:
    """The test accuracy of a search like Optuna's own PyTorch example, after a given time on this machine."""
    from benchmarks.example_result import save_example
    from benchmarks.optuna_example import measure
    from benchmarks.space_results import refuse_existing
    from tuner.data.dataset import DataSpec

    interrupts.leave_in_order()
    if output is not None:
        refuse_existing(output)
    spec = DataSpec(dataset, data_dir, cache_dir)
    result = measure(spec, minutes=minutes, seed=seed, say=lambda line: say(line, as_json))
    if output is not None:
        save_example(result, output)
        say(f"stored in {output}", as_json)
    show(result.to_json(), as_json)


def results(
    names: Annotated[list[str], typer.Argument(metavar="STUDY...", help="Names of confirmed studies.")],
    budget: Annotated[str, typer.Option(help="The --budget that the studies were run with, such as 60m.")],
    epochs: Annotated[int | None, typer.Option(help="The --epochs that the studies were run with, if any.")] = None,
    studies: Annotated[Path, typer.Option(help="Folder that holds the studies and their database.")] = Path("studies"),
    example: Annotated[
        list[Path] | None,
        typer.Option(help="File that optuna-example wrote; none, or one for each study, in the same order."),
    ] = None,
) -> None:
    """The table of docs/results.md for confirmed studies; print it on the machine that ran them."""
    from benchmarks.example_result import load_example
    from benchmarks.result_row import HEADER, row_of
    from tuner.cli.options import parse_duration
    from tuner.search.study_location import existing_storage
    from tuner.search.study_lookup import load_study

    parse_duration(budget)
    if example and len(example) != len(names):
        raise typer.BadParameter(
            f"must be given once for each of the {len(names)} studies, or not at all; got {len(example)}",
            param_hint="'--example'",
        )
    examples = [load_example(path) for path in example] if example else [None] * len(names)
    storage = existing_storage(studies, None)
    records = [load_study(storage, name) for name in names]
    rows = [
        row_of(record, budget=budget, epochs=epochs, example=one) for record, one in zip(records, examples, strict=True)
    ]
    typer.echo("\n".join([HEADER, *rows]))
    accuracies = [record.confirmed.test_accuracy for record in records if record.confirmed is not None]
    if len(accuracies) > 1:
        typer.echo(f"\nmean of the confirmed test accuracies: {sum(accuracies) / len(accuracies):.2%}")
