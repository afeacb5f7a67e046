"""Commands before and during a search: run, confirm, spaces, doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from tuner.cli.options import (
    STUDIES,
    Allow,
    DataDir,
    Download,
    Group,
    GroupColumn,
    ImageColumn,
    ImageSize,
    LabelColumn,
    Quiet,
    SplitColumn,
    Storage,
    Studies,
    StudyName,
    Weights,
    folder_arguments,
    open_study,
    parse_allowed,
    parse_duration,
    parse_image_size,
    parse_shape,
    parse_weights,
    parse_workers,
    plain_console,
    silence_optuna,
)
from tuner.interrupts import leave_in_order, say_restart
from tuner.search.processes import import_ahead


def run(
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials", "-n", min=1, help="Total number of trials, including those already run; 50 by default."
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set: digits (the default), mnist, cifar10, ... or the path of a folder, an .npz or a .csv file."
        ),
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(
            help="Search space: a bundled name (see `tuner spaces`), a TOML file, or auto (the default), which chooses "
            "a bundled one that suits the images."
        ),
    ] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study; DATASET-SPACE by default.")] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=100_000,
            help="Epochs per trial; 20 by default with fewer than 10,000 training images (10 for pretrained networks), "
            "else 5.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Random seed for splitting, sampling and training; 0 by default.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="Time limit for the whole run, such as 90s, 30m or 2h; without --trials, all of it is used."),
    ] = None,
    workers: Annotated[str, typer.Option(help="Number of trials to train at the same time, or auto.")] = "auto",
    device: Annotated[
        str, typer.Option(help="Device to train on: auto, cpu, cuda, cuda:N or mps; auto keeps a study's.")
    ] = "auto",
    engine: Annotated[
        str,
        typer.Option(
            help="Training choices to force, as CHOICE=VALUE,... (`tuner doctor` lists them); auto measures each one."
        ),
    ] = "auto",
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    split_column: SplitColumn = None,
    group_column: GroupColumn = None,
    group: Group = None,
    weights: Weights = None,
    download: Download = True,
    studies: Studies = STUDIES,
    storage: Storage = None,
    confirm: Annotated[bool, typer.Option(help="Retrain the best trials and score the winner on the test set.")] = True,
    confirm_full: Annotated[
        bool, typer.Option("--confirm-full", help="Confirm with every candidate and seed, and ignore the time limit.")
    ] = False,
    allow: Allow = None,
    quiet: Quiet = False,
) -> None:
    """Start or resume a search for the best network, then confirm the winner.

    If the study exists, options that are not given have its values instead of their defaults.
    """
    if confirm_full and not confirm:
        raise typer.BadParameter("--confirm-full and --no-confirm exclude each other")
    duration = parse_duration(budget) if budget else float("inf")
    size = parse_image_size(image_size) if image_size else None
    num_workers = parse_workers(workers)
    if num_workers != 1:
        import_ahead()
    silence_optuna()
    from contextlib import closing

    from tuner.options import RunOptions
    from tuner.pipeline import load_summary, run_events
    from tuner.ui.console import progress_reporter, watch
    from tuner.ui.winner_lines import winner_lines

    leave_in_order()
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
        engine=engine,
        data_dir=data_dir,
        image_size=size,
        image_column=image_column,
        label_column=label_column,
        split_column=split_column,
        group_column=group_column,
        group=group,
        download=download,
        studies=studies,
        storage=storage,
        allow=parse_allowed(allow),
        weights=parse_weights(weights),
        confirm="in full" if confirm_full else "in time" if confirm else "no",
    )
    console = plain_console()
    with progress_reporter(console, quiet=quiet) as report, closing(run_events(options, report=report)) as events:
        watch(events, console, quiet=quiet)
    if not quiet:
        for line in winner_lines(load_summary(options), arguments=folder_arguments(studies, storage)):
            console.print(line, highlight=False, soft_wrap=True)


def confirm(
    study: StudyName = None,
    candidates: Annotated[int, typer.Option(min=1, max=100, help="Number of best trials to retrain.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Number of training runs per candidate.")] = 3,
    full: Annotated[bool, typer.Option("--full", help="Ignore the time limit.")] = False,
    workers: Annotated[str, typer.Option(help="Number of networks to train at the same time, or auto.")] = "auto",
    studies: Studies = STUDIES,
    storage: Storage = None,
    quiet: Quiet = False,
) -> None:
    """Retrain the best networks of a study, and score the winner on the test set."""
    num_workers = parse_workers(workers)
    silence_optuna()
    from contextlib import closing

    from tuner.deliver.confirm_plan import ConfirmPlan
    from tuner.pipeline import confirm_events
    from tuner.search.summary import summarise
    from tuner.ui.console import progress_reporter, watch
    from tuner.ui.winner_lines import winner_lines

    record = open_study(study, studies, storage)
    say_restart()
    plan = ConfirmPlan(candidates, seeds)
    console = plain_console()
    with (
        progress_reporter(console, quiet=quiet) as report,
        closing(
            confirm_events(
                studies,
                record.name,
                plan=plan,
                in_time=not full,
                storage=storage,
                workers=num_workers,
                report=report,
            )
        ) as events,
    ):
        watch(events, console, quiet=quiet)
    if not quiet:
        for line in winner_lines(summarise(record, studies=studies), arguments=folder_arguments(studies, storage)):
            console.print(line, highlight=False, soft_wrap=True)


def spaces() -> None:
    """List the bundled search spaces and the parameters that they sample."""
    from tuner.space.toml_file import bundled_spaces, load_space
    from tuner.ui.tables import space_table

    console = plain_console()
    for name in bundled_spaces():
        console.print(space_table(load_space(name)), "")


def doctor(
    device: Annotated[str, typer.Option(help="Device to train on: auto, cpu, cuda, cuda:N or mps.")] = "auto",
    image_shape: Annotated[str, typer.Option("--input", help="Input shape as CHANNELSxHEIGHTxWIDTH.")] = "1x28x28",
) -> None:
    """Measure the fastest ways to train on this machine, and check that their results are correct.

    GPUs of different models are measured separately. New studies use the results.
    """
    shape = parse_shape(image_shape)
    silence_optuna()
    from tuner.errors import DeviceError
    from tuner.hardware import device_kind, devices_for
    from tuner.search.devices import measure_again
    from tuner.training.device import choose_device
    from tuner.training.measurement_cache import keep_measurement, machine_cache_dir
    from tuner.ui.doctor import doctor_report
    from tuner.versions import check_installation

    check_installation()

    devices = devices_for(choose_device(device), is_auto=device == "auto")
    console = plain_console()
    for one in {device_kind(one): one for one in reversed(devices)}.values():
        measurement = measure_again(one, shape)
        try:
            path = keep_measurement(measurement, shape, cache_dir=machine_cache_dir())
            kept = f"{path}: used by new studies with images of this shape on this machine"
        except DeviceError as error:
            kept = f"no: {error}"
        console.print(doctor_report(measurement, shape, kept=kept, width=console.width))
