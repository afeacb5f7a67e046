"""The command line: parse, call, print. Heavy imports are inside the commands, so that --help is instant."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.errors import TunerError

if TYPE_CHECKING:
    from tuner.search.record import StudyRecord

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""What Typer raises for options it cannot parse; its own class, which Typer does not export."""
INTERRUPTED = 130

app = typer.Typer(
    name="tuner",
    help="Neural architecture search and hyperparameter tuning for image classifiers.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)

StudyName = Annotated[str | None, typer.Argument(metavar="[STUDY]", help="A study's name; the latest when left out.")]
Studies = Annotated[Path, typer.Option("--studies", help="Folder of the studies and their database.")]
Storage = Annotated[str | None, typer.Option("--storage", help="Optuna storage URL instead of the folder's SQLite.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
STUDIES = Path("studies")


def main() -> None:
    """Run the command line; whatever the user can mend is one line on standard error and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except TunerError as error:
        _fail(str(error))
    except USAGE_ERROR as error:
        _fail(error.format_message() if hasattr(error, "format_message") else str(error))
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:  # Typer gives this for a KeyboardInterrupt that it has caught itself
        print("interrupted; the same command goes on from here", file=sys.stderr)  # noqa: T201
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    print(f"tuner: error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(2)


@app.command()
def run(
    trials: Annotated[
        int, typer.Option("--trials", "-n", min=1, help="Trials wanted in all, earlier ones included.")
    ] = 50,
    dataset: Annotated[
        str, typer.Option(help="digits, mnist, cifar10, ... or the path of an image folder.")
    ] = "digits",
    space: Annotated[str, typer.Option(help="A search space: a bundled name (`tuner spaces`) or a TOML file.")] = "cnn",
    study: Annotated[
        str | None, typer.Option(help="Name of the study; after data set and space when left out.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=100_000, help="Epochs of a trial; 20 below 10,000 training images, else 5.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the sampling and the training.")] = 0,
    budget: Annotated[str | None, typer.Option(help="End after this time: 90s, 30m, 2h.")] = None,
    workers: Annotated[str, typer.Option(help="Trials at once: a number, or auto.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    data_dir: Annotated[Path, typer.Option(help="Where data sets are, or are downloaded to.")] = Path("data"),
    image_size: Annotated[str | None, typer.Option(help="Side of the images, N or HEIGHTxWIDTH.")] = None,
    download: Annotated[bool, typer.Option(help="Download a data set that is not there.")] = True,
    studies: Studies = STUDIES,
    storage: Storage = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")] = False,
) -> None:
    """Search for the best network, or go on with a search, until it has the trials wanted."""
    duration = parse_duration(budget) if budget else float("inf")
    size = parse_image_size(image_size) if image_size else None
    num_workers = parse_workers(workers)
    _prepare_libraries()
    from contextlib import closing

    from rich.console import Console

    from tuner.pipeline import RunOptions, load_summary, run_events
    from tuner.ui.console import progress_reporter, watch, winner_lines

    options = RunOptions(
        dataset=dataset,
        space=space,
        study=study,
        trials=trials,
        epochs=epochs,
        seed=seed,
        budget_seconds=duration,
        workers=num_workers,
        device=device,
        data_dir=data_dir,
        image_size=size,
        download=download,
        studies=studies,
        storage=storage,
    )
    console = Console()
    with progress_reporter(console, quiet=quiet) as report, closing(run_events(options, report=report)) as events:
        watch(events, console, quiet=quiet)
    if not quiet:
        for line in winner_lines(load_summary(options), arguments=_folder_arguments(studies, storage)):
            console.print(line, highlight=False, soft_wrap=True)


@app.command()
def spaces() -> None:
    """List the bundled search spaces and what they sample."""
    from rich.console import Console

    from tuner.space.schema import bundled_spaces, load_space
    from tuner.ui.tables import space_table

    console = Console()
    for name in bundled_spaces():
        console.print(space_table(load_space(name)), "")


@app.command()
def inspect(
    target: Annotated[
        str | None, typer.Argument(help="A space (bundled name or TOML file), or a study with --trial.")
    ] = None,
    trial: Annotated[int | None, typer.Option(min=0, help="A stored trial of the study.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Sample the space with this seed.")] = None,
    image_shape: Annotated[str, typer.Option("--input", help="CHANNELSxHEIGHTxWIDTH.")] = "1x28x28",
    num_classes: Annotated[int, typer.Option("--classes", min=2, help="Number of classes.")] = 10,
    studies: Studies = STUDIES,
    storage: Storage = None,
) -> None:
    """Show a network layer by layer: shapes, arithmetic, parameters, FLOPs.

    Of a space: its first configuration, or a sample with --seed. Of a study: the network of one trial.
    """
    import random

    from rich.console import Console

    from tuner.architecture.spec import InputSpec
    from tuner.space.sampling import candidate_from, first_params, random_params
    from tuner.space.schema import load_space
    from tuner.ui.tables import network_table

    if trial is not None:
        record = _open_study(target, studies, storage)
        stored = {one.number: one for one in record.trials()}
        if trial not in stored:
            raise typer.BadParameter(f"study {record.name!r} has {len(stored)} trials, and no trial {trial}")
        candidate = stored[trial].candidate
    elif target is None:
        raise typer.BadParameter("inspect takes a space (`tuner spaces` lists them), or --trial with a study")
    else:
        loaded = load_space(target)
        channels, height, width = parse_shape(image_shape)
        first = first_params(loaded)
        params = first[0] if first and seed is None else random_params(loaded, random.Random(seed or 0))
        candidate = candidate_from(params, loaded, InputSpec(channels, height, width, num_classes), epochs=1)
    Console().print(network_table(candidate))


@app.command()
def doctor(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    image_shape: Annotated[str, typer.Option("--input", help="CHANNELSxHEIGHTxWIDTH of the images.")] = "1x28x28",
) -> None:
    """Measure this machine: which ways of training are the fastest here, and whether they compute what they should."""
    shape = parse_shape(image_shape)
    _prepare_libraries()
    from rich.console import Console

    from tuner.training.engine import choose_device
    from tuner.training.measure import measure_engine
    from tuner.ui.doctor import doctor_report

    Console().print(doctor_report(measure_engine(choose_device(device), shape, num_threads=1)))


@app.command("list")
def list_(studies: Studies = STUDIES, storage: Storage = None, as_json: AsJson = False) -> None:
    """List the studies, the latest first."""
    from rich.console import Console

    from tuner.pipeline import existing_storage
    from tuner.search.record import list_studies
    from tuner.search.summary import summarise
    from tuner.ui.tables import studies_table

    _quiet_optuna()
    summaries = [summarise(record, studies=studies) for record in list_studies(existing_storage(studies, storage))]
    if as_json:
        typer.echo(json.dumps([summary.to_json() for summary in summaries], indent=2))
    else:
        Console().print(studies_table(summaries))


@app.command()
def show(study: StudyName = None, studies: Studies = STUDIES, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show what a study has come to: counts by state, the best trials."""
    from rich.console import Console

    from tuner.search.summary import summarise
    from tuner.ui.tables import study_table

    record = _open_study(study, studies, storage, silent=as_json)
    summary = summarise(record, studies=studies)
    if as_json:
        typer.echo(json.dumps(summary.to_json(), indent=2))
    else:
        Console().print(study_table(summary, record.trials()))


@app.command()
def dashboard(
    study: StudyName = None,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="On 127.0.0.1.")] = 8080,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    studies: Studies = STUDIES,
    storage: Storage = None,
) -> None:
    """Start optuna-dashboard on the studies; Ctrl-C ends it."""
    from tuner.ui.dashboard import HOST, serve_dashboard

    record = _open_study(study, studies, storage)
    path = f"/dashboard/studies/{record.study_id}"
    typer.echo(f"optuna-dashboard of {record.name}: http://{HOST}:{port}{path} (Ctrl-C ends it)")
    serve_dashboard(record.storage, port=port, open_browser=open_browser, path=path)


@app.command()
def export(
    study: StudyName = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")] = Path("best.pt"),
    studies: Studies = STUDIES,
    storage: Storage = None,
) -> None:
    """Write the best network as a file that plain torch reads with weights_only=True."""
    from tuner.deliver.export import export_checkpoint

    checkpoint = export_checkpoint(_open_study(study, studies, storage), studies=studies, output=output)
    accuracy = checkpoint.scores["validation_accuracy"]
    typer.echo(f"{output}: trial {checkpoint.origin['trial']}, validation accuracy {accuracy:.2%}")


@app.command()
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="A file of `tuner export`.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to name for each image.")] = 3,
) -> None:
    """Name the classes of images, with probabilities."""
    from tuner.deliver.predict import predict as predict_images
    from tuner.training.checkpoint import load_checkpoint

    for prediction in predict_images(load_checkpoint(checkpoint), images, top=top):
        named = ", ".join(f"{name} {probability:.2%}" for name, probability in prediction.probabilities)
        typer.echo(f"{prediction.image}: {named}")


