"""A contact sheet: training images, and what the augmentation of a recipe makes of them in the first epochs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from tuner.architecture.backbones import input_of
from tuner.architecture.spec import Architecture
from tuner.data.dataset import ImageDataset
from tuner.data.resident import Statistics, pixel_scaling, scale_pixels
from tuner.data.splits import channel_statistics, split_development
from tuner.errors import DataError, reason_of
from tuner.search.backbone_data import VIEW_SEED
from tuner.search.dashboard_entries import augmentation_in_words
from tuner.temporary import temporary_beside
from tuner.training.augmentation import draw_augmentation
from tuner.training.candidate import Candidate
from tuner.training.engine import Engine

# Shape suffixes: N images of the sheet, E epochs, C channels, H height, W width, K classes.

NUM_IMAGES, NUM_EPOCHS = 6, 7
TILE = 112
"""Size in pixels that an image fits into; smaller images are enlarged by a whole number."""
GAP, FONT_SIZE = 8, 13
LINE = FONT_SIZE + 5
MAX_NAME = 12
"""Letters of a class name that fit below a tile."""
STATISTICS_IMAGES = 1_000
"""Most images that are read for the mean and standard deviation, which cutout fills with."""
INK, PAPER = "#1c2430", "#ffffff"


@dataclass(frozen=True, eq=False)
class ContactSheet:
    """Images (N, C, H, W), uint8, and their versions in each epoch (N, E, C, H, W).

    names: the class of each image. captions: by image and epoch, the shares of the classes if images are mixed,
    otherwise empty. words: the augmentation in words. column: what a version is that of: an epoch, or a view of a
    backbone with frozen stages.
    """

    images_NCHW: Tensor
    versions_NECHW: Tensor
    names: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    words: str
    column: Literal["epoch", "view"] = "epoch"


def contact_sheet(dataset: ImageDataset, candidate: Candidate, *, seed: int) -> ContactSheet:
    """Augment a few train images of different classes as a training with this seed augments its first batch.

    The images are normalised before and the result is converted back, so cutout shows as the mean colour. Images are
    mixed with each other. A backbone with views has the same ones for every seed; they are shown.
    """
    train_N = split_development(dataset, seed=seed).train_indices_N
    rows_N = _rows_of_different_classes(train_N, dataset.labels_N[train_N])
    pixels_NCHW, labels_N = dataset.images_NCHW[rows_N], dataset.labels_N[rows_N]
    scaling = pixel_scaling(*_statistics(dataset, candidate, train_N), dtype=torch.float32, device=torch.device("cpu"))
    names = tuple(dataset.class_names[label] for label in labels_N.tolist())
    words = ", ".join(augmentation_in_words(candidate.recipe)) or "no augmentation"
    num_views = 0 if isinstance(candidate.architecture, Architecture) else candidate.architecture.views
    if num_views:
        views = [
            _as_pixels(_view(dataset, candidate, rows_N, view=view, scaling=scaling), scaling)
            for view in range(1, min(num_views, NUM_EPOCHS) + 1)
        ]
        no_captions = (("",) * len(views),) * len(rows_N)
        return ContactSheet(pixels_NCHW, torch.stack(views, dim=1), names, no_captions, words, column="view")
    versions, captions = [], []
    for epoch in range(1, NUM_EPOCHS + 1):
        drawn = draw_augmentation(candidate, engine=Engine(), seed=seed, epoch=epoch, num_images=len(rows_N))
        if drawn is None:
            images_NCHW = scale_pixels(pixels_NCHW, scaling, dtype=torch.float32, channels_last=False)
            labels = labels_N
        else:
            images_NCHW, labels = drawn.apply(pixels_NCHW, labels_N, scaling=scaling, start=0)
        versions.append(_as_pixels(images_NCHW, scaling))
        captions.append([_shares(label, dataset.class_names) for label in labels])
    return ContactSheet(pixels_NCHW, torch.stack(versions, dim=1), names, tuple(zip(*captions, strict=True)), words)


def _statistics(dataset: ImageDataset, candidate: Candidate, train_N: Tensor) -> Statistics:
    """Mean and standard deviation that the training normalizes with: those of the weights, or of the train images."""
    if isinstance(candidate.architecture, Architecture):
        return channel_statistics(dataset.images_NCHW, train_N[:: -(-len(train_N) // STATISTICS_IMAGES)])
    own = input_of(candidate.architecture.backbone)
    return own.mean, own.std


def _view(
    dataset: ImageDataset, candidate: Candidate, rows_N: Tensor, *, view: int, scaling: tuple[Tensor, Tensor]
) -> Tensor:
    """Augment images as for a view of their features, in which each image of the data set has draws of its own."""
    num_images = len(dataset.labels_N)
    drawn = draw_augmentation(candidate, engine=Engine(), seed=VIEW_SEED, epoch=view, num_images=num_images)
    if drawn is None:
        return scale_pixels(dataset.images_NCHW[rows_N], scaling, dtype=torch.float32, channels_last=False)
    one_by_one = [
        drawn.apply(dataset.images_NCHW[row : row + 1], dataset.labels_N[row : row + 1], scaling=scaling, start=row)[0]
        for row in rows_N.tolist()
    ]
    return torch.cat(one_by_one)


def _as_pixels(images_NCHW: Tensor, scaling: tuple[Tensor, Tensor]) -> Tensor:
    shift_C11, scale_C11 = scaling
    return (images_NCHW / scale_C11 + shift_C11).round().clamp(0, 255).to(torch.uint8)


def _rows_of_different_classes(train_N: Tensor, labels_N: Tensor) -> Tensor:
    """Return a few train rows: the first one of each class, then the second one of each, and so on."""
    rounds: list[tuple[int, int, int]] = []
    for label in sorted(set(labels_N.tolist())):
        of_class = train_N[labels_N == label][:NUM_IMAGES].tolist()
        rounds += [(number, label, row) for number, row in enumerate(of_class)]
    return torch.tensor([row for _, _, row in sorted(rounds)[:NUM_IMAGES]])


def _shares(label: Tensor, class_names: Sequence[str]) -> str:
    """Describe soft labels, as in `cat: 62%` and `dog: 38%` in two lines; empty for a label that is one class."""
    if label.dim() == 0:
        return ""
    found = sorted(((share, index) for index, share in enumerate(label.tolist()) if share >= 0.005), reverse=True)
    return "\n".join(f"{_short(class_names[index])}: {share:.0%}" for share, index in found)


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def draw_sheet(sheet: ContactSheet) -> Image.Image:
    """Draw a row for each image: the original with its class, then its version in each epoch or view."""
    height, width = sheet.images_NCHW.shape[2:]
    factor = max(1, TILE // max(height, width))
    shrink = min(1.0, TILE / max(height, width))
    tile_width, tile_height = (max(1, round(side * factor * shrink)) for side in (width, height))
    font = ImageFont.load_default(FONT_SIZE)
    is_mixed = any(any(captions) for captions in sheet.captions)
    num_lines = 2 if is_mixed else 1
    step_x, step_y = max(tile_width, TILE) + GAP, tile_height + num_lines * LINE + GAP
    num_images, num_epochs = sheet.versions_NECHW.shape[:2]
    top = 2 * (LINE + GAP)
    size = GAP + (1 + num_epochs) * step_x, top + num_images * step_y
    page = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(page)
    draw.text((GAP, GAP), sheet.words, INK, font)
    for column, title in enumerate(["original", *(f"{sheet.column} {epoch}" for epoch in range(1, num_epochs + 1))]):
        draw.text((GAP + column * step_x, GAP + LINE), title, INK, font)
    for row in range(num_images):
        tiles = [sheet.images_NCHW[row], *sheet.versions_NECHW[row]]
        captions = [_short(sheet.names[row]), *sheet.captions[row]]
        for column, (pixels_CHW, caption) in enumerate(zip(tiles, captions, strict=True)):
            x, y = GAP + column * step_x, top + row * step_y
            tile = _image(pixels_CHW).resize(
                (tile_width, tile_height), Image.Resampling.NEAREST if shrink == 1 else Image.Resampling.BOX
            )
            page.paste(tile, (x, y))
            for number, line in enumerate(caption.splitlines()[:num_lines]):
                draw.text((x, y + tile_height + number * LINE), line, INK, font)
    return page


def save_sheet(page: Image.Image, output: Path) -> None:
    """Write a sheet as a PNG file atomically. Raises DataError if it cannot be written."""
    if output.is_dir():
        raise DataError(f"-o {output} is a folder; give the name of a file in it")
    try:
        target = output.resolve()
        temporary = temporary_beside(target)
        try:
            page.save(temporary, "PNG", optimize=True)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"-o {output}: cannot be written: {reason_of(error)}") from error


def _image(pixels_CHW: Tensor) -> Image.Image:
    array = pixels_CHW[0].numpy() if len(pixels_CHW) == 1 else pixels_CHW.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array).convert("RGB")
