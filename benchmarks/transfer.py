"""What pretrained weights are worth with few images: the spaces `pretrained` and `resnet` on the same ones."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.image_folders import choose_images, link_images, list_with_test_part
from benchmarks.own_search import Say, in_words, run_search
from benchmarks.pretrained_space import check_image_size, write_space
from tuner.hardware import device_name, num_cores
from tuner.pretrained.weights_file import read_weights
from tuner.training.device import choose_device


@dataclass(frozen=True)
class Plan:
    """What is measured. dataset: path of an image folder with train/ and test/. file: weights of the backbone.

    image_size: side of the images in pixels. The space `resnet` is searched twice: with images of their own size, and
    with images of this size.
    """

    dataset: str
    backbone: str
    file: Path
    images_per_class: int
    image_size: int
    seed: int
    budget: str


def measure(plan: Plan, *, say: Say) -> dict[str, Any]:
    """Search `pretrained` once and `resnet` twice, each with the whole budget and on its own decoding of the images.

    Raises DataError for a folder without test images or with too few images of a class, and BackboneError for weights
    that do not fit.
    """
    listing = list_with_test_part(plan.dataset)
    chosen = choose_images(listing, plan.images_per_class, seed=plan.seed)
    check_image_size(plan.backbone, plan.image_size)
    read_weights(plan.file, plan.backbone)  # an error before anything is trained
    device = device_name(choose_device("auto"))
    say(f"{device}, {num_cores()} cores, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = link_images(listing, chosen, folder / listing.root.name)
        space = write_space(folder, plan.backbone, image_size=plan.image_size)
        spaces = {
            "pretrained": ["--space", str(space), "--weights", f"{plan.backbone}={plan.file}"],
            "resnet": ["--space", "resnet"],
            "resnet_same_size": ["--space", "resnet", "--image-size", str(plan.image_size)],
        }
        found = {}
        for name, options in spaces.items():
            options = ["--dataset", str(images), *options, "--budget", plan.budget, "--seed", str(plan.seed)]
            say(f"{name}: tuner run {' '.join(options)}")
            # Folders of their own, so that no search uses images that another one has decoded.
            found[name] = run_search(options, studies=folder / f"studies-{name}", say=say).to_json()
            say(f"{name}: {in_words(found[name])}")
    return {
        "dataset": listing.root.name,
        "machine": device,
        "cores": num_cores(),
        "torch": torch.__version__,
        "backbone": plan.backbone,
        "image_size": plan.image_size,
        "images_per_class": plan.images_per_class,
        "seed": plan.seed,
        "budget": plan.budget,
        "num_train": sum(map(len, chosen.values())),
        "num_test": sum(map(len, (listing.test or {}).values())),
        **found,
        "difference_in_points": {
            name: 100 * (found["pretrained"]["accuracy"] - found[name]["accuracy"])
            for name in ("resnet", "resnet_same_size")
        },
    }


def table(result: dict[str, Any]) -> str:
    """Format a result as text."""
    difference, pixels = result["difference_in_points"], f"images of {result['image_size']} pixels"
    return "\n".join(
        [
            f"{result['dataset']}: {result['num_train']:,} images to train on, {result['num_test']:,} to test; "
            f"seed {result['seed']}, {result['budget']} each",
            f"pretrained  {in_words(result['pretrained'])} ({result['backbone']}, {pixels})",
            f"resnet      {in_words(result['resnet'])} (images in their own size)",
            f"resnet      {in_words(result['resnet_same_size'])} ({pixels})",
            f"difference  {difference['resnet']:+.2f} points, at the same size {difference['resnet_same_size']:+.2f}",
        ]
    )
