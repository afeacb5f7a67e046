"""Commands for pretrained networks: `tutorial`, `transfer` and `ranking`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.output import say, show
from tuner import interrupts

Folder = Annotated[str, typer.Option(help="Path of an image folder with train/ and test/.")]
Weights = Annotated[str, typer.Option(metavar="NAME=FILE", help="Backbone, and the file with its pretrained weights.")]
Seed = Annotated[int, typer.Option(help="Random seed for splitting, sampling and training.", min=0)]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="New JSON file for the result.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON alone.")]


def tutorial(
    dataset: Folder,
    weights: Weights,
    seed: Seed = 0,
    budget: Annotated[str, typer.Option(help="Time limit for our whole search, such as 90s or 5m.")] = "5m",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """The recipe of PyTorch's transfer-learning tutorial, then our search with the same weights: accuracy and time."""
    from benchmarks.pretrained_space import parse_weights
    from benchmarks.tutorial import Plan, measure, table

    _check(budget, output)
    plan = Plan(dataset, *parse_weights(weights), seed=seed, budget=budget)
    result = measure(plan, say=lambda line: say(line, as_json))
    _finish(result, output, as_json, text=table(result))


def transfer(
    dataset: Folder,
    weights: Weights,
    images_per_class: Annotated[int, typer.Option(help="Number of training images of each class.", min=1)] = 500,
    image_size: Annotated[
        int,
        typer.Option(help="Side of the images in pixels. resnet is also tried with their own size.", min=1, max=1024),
    ] = 96,
    seed: Seed = 0,
    budget: Annotated[str, typer.Option(help="Time limit for each of the three searches, such as 30m.")] = "30m",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """The spaces pretrained and resnet on the same few training images of a larger set, with the same time each."""
    from benchmarks.pretrained_space import parse_weights
    from benchmarks.transfer import Plan, measure, table

    _check(budget, output)
    plan = Plan(dataset, *parse_weights(weights), images_per_class, image_size, seed=seed, budget=budget)
    result = measure(plan, say=lambda line: say(line, as_json))
    _finish(result, output, as_json, text=table(result))


def ranking(
    dataset: Annotated[str, typer.Option(help="Path of an image set, or digits.")],
    weights: Weights,
    image_size: Annotated[
        int, typer.Option(help="Side of the images in pixels; 0 is that of the weights.", min=0, max=1024)
    ] = 0,
    images: Annotated[int, typer.Option(help="Most training images.", min=10)] = 1_000,
    seed: Annotated[int, typer.Option(help="Random seed of the random weights and of the folds.", min=0)] = 0,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """How well LogME and a cross-validated linear probe rank the features of all stages of a network."""
    from benchmarks.pretrained_space import parse_weights
    from benchmarks.ranking import Plan, measure, table

    _check_output(output)
    plan = Plan(dataset, *parse_weights(weights), image_size=image_size, num_images=images, seed=seed)
    result = measure(plan, say=lambda line: say(line, as_json))
    _finish(result, output, as_json, text=table(result))


def _check(budget: str, output: Path | None) -> None:
    """Refuse a budget that is no time, and an output that exists, before anything is trained."""
    from tuner.cli.options import parse_duration

    parse_duration(budget)
    _check_output(output)


def _check_output(output: Path | None) -> None:
    from benchmarks.space_results import refuse_existing

    interrupts.leave_in_order()
    if output is not None:
        refuse_existing(output)


def _finish(result: dict[str, Any], output: Path | None, as_json: bool, *, text: str) -> None:
    if output is not None:
        output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        say(f"stored in {output}", as_json)
    show(result, as_json, text=text)
