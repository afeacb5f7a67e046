"""Image folders whose test images are given, and parts of them as folders of links."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from tuner.data.folder_listing import Classes, FolderListing, list_folder
from tuner.data.given_path import given_path
from tuner.errors import DataError, reason_of


def list_with_test_part(dataset: str) -> FolderListing:
    """List an image folder by its path. Raises DataError if it has no test part, and as `list_folder` does."""
    listing = list_folder(given_path(dataset).absolute())
    if listing.test is None:
        raise DataError(
            f"--dataset must have a test part, on which both sides are scored, and {listing.root} has none: name the "
            "folder with the images to score test/"
        )
    return listing


def choose_images(listing: FolderListing, images_per_class: int, *, seed: int) -> Classes:
    """Choose so many training images of each class: the first ones in the order of a seed.

    Raises DataError if a class has fewer.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen: Classes = {}
    for name, files in listing.train.items():
        if len(files) < images_per_class:
            raise DataError(
                f"--images-per-class must be at most the number of training images of every class, and {name!r} has "
                f"{len(files)}; got {images_per_class}"
            )
        order = torch.randperm(len(files), generator=generator)[:images_per_class]
        chosen[name] = [files[row] for row in order.tolist()]
    return chosen


def link_images(listing: FolderListing, chosen: Classes, folder: Path) -> Path:
    """Make an image folder with links to the chosen images and to all test images, and return it. Raises DataError."""
    assert listing.test is not None
    try:
        for files in (*chosen.values(), *listing.test.values()):
            for file in files:
                link = folder / file.name
                link.parent.mkdir(parents=True, exist_ok=True)
                os.symlink((listing.root / file.name).resolve(), link)
    except OSError as error:
        raise DataError(f"{folder}: links to the images cannot be made: {reason_of(error)}") from error
    return folder
