"""Commands that produce or use a network: train, export, evaluate, predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tuner.cli.options import (
    DATA_DIR,
    STUDIES,
    AsJson,
    DataDir,
    Dataset,
    Group,
    GroupColumn,
    ImageColumn,
    LabelColumn,
    Quiet,
    SplitColumn,
    Storage,
    Studies,
    StudyName,
    add_note,
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
    Path, typer.Argument(help="A .pt, .safetensors or .onnx file that `tuner export` or `tuner train` wrote.")
]


def train(
    trial: Annotated[
        int, typer.Option("--trial", min=0, help="Number of the trial, which may have been stopped early.")
    ],
    epochs: Annotated[
        int,
        typer.Option(
            "--epochs", min=1, max=100_000, help="Number of epochs; the learning rate schedule covers all of them."
        ),
    ],
    study: StudyName = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="New file to write; trained-NNNNN.pt in the study's folder by default."),
    ] = None,
    studies: Studies = STUDIES,
    storage: Storage = None,
    quiet: Quiet = False,
) -> None:
    """Train a stored trial again for a given number of epochs, and save its best epoch as a checkpoint."""
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
        Literal["pt", "safetensors", "onnx", "pt2", "python", "all"], typer.Option(help="Format to write.")
    ] = "pt",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File or folder to write; best.pt, best.onnx, ... by default.")
    ] = None,
    flip_test: Annotated[
        bool,
        typer.Option(
            "--flip-test",
            help="Write files that average the logits of an image and of its mirror image, which takes twice the time.",
        ),
    ] = False,
    studies: Studies = STUDIES,
    storage: Storage = None,
) -> None:
    """Export the winner, then load each file again and check that it gives the same scores."""
    silence_optuna()
    from tuner.deliver.export import export as export_study
    from tuner.ui.console import progress_reporter

    record = open_study(study, studies, storage)
    limit_threads()
    with progress_reporter(plain_console(stderr=True), quiet=False) as report:
        exported = export_study(
            record, studies=studies, output=output, format=format, flip_test=flip_test, report=report
        )
    for path, checked in exported.files.items():
        say(
            f"{path}: trial {exported.checkpoint.origin['trial']}, {exported.score}; loaded again, same score "
            f"(logits differ by at most {checked.difference:.1g})"
            + ("; it replaces an existing file" if path in exported.replaced else "")
        )
    if exported.without_flip_test:
        say(f"the scores are of the mean over each image and its mirror image; without: {exported.without_flip_test}")
    if exported.removed:
        names = ", ".join(path.name for path in exported.removed)
        say(f"{exported.removed[0].parent}: removed what an older export had left there: {names}")
    for note in exported.notes:
        say(note)
    if not exported.is_confirmed:
        say(
            "the winner is not confirmed, so the score is optimistic: "
            f"run `tuner confirm {record.name}{folder_arguments(studies, storage)}` for an unbiased one"
        )


def evaluate(
    checkpoint: CheckpointFile,
    dataset: Dataset,
    part: Annotated[
        Literal["test", "validation", "train"], typer.Option(help="Part of the data set to score.")
    ] = "test",
    flip_test: Annotated[
        bool,
        typer.Option("--flip-test", help="Average the logits of each image and of its mirror image, as `export` can."),
    ] = False,
    data_dir: DataDir = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    split_column: SplitColumn = None,
    group_column: GroupColumn = None,
    group: Group = None,
    studies: Studies = STUDIES,
    as_json: AsJson = False,
) -> None:
    """Compute a network's accuracy, loss and accuracy by class on a data set."""
    silence_optuna()
    from tuner.data.dataset import Columns, DataSpec
    from tuner.deliver.classifier import load_classifier
    from tuner.deliver.evaluate import evaluate as score
    from tuner.ui.console import progress_reporter

    limit_threads()
    classifier = load_classifier(checkpoint)
    columns = Columns(image_column, label_column, split_column, group_column)
    with cache_folder(studies) as cache, progress_reporter(plain_console(stderr=True), quiet=as_json) as report:
        spec = DataSpec(dataset, data_dir or DATA_DIR, cache, columns=columns, group=group)
        evaluation = score(classifier, spec, part=part, flip_test=flip_test, report=report)
    say(json.dumps(evaluation.to_json(), indent=2) if as_json else _in_lines(evaluation))


def predict(
    checkpoint: CheckpointFile,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of image files.")],
    top: Annotated[int, typer.Option(min=1, help="Number of classes to print for each image.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Predict the classes of images, with probabilities."""
    from tuner.data.unused_files import unused_in_words
    from tuner.deliver.classifier import load_classifier
    from tuner.deliver.predict import find_images
    from tuner.deliver.predict import predict as predict_images
    from tuner.errors import DataError

    limit_threads()
    classifier = load_classifier(checkpoint)
    (files, unused), unreadable = find_images(images), list[DataError]()
    if unused:
        add_note(f"files that are not used: {unused_in_words(unused)}")
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
    from tuner.search.class_sentences import class_sentences

    lines = [
        f"{evaluation.dataset}, {evaluation.part}: accuracy {evaluation.accuracy:.2%} ({evaluation.num_correct:,} of "
        f"{evaluation.num_images:,} images), loss {evaluation.loss:.4f}"
        + (", with a flip test" if evaluation.flip_test else "")
        + ("; the network was trained on these images" if evaluation.is_of_training else "")
    ]
    lines += class_sentences(evaluation.class_scores, "images")
    lines += evaluation.notes
    lines += [
        f"  {name}: {'no images' if accuracy is None else f'{accuracy:.2%}'}"
        for name, accuracy in evaluation.class_accuracies.items()
    ]
    return "\n".join(lines)