def parse_duration(text: str) -> float:
    """Seconds of `90s`, `30m`, `2h`, `1h30m`. Raises typer.BadParameter."""
    match = re.fullmatch(r"(?:(\d{1,6})h)?(?:(\d{1,8})m)?(?:(\d{1,9})s)?", text)
    seconds = 0
    if match:
        hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = 3600 * hours + 60 * minutes + rest
    if not seconds:
        raise typer.BadParameter(f"--budget must be a time such as 90s, 30m or 1h30m, got {text!r}")
    return float(seconds)


def parse_image_size(text: str) -> tuple[int, int]:
    """(height, width) of `64` or `48x64`. Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise typer.BadParameter(f"--image-size must be N or HEIGHTxWIDTH, got {text!r}")
    height, width = match.groups()
    return int(height), int(width or height)


def parse_shape(text: str) -> tuple[int, int, int]:
    """(channels, height, width) of `3x32x32`. Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if match is None or not all(1 <= int(side) <= 65_536 for side in match.groups()):
        raise typer.BadParameter(f"--input must be CHANNELSxHEIGHTxWIDTH, such as 3x32x32, got {text!r}")
    channels, height, width = map(int, match.groups())
    return channels, height, width


def parse_workers(text: str) -> int | None:
    """A number of runners, None for `auto`. Raises typer.BadParameter."""
    if text == "auto":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise typer.BadParameter(f"--workers must be auto or a number from 1 to 1024, got {text!r}")
    return int(text)


def _open_study(name: str | None, studies: Path, storage: str | None, *, silent: bool = False) -> StudyRecord:
    """The study asked for, or the latest, which is then named."""
    from tuner.pipeline import existing_storage
    from tuner.search.record import load_study

    _quiet_optuna()
    record = load_study(existing_storage(studies, storage), name)
    if name is None and not silent:
        typer.echo(f"study {record.name} (the latest)", err=True)
    return record


def _prepare_libraries() -> None:
    from tuner.versions import check_installation

    check_installation()
    _quiet_optuna()


def _quiet_optuna() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _folder_arguments(studies: Path, storage: str | None) -> str:
    """What the next commands need so as to find the study again."""
    arguments = [] if studies == STUDIES else ["--studies", str(studies)]
    arguments += [] if storage is None else ["--storage", storage]
    return "".join(f" {shlex.quote(argument)}" for argument in arguments)
