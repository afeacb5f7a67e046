"""Commands that hand over a network, or use one: train, export, evaluate, predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tuner.cli.options import (
    STUDIES,
    AsJson,
    Quiet,
    Storage,
    Studies,
    StudyName,
    cache_folder,
    folder_arguments,
    limit_threads,
    open_study,
    plain_console,
    say,
    silence_optuna,
)
from tuner.interrupts import say_restart

if TYPE_CHECKING:
    from tuner.deliver.evaluate import Evaluation

CheckpointFile = Annotated[
    Path, typer.Argument(help="A .pt, .safetensors or .onnx file of `tuner export` or `tuner train`.")
]


def train(
    trial: Annotated[int, typer.Option("--trial", min=0, help="Number of the trial; a stopped one will do.")],
    epochs: Annotated[int, typer.Option("--epochs", min=1, max=100_000, help="Epochs, which its schedule spans.")],
    study: StudyName = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A new file; by default trained-NNNNN.pt in the study's folder."),
    ] = None,
    studies: Studies = STUDIES,
    storage: Storage = None,
    quiet: Quiet = False,
) -> None:
    """Train a stored trial again for more epochs, on the study's own split, and keep its best epoch as a checkpoint."""
    silence_optuna()
    from contextlib import closing

    from tuner.deliver.train_trial import train_trial_events
    from tuner.ui.console import progress_reporter
    from tuner.ui.training_view import trained_lines, watch_training

    record = open_study(study, studies, storage)
    say_restart()
    console = plain_console()
    with progress_reporter(console, quiet=quiet) as report:
        events = train_trial_events(record, trial, epochs=epochs, studies=studies, output=output, report=report)
        with closing(events):
            trained = watch_training(events, console, quiet=quiet)
    if not quiet and trained is not None:
        for line in trained_lines(trained):
            console.print(line, highlight=False, soft_wrap=True)


def export(
    study: StudyName = None,
    format: Annotated[
        Literal["pt", "safetensors", "onnx", "pt2", "python", "all"], typer.Option(help="In which form to write it.")
    ] = "pt",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File or folder; by default best.pt, best.onnx, ...")
    ] = None,
    studies: Studies = STUDIES,
    storage: Storage = None,
) -> None:
    """Write the winner as files of your own, each loaded again and scored before it counts."""
    silence_optuna()
    from tuner.deliver.export import export as export_study
    from tuner.ui.console import progress_reporter

    record = open_study(study, studies, storage)
    limit_threads()
    with progress_reporter(plain_console(stderr=True), quiet=False) as report:
        exported = export_study(record, studies=studies, output=output, format=format, report=report)
    for path, checked in exported.files.items():
        say(
            f"{path}: trial {exported.checkpoint.origin['trial']}, {exported.score}; loaded again, the same "
            f"(logits differ by at most {checked.difference:.1g})"
            + ("; it replaces the file that was there" if path in exported.replaced else "")
        )
    if exported.removed:
        names = ", ".join(path.name for path in exported.removed)
        say(f"{exported.removed[0].parent}: removed what an older export had left there: {names}")
    for note in exported.notes:
        say(note)
    if not exported.is_confirmed:
        say(
            "the winner is not confirmed, so the score is optimistic: "
            f"`tuner confirm {record.name}{folder_arguments(studies, storage)}` gives another"
        )


def evaluate(
    checkpoint: CheckpointFile,
    dataset: Annotated[str, typer.Option(help="digits, mnist, cifar10, ... or the path of an image folder.")],
    part: Annotated[Literal["test", "validation", "train"], typer.Option(help="Which of its images.")] = "test",
    data_dir: Annotated[Path, typer.Option(help="Where data sets are, or are downloaded to.")] = Path("data"),
    studies: Studies = STUDIES,
    as_json: AsJson = False,
) -> None:
    """Score a network on a data set: accuracy, loss, accuracy by class."""
    silence_optuna()
    from tuner.data.dataset import DataSpec
    from tuner.deliver.classifier import load_classifier
    from tuner.deliver.evaluate import evaluate as score
    from tuner.ui.console import progress_reporter

    limit_threads()
    classifier = load_classifier(checkpoint)
    with cache_folder(studies) as cache, progress_reporter(plain_console(stderr=True), quiet=as_json) as report:
        evaluation = score(classifier, DataSpec(dataset, data_dir, cache), part=part, report=report)
    say(json.dumps(evaluation.to_json(), indent=2) if as_json else _in_lines(evaluation))


def predict(
    checkpoint: CheckpointFile,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to name for each image.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Name the classes of images, with probabilities."""
    from tuner.deliver.classifier import load_classifier
    from tuner.deliver.predict import find_images
    from tuner.deliver.predict import predict as predict_images
    from tuner.errors import DataError

    limit_threads()
    classifier = load_classifier(checkpoint)
    files, unreadable = find_images(images), list[DataError]()
    predictions = predict_images(classifier, files, top=top, on_unreadable=unreadable.append)
    if as_json:
        say(json.dumps([prediction.to_json() for prediction in predictions], indent=2))
    else:
        for prediction in predictions:
            named = ", ".join(f"{name} {probability:.2%}" for name, probability in prediction.probabilities)
            say(f"{prediction.image}: {named}")
    if len(unreadable) == 1:
        raise unreadable[0]
    if unreadable:
        for error in unreadable:
            say(str(error), err=True)
        raise DataError(f"{len(unreadable):,} of {len(files):,} images cannot be read")


def _in_lines(evaluation: Evaluation) -> str:
    lines = [
        f"{evaluation.dataset}, {evaluation.part}: accuracy {evaluation.accuracy:.2%} ({evaluation.num_correct:,} of "
        f"{evaluation.num_images:,} images), loss {evaluation.loss:.4f}"
        + ("; the network was trained on these images" if evaluation.is_of_training else "")
    ]
    lines += evaluation.notes
    lines += [
        f"  {name}: {'no images' if accuracy is None else f'{accuracy:.2%}'}"
        for name, accuracy in evaluation.class_accuracies.items()
    ]
    return "\n".join(lines)
