"""The command inspect: a network layer by layer, and what its recipe makes of the training images."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.cli.options import (
    DATA_DIR,
    STUDIES,
    DataDir,
    Group,
    GroupColumn,
    ImageColumn,
    ImageSize,
    LabelColumn,
    SplitColumn,
    Storage,
    Studies,
    cache_folder,
    limit_threads,
    open_study,
    parse_image_size,
    parse_shape,
    plain_console,
    say,
)

if TYPE_CHECKING:
    from tuner.architecture.spec import InputSpec
    from tuner.data.dataset import DataSpec, ImageDataset
    from tuner.search.record import StudyRecord
    from tuner.space.schema import SearchSpace
    from tuner.training.candidate import Candidate


def inspect(
    target: Annotated[
        str | None, typer.Argument(help="A search space (bundled name or TOML file), or with --trial a study.")
    ] = None,
    trial: Annotated[int | None, typer.Option(min=0, help="Number of the trial of the study to show.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Random seed for sampling a network from the space.")] = None,
    image_shape: Annotated[
        str | None, typer.Option("--input", help="Input shape as CHANNELSxHEIGHTxWIDTH; 1x28x28 by default.")
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option("--classes", min=2, max=1_000_000, help="Number of classes; 10 by default.")
    ] = None,
    augmented: Annotated[
        bool, typer.Option("--augmented", help="Also write a contact sheet of images as the recipe augments them.")
    ] = False,
    dataset: Annotated[
        str | None, typer.Option(help="Data set of the contact sheet of a space; a study has its own.")
    ] = None,
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    image_column: ImageColumn = None,
    label_column: LabelColumn = None,
    split_column: SplitColumn = None,
    group_column: GroupColumn = None,
    group: Group = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="PNG file of the contact sheet; augmented.png by default.")
    ] = None,
    studies: Studies = STUDIES,
    storage: Storage = None,
) -> None:
    """Show a network layer by layer: shapes, arithmetic, parameters and FLOPs.

    For a space, this is its first configuration, or with --seed a random sample. For a study, it is the network of
    one trial.
    """
    if not augmented and (dataset, output) != (None, None):
        raise typer.BadParameter("--dataset and -o are for a contact sheet: give --augmented")
    of_dataset = {
        "--image-size": image_size,
        "--image-column": image_column,
        "--label-column": label_column,
        "--split-column": split_column,
        "--group-column": group_column,
        "--group": group,
    }
    given = ", ".join(name for name, value in of_dataset.items() if value is not None)
    if given and dataset is None and trial is None:
        raise typer.BadParameter(f"{given} must go with --augmented and --dataset: give both, or omit it")
    if augmented and (image_shape, num_classes) != (None, None):
        raise typer.BadParameter("--input and --classes are those of the images with --augmented")
    if trial is not None:
        if (seed, image_shape, num_classes, dataset) != (None, None, None, None):
            raise typer.BadParameter(
                "--trial shows a stored network: --seed, --input, --classes and --dataset are for spaces"
            )
        if given:
            raise typer.BadParameter(f"--trial shows a stored network with the images of its study: omit {given}")
        record = open_study(target, studies, storage)
        candidate = _stored(record, trial)
        if augmented:
            _print_with_sheet(candidate, _images_of(record, candidate, studies), record.settings.seed, output)
            return
    elif target is None:
        raise typer.BadParameter("inspect takes a space (`tuner spaces` lists them), or --trial with a study")
    elif augmented:
        if dataset is None:
            raise typer.BadParameter("--augmented needs images: give --dataset, or --trial with a study")
        from tuner.data.dataset import Columns, DataSpec

        spec = DataSpec(
            dataset,
            data_dir or DATA_DIR,
            studies / ".cache",
            image_size=parse_image_size(image_size) if image_size else None,
            columns=Columns(image_column, label_column, split_column, group_column),
            group=group,
        )
        _print_space_with_sheet(target, spec, studies, seed=seed, output=output)
        return
    else:
        from tuner.architecture.spec import InputSpec
        from tuner.space.automatic_flip import choose_flip_without_images
        from tuner.space.toml_file import load_space

        space, note = choose_flip_without_images(load_space(target))
        if image_shape is not None and space.backbone is not None:
            raise typer.BadParameter(
                "--input must be omitted for a space of pretrained networks, which set the size of their images"
            )
        channels, height, width = parse_shape(image_shape or "1x28x28")
        candidate = _sampled(space, InputSpec(channels, height, width, num_classes or 10), seed=seed)
        if note:
            say(note)
    _print(candidate)


def _stored(record: StudyRecord, trial: int) -> Candidate:
    stored = {one.number: one for one in record.trials()}
    if trial not in stored:
        raise typer.BadParameter(f"study {record.name!r} has {len(stored)} trials, and no trial {trial}")
    return stored[trial].candidate


def _sampled(space: SearchSpace, input_spec: InputSpec, *, seed: int | None) -> Candidate:
    from tuner.space.sampling import candidate_from, first_params, random_params

    if space.backbone is not None:
        space = space.model_copy(update={"weights": space.backbone.unknown_weights()})
    first = first_params(space)
    params = first[0] if first and seed is None else random_params(space, random.Random(seed or 0))
    candidate = candidate_from(params, space, input_spec, epochs=1)
    if space.backbone is not None:
        from tuner.architecture.any_architecture import cost_of

        cost_of(candidate.architecture)  # raises BackboneError for a size that the backbone cannot take
    return candidate


def _images_of(record: StudyRecord, candidate: Candidate, studies: Path) -> ImageDataset:
    from tuner.search.study_backbones import decode_for_network
    from tuner.search.study_data import load_study_images
    from tuner.ui.console import progress_reporter

    with progress_reporter(plain_console(stderr=True), quiet=False) as report:
        spec, images = load_study_images(record, studies=studies, report=report)
        return decode_for_network(candidate.architecture, spec, images, report=report)


def _print_space_with_sheet(
    target: str, spec: DataSpec, studies: Path, *, seed: int | None, output: Path | None
) -> None:
    from tuner.data.development_part import load_development
    from tuner.search.backbone_images import with_image_size
    from tuner.search.study_backbones import decode_for_network
    from tuner.search.study_runners import input_spec_of
    from tuner.space.automatic_flip import decide_flip
    from tuner.space.toml_file import load_space
    from tuner.ui.console import progress_reporter

    space = with_image_size(load_space(target), spec.image_size)
    with cache_folder(studies) as cache:
        with progress_reporter(plain_console(stderr=True), quiet=False) as report:
            spec = replace(spec, cache_dir=cache)
            images = load_development(spec, report=report)
            space, note = decide_flip(space, spec.dataset, images.class_names)
            candidate = _sampled(space, input_spec_of(images), seed=seed)
            images = decode_for_network(candidate.architecture, spec, images, report=report)
        if note:
            say(note)
        _print_with_sheet(candidate, images, seed or 0, output)


def _print_with_sheet(candidate: Candidate, images: ImageDataset, seed: int, output: Path | None) -> None:
    from tuner.ui.contact_sheet import contact_sheet, draw_sheet, save_sheet

    limit_threads()
    sheet = contact_sheet(images, candidate, seed=seed)
    path = output or Path("augmented.png")
    save_sheet(draw_sheet(sheet), path)
    _print(candidate)
    say(f"{path}: {len(sheet.names)} images of {images.name} with {sheet.words}")


def _print(candidate: Candidate) -> None:
    from tuner.ui.tables import NetworkTable

    plain_console().print(NetworkTable(candidate))
