"""`python -m benchmarks throughput|search|overhead|start|memory|verdicts|recipe`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tuner import interrupts
from tuner.cli.exit_codes import run_and_exit

app = typer.Typer(add_completion=False, rich_markup_mode=None, help=__doc__, pretty_exceptions_enable=False)
DataDir = Annotated[
    Path, typer.Option(help="Folder that contains MNIST and other sets, or that they are downloaded to.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone.")]
Images = Annotated[int, typer.Option(help="To train on, for each network; at most what the set has.", min=100)]


def parse_patience(text: str) -> float:
    """A number above 0, which may be `inf`. Raises typer.BadParameter."""
    try:
        patience = float(text)
    except ValueError:
        patience = 0.0
    if not patience > 0:
        raise typer.BadParameter(f"must be a number above 0, got {text!r}")
    return patience


@app.command()
def throughput(
    data_dir: DataDir = Path("data"),
    dataset: Annotated[str, typer.Option(help="Name of a data set, or path of an image folder.")] = "mnist",
    list_name: Annotated[
        Literal["plain", "residual"],
        typer.Option("--list", help="Networks to train: twelve plain ones, or four residual and four mobile ones."),
    ] = "plain",
    images: Images = 20_000,
    seeds: Annotated[int, typer.Option(help="Of ours; their median counts.", min=1)] = 3,
    engine: Annotated[str, typer.Option(help="Force choices, as `tuner run --engine` does.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Fixed networks, one pass each: the textbook's loop, the same on every core, ours."""
    from benchmarks.throughput import measure, table

    interrupts.leave_in_order()
    result = measure(
        data_dir,
        dataset=dataset,
        list_name=list_name,
        num_images=images,
        num_seeds=seeds,
        engine=engine,
        say=lambda line: say(line, as_json),
    )
    show(result, as_json, text=table(result))


@app.command()
def search(
    data_dir: DataDir = Path("data"),
    trials: Annotated[int, typer.Option(help="Of ours, and of the textbook.", min=1)] = 20,
    epochs: Annotated[int, typer.Option(help="At most, for each trial.", min=1)] = 3,
    patience: Annotated[
        float,
        typer.Option(
            parser=parse_patience, metavar="FLOAT", help="The textbook is stopped after so many times our time."
        ),
    ] = 10.0,
    as_json: AsJson = False,
) -> None:
    """The whole search on MNIST: ours, then the textbook's, from the same space."""
    from benchmarks.whole_search import measure

    interrupts.leave_in_order()
    result = measure(data_dir, num_trials=trials, epochs=epochs, patience=patience, say=lambda line: say(line, as_json))
    show(result, as_json)


@app.command()
def overhead(
    trials: Annotated[int, typer.Option(help="Up to so many trials.", min=100, max=10_000)] = 10_000,
    as_json: AsJson = False,
) -> None:
    """The cost of a trial that trains nothing, through the real search loop and SQLite."""
    from benchmarks.overhead import measure

    interrupts.leave_in_order()
    result = measure(trials, say=lambda line: say(line, as_json))
    show(result, as_json)


@app.command()
def start(
    runs: Annotated[int, typer.Option(help="Of each kind; their median counts.", min=1)] = 3,
    as_json: AsJson = False,
) -> None:
    """Seconds from `tuner run` on digits to its first epoch, with and without the measurement of the engine.

    Then the seconds of the commands that only read: spaces, inspect, list and show.
    """
    from benchmarks.start import measure

    interrupts.leave_in_order()
    result = measure(runs, say=lambda line: say(line, as_json))
    show(result, as_json)


@app.command()
def memory(
    data_dir: DataDir = Path("data"),
    dataset: Annotated[str, typer.Option(help="mnist, or any other set at hand.")] = "mnist",
    images: Images = 4_000,
    as_json: AsJson = False,
) -> None:
    """What a runner adds to the shared images: private memory, for each of the networks of `throughput`."""
    from benchmarks.memory import measure

    interrupts.leave_in_order()
    result = measure(data_dir, dataset=dataset, num_images=images, say=lambda line: say(line, as_json))
    numbers = {key: value for key, value in result.items() if isinstance(value, float)}
    show(result, as_json, text=lines(numbers))


@app.command()
def verdicts(
    rounds: Annotated[int, typer.Option(help="Number of confirmations for each scenario.", min=1)] = 2_000,
    as_json: AsJson = False,
) -> None:
    """How often the intervals and verdicts of confirmations are right, on simulated networks of known accuracy."""
    from benchmarks.verdicts import measure, table

    interrupts.leave_in_order()
    result = measure(rounds, say=lambda line: say(line, as_json))
    show(result, as_json, text=table(result))


@app.command()
def recipe(
    data_dir: DataDir = Path("data"),
    dataset: Annotated[str, typer.Option(help="Name of a data set, or path of an image folder.")] = "cifar10",
    images: Images = 10_000,
    epochs: Annotated[int, typer.Option(help="Of each training.", min=1)] = 6,
    seeds: Annotated[int, typer.Option(help="Trainings with each recipe.", min=1)] = 3,
    only: Annotated[
        str, typer.Option(help="Additions to train beside the base recipe, separated by commas; all by default.")
    ] = "",
    engine: Annotated[str, typer.Option(help="Force choices, as `tuner run --engine` does.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """What each addition to a recipe is worth: ResNet-8 with a base recipe and with each addition, over seeds."""
    from benchmarks.recipes import ADDITIONS, measure, table

    interrupts.leave_in_order()
    names = [name.strip() for name in only.split(",")] if only else list(ADDITIONS)
    unknown = [name for name in names if name not in ADDITIONS]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(ADDITIONS)}", param_hint="'--only'")
    result = measure(
        data_dir,
        dataset=dataset,
        num_images=images,
        epochs=epochs,
        num_seeds=seeds,
        names=names,
        engine=engine,
        say=lambda line: say(line, as_json),
    )
    show(result, as_json, text=table(result))


def say(line: str, as_json: bool) -> None:
    typer.echo(line, err=as_json)


def show(result: dict[str, Any], as_json: bool, *, text: str | None = None) -> None:
    """Print a result: as JSON, as its own text, or a line for each of its figures."""
    typer.echo(json.dumps(result, indent=2) if as_json else text or lines(result))


def lines(result: dict[str, Any]) -> str:
    return "\n".join(f"{key:<32} {value}" for key, value in result.items())


def main() -> None:
    """Run a benchmark; whatever the user can fix is one line on standard error and exit code 2."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # of an interrupted trial it prints the traceback as a warning
    arguments = sys.argv[1:] or ["--help"]
    run_and_exit(
        lambda: app(args=arguments, prog_name="python -m benchmarks", standalone_mode=False), name="benchmarks"
    )
