"""Commands that hand over a network, or use one: export, predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import STUDIES, Storage, Studies, StudyName, open_study


def export(
    study: StudyName = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")] = Path("best.pt"),
    studies: Studies = STUDIES,
    storage: Storage = None,
) -> None:
    """Write the best network as a file that plain torch reads with weights_only=True."""
    from tuner.deliver.export import export_checkpoint

    checkpoint = export_checkpoint(open_study(study, studies, storage), studies=studies, output=output)
    accuracy = checkpoint.scores["validation_accuracy"]
    typer.echo(f"{output}: trial {checkpoint.origin['trial']}, validation accuracy {accuracy:.2%}")


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
