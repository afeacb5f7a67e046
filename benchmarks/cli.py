"""`python -m benchmarks NAME`: a command for each measurement, and for the table of results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from benchmarks.output import say, show, text_of
from benchmarks.pretrained_commands import ranking, transfer, tutorial
from benchmarks.result_commands import optuna_example, results
from tuner import interrupts
from tuner.cli.exit_codes import run_and_exit

app = typer.Typer(add_completion=False, rich_markup_mode=None, help=__doc__, pretty_exceptions_enable=False)
DataDir = Annotated[
    Path, typer.Option(help="Folder that contains MNIST and other sets, or that they are downloaded to.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone.")]
Spaces = Annotated[
    list[str],
    typer.Option("--space", help="Name of a bundled space, or path of a TOML file; may be given several times."),
]
Dataset = Annotated[str, typer.Option(help="Name of a data set, or path of an image folder.")]
Epochs = Annotated[int, typer.Option(help="Number of epochs for each network.", min=1)]
Seeds = Annotated[int, typer.Option(help="Training runs of the reference and of each first configuration.", min=1)]
Seed = Annotated[int, typer.Option(help="Random seed for sampling and training.", min=0)]
Workers = Annotated[int | None, typer.Option(help="Number of runners; by default as many as a search has.", min=1)]
Reference = Annotated[
    str | None,
    typer.Option(help="Name of a reference in benchmarks/references.toml; by default the one of the data set."),
]
CacheDir = Annotated[Path, typer.Option(help="Folder for decoded images; the default is the one that searches use.")]
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
    show(result, as_json, text=text_of(numbers))


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
def spaces(
    space: Spaces = ["cnn"],  # noqa: B006 - Typer copies it
    dataset: Dataset = "mnist",
    data_dir: DataDir = Path("data"),
    samples: Annotated[int, typer.Option(help="Number of networks that are sampled from each space.", min=2)] = 32,
    epochs: Epochs = 3,
    images: Images = 5_000,
    seeds: Seeds = 3,
    seed: Seed = 0,
    seconds: Annotated[
        float,
        typer.Option(help="Time limit for the sampled networks of each space.", min=1),
    ] = 1_500,
    reference: Reference = None,
    workers: Workers = None,
    cache_dir: CacheDir = Path("studies/.cache"),
    output: Annotated[Path, typer.Option("--output", "-o", help="New file for all learning curves.")] = Path(
        "spaces.json"
    ),
    stored: Annotated[
        list[Path] | None,
        typer.Option("--from", help="Print this file of results instead of training; give two files to compare them."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Networks sampled from search spaces: how their accuracies are distributed, and which parameters separate them."""
    from benchmarks.distributions import summarise, table
    from benchmarks.space_comparison import compare, comparison_table
    from benchmarks.space_results import load_results, refuse_existing, save_results

    if stored:
        if len(stored) > 2:
            raise typer.BadParameter(f"at most two files can be given, got {len(stored)}", param_hint="'--from'")
        measured = [load_results(path) for path in stored]
        if len(measured) == 2:
            compared = compare(*measured)
            show(compared, as_json, text=comparison_table(compared))
            return
    else:
        from benchmarks.spaces import Plan, measure
        from tuner.data.dataset import DataSpec

        interrupts.leave_in_order()
        refuse_existing(output)
        plan = Plan(
            tuple(space),
            DataSpec(dataset, data_dir, cache_dir),
            num_samples=samples,
            num_images=images,
            epochs=epochs,
            num_seeds=seeds,
            seed=seed,
            seconds=seconds,
            reference=reference,
            workers=workers,
        )
        measured = [measure(plan, say=lambda line: say(line, as_json))]
        save_results(measured[0], output)
        say(f"stored in {output}", as_json)
    result = summarise(measured[0])
    show(result, as_json, text=table(result))


@app.command()
def references(
    space: Spaces = ["cnn"],  # noqa: B006 - Typer copies it
    dataset: Dataset = "mnist",
    data_dir: DataDir = Path("data"),
    epochs: Epochs = 3,
    images: Images = 5_000,
    seeds: Seeds = 3,
    seed: Seed = 0,
    reference: Reference = None,
    workers: Workers = None,
    cache_dir: CacheDir = Path("studies/.cache"),
    as_json: AsJson = False,
) -> None:
    """Whether the first configuration of each space is as accurate as the reference after as many epochs."""
    from benchmarks.distributions import first_line, head, summarise
    from benchmarks.spaces import Plan, measure
    from tuner.data.dataset import DataSpec

    interrupts.leave_in_order()
    plan = Plan(
        tuple(space),
        DataSpec(dataset, data_dir, cache_dir),
        num_samples=0,
        num_images=images,
        epochs=epochs,
        num_seeds=seeds,
        seed=seed,
        reference=reference,
        workers=workers,
    )
    result = summarise(measure(plan, say=lambda line: say(line, as_json)))
    show(result, as_json, text="\n".join([*head(result), *(first_line(one, result) for one in result["spaces"])]))


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


for command in (optuna_example, results, tutorial, transfer, ranking):
    app.command()(command)


def main() -> None:
    """Run a benchmark; whatever the user can fix is one line on standard error and exit code 2."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)  # of an interrupted trial it prints the traceback as a warning
    arguments = sys.argv[1:] or ["--help"]
    run_and_exit(
        lambda: app(args=arguments, prog_name="python -m benchmarks", standalone_mode=False), name="benchmarks"
    )
