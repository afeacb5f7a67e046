"""Augment the training images of an epoch: flip, shift, brightness, contrast, cutout, mixup and cutmix.

All random numbers of an epoch are drawn on the CPU and sent to the device once, so they are the same on every device,
and no batch waits for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Shape suffixes: N images of an epoch in their order, R of some batches, C channels, H height, W width, P = H * W,
# S shifts, K classes.

GREY = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in the brightness of a pixel, as in torchvision's `rgb_to_grayscale`."""


@dataclass(frozen=True)
class Augmentation:
    """How the images of one epoch are augmented; the default changes nothing.

    flip: every second image, by chance. translate: largest shift as a share of each side; the border is filled by
    reflection. cutout: side of the erased square as a share of the shorter side. mixup, cutmix: alpha of the Beta
    distribution; each image is mixed with another one of its batch, by one of the two if both are above 0. brightness,
    contrast: the random factor is between 1 - value and 1 + value. seed: random seed of the epoch.

    Sources: RandomAffine (`translate`) and ColorJitter of torchvision, here brightness before contrast; DeVries and
    Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017; Zhang et al., mixup: Beyond
    Empirical Risk Minimization, 2018; Yun et al., CutMix, 2019.
    """

    flip: Literal["none", "horizontal"] = "none"
    translate: float = 0.0
    cutout: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    seed: int = 0


@dataclass(frozen=True, eq=False)
class EpochAugmentation:
    """The random numbers of an epoch on the device, one row for each image; None for what does not happen."""

    num_classes: int
    moves: Moves | None
    brightness_N: Tensor | None
    contrast_N: Tensor | None
    erased_N4: Tensor | None
    mixing: Mixing | None

    def apply(
        self, pixels_RCHW: Tensor, labels_R: Tensor, *, scaling: tuple[Tensor, Tensor], start: int
    ) -> tuple[Tensor, Tensor]:
        """Return the augmented images (R, C, H, W) in fp32, scaled as by `scale_pixels`, and their labels.

        pixels_RCHW: uint8, of whole batches. start: number of the first image in the epoch. The labels are int64 (R,),
        or the shares of the classes (R, K) in fp32 if images are mixed.
        """
        part = slice(start, start + len(pixels_RCHW))
        # Pixels are moved as bytes, which are a quarter of the memory traffic.
        moved_RCHW = pixels_RCHW if self.moves is None else self.moves.apply(pixels_RCHW, part)
        images_RCHW = moved_RCHW.to(torch.float32)
        if self.brightness_N is not None:
            images_RCHW.mul_(self.brightness_N[part].view(-1, 1, 1, 1)).clamp_(max=255.0)
        if self.contrast_N is not None:
            change_contrast(images_RCHW, self.contrast_N[part])
        shift_C11, scale_C11 = scaling
        images_RCHW.sub_(shift_C11).mul_(scale_C11)
        if self.erased_N4 is not None:
            # A product is faster than masked_fill_. The fill is 0, the mean of the normalised images, as in the paper.
            images_RCHW.mul_(~inside_boxes(self.erased_N4[part], images_RCHW))
        if self.mixing is None:
            return images_RCHW, labels_R
        return self.mixing.apply(images_RCHW, labels_R, part, num_classes=self.num_classes)


@dataclass(frozen=True, eq=False)
class Moves:
    """Flips and shifts. A table has, for each shift, the row (or column) that each row (or column) is copied from.

    In the table of columns, the mirrored ones follow the others. row_numbers_N, column_numbers_N: the entry of each
    image.
    """

    rows_SH: Tensor
    columns_SW: Tensor
    row_numbers_N: Tensor
    column_numbers_N: Tensor

    def apply(self, pixels_RCHW: Tensor, part: slice) -> Tensor:
        """Return the moved images; each pixel is copied once, by one gather with an index for each image."""
        num_images, channels, height, width = pixels_RCHW.shape
        rows_RH = self.rows_SH.index_select(0, self.row_numbers_N[part])
        columns_RW = self.columns_SW.index_select(0, self.column_numbers_N[part])
        sources_R1P = (rows_RH.unsqueeze(2) * width + columns_RW.unsqueeze(1)).view(num_images, 1, -1)
        moved_RCP = pixels_RCHW.flatten(2).gather(2, sources_R1P.expand(-1, channels, -1))
        return moved_RCP.view(num_images, channels, height, width)


@dataclass(frozen=True, eq=False)
class Mixing:
    """Mixup and cutmix: the weight `weights_N` of another image, everywhere or in a box.

    partners_N: number of the other image in the epoch. boxes_N4: the box of each image; None if all are whole images.
    shares_N: share of the other image's label, which is its weight times the share of the box in the image.
    """

    partners_N: Tensor
    weights_N: Tensor
    shares_N: Tensor
    boxes_N4: Tensor | None

    def apply(self, images_RCHW: Tensor, labels_R: Tensor, part: slice, *, num_classes: int) -> tuple[Tensor, Tensor]:
        """Mix whole batches in place; return them and the shares of the classes (R, K)."""
        partners_R = self.partners_N[part] - part.start
        weights_R111 = self.weights_N[part].view(-1, 1, 1, 1)
        if self.boxes_N4 is not None:
            weights_R111 = inside_boxes(self.boxes_N4[part], images_RCHW) * weights_R111
        images_RCHW.lerp_(images_RCHW.index_select(0, partners_R), weights_R111)
        labels_RK = (labels_R.unsqueeze(1) == torch.arange(num_classes, device=labels_R.device)).to(torch.float32)
        return images_RCHW, labels_RK.lerp_(labels_RK.index_select(0, partners_R), self.shares_N[part].unsqueeze(1))


def inside_boxes(boxes_R4: Tensor, images_RCHW: Tensor) -> Tensor:
    """Return a mask (R, 1, H, W) of the pixels inside of each image's box: first row, end row, first column, end."""
    height, width = images_RCHW.shape[2:]
    top_R1, bottom_R1, left_R1, right_R1 = boxes_R4.unsqueeze(1).unbind(2)
    rows_H, columns_W = (torch.arange(side, dtype=torch.int32, device=boxes_R4.device) for side in (height, width))
    rows_RH = (rows_H >= top_R1) & (rows_H < bottom_R1)
    columns_RW = (columns_W >= left_R1) & (columns_W < right_R1)
    return (rows_RH.unsqueeze(2) & columns_RW.unsqueeze(1)).unsqueeze(1)


def change_contrast(images_RCHW: Tensor, factors_R: Tensor) -> None:
    """Blend images of 0..255 with their mean grey, in place: factor * image + (1 - factor) * grey, kept in 0..255."""
    means_RC = images_RCHW.mean((2, 3))
    if means_RC.shape[1] == len(GREY):
        # Three products with numbers: a tensor of them would be sent to a GPU with every batch.
        grey_R = torch.stack([share * mean_R for share, mean_R in zip(GREY, means_RC.unbind(1), strict=True)]).sum(0)
    else:
        grey_R = means_RC.mean(1)
    grey_R111 = grey_R.view(-1, 1, 1, 1)
    images_RCHW.sub_(grey_R111).mul_(factors_R.view(-1, 1, 1, 1)).add_(grey_R111).clamp_(0.0, 255.0)


def draw_epoch(
    augmentation: Augmentation,
    *,
    num_images: int,
    batch_size: int,
    image_size: tuple[int, int],
    num_classes: int,
    device: torch.device,
) -> EpochAugmentation:
    """Draw all random numbers of an epoch. image_size: (height, width) in pixels."""
    generator = np.random.default_rng(augmentation.seed)
    moves = _draw_moves(augmentation, num_images, image_size, generator=generator, device=device)
    factors = [
        _sent(generator.uniform(1 - reach, 1 + reach, num_images).astype(np.float32), device) if reach else None
        for reach in (augmentation.brightness, augmentation.contrast)
    ]
    erased_N4 = None
    side = round(augmentation.cutout * min(image_size))
    if side:
        sides_N = np.full(num_images, side)
        erased_N4 = _sent(_draw_boxes(sides_N, sides_N, image_size, generator=generator), device)
    mixing = None
    if augmentation.mixup or augmentation.cutmix:
        mixing = _draw_mixing(
            augmentation, num_images, image_size, batch_size=batch_size, generator=generator, device=device
        )
    return EpochAugmentation(num_classes, moves, factors[0], factors[1], erased_N4, mixing)


def _draw_moves(
    augmentation: Augmentation,
    num_images: int,
    image_size: tuple[int, int],
    *,
    generator: np.random.Generator,
    device: torch.device,
) -> Moves | None:
    if augmentation.flip == "none" and not augmentation.translate:
        return None
    tables, numbers = [], []
    for side in image_size:
        # Rounded to whole pixels, as torchvision does, so that the largest shift is half as frequent as the others.
        reach = augmentation.translate * side
        shifts_N = np.rint(generator.uniform(-reach, reach, num_images)).astype(np.int64)
        largest = round(reach)
        tables.append(_shifted(side, largest))
        numbers.append(shifts_N + largest)
    rows_SH, columns_SW = tables
    row_numbers_N, column_numbers_N = numbers
    if augmentation.flip == "horizontal":
        column_numbers_N += len(columns_SW) * generator.integers(2, size=num_images)
        columns_SW = np.concatenate([columns_SW, image_size[1] - 1 - columns_SW])
    return Moves(*(_sent(one, device) for one in (rows_SH, columns_SW, row_numbers_N, column_numbers_N)))


def _shifted(side: int, largest: int) -> NDArray[np.int64]:
    """Return the source of each row for every shift from -largest to largest; the border reflects, without its edge."""
    sources: NDArray[np.int64] = np.arange(side) - np.arange(-largest, largest + 1)[:, np.newaxis]
    reflected: NDArray[np.int64] = (side - 1) - np.abs((side - 1) - np.abs(sources))
    return reflected


def _draw_boxes(
    heights_N: NDArray[np.int64],
    widths_N: NDArray[np.int64],
    image_size: tuple[int, int],
    *,
    generator: np.random.Generator,
) -> NDArray[np.int32]:
    """Draw boxes with any pixel as their centre, clipped by the border; the columns are those of `inside_boxes`."""
    bounds = []
    for side, lengths_N in zip(image_size, (heights_N, widths_N), strict=True):
        starts_N = generator.integers(side, size=len(lengths_N)) - lengths_N // 2
        bounds += [np.clip(starts_N, 0, side), np.clip(starts_N + lengths_N, 0, side)]
    return np.stack(bounds, axis=1).astype(np.int32)


def _draw_mixing(
    augmentation: Augmentation,
    num_images: int,
    image_size: tuple[int, int],
    *,
    batch_size: int,
    generator: np.random.Generator,
    device: torch.device,
) -> Mixing:
    is_cut_N = np.full(num_images, bool(augmentation.cutmix))
    if augmentation.mixup and augmentation.cutmix:
        is_cut_N = generator.integers(2, size=num_images).astype(bool)
    alphas_N = np.where(is_cut_N, augmentation.cutmix, augmentation.mixup)
    others_N = generator.beta(alphas_N, alphas_N)  # weight of the other image, which is distributed as its own is
    boxes_N4, shares_N = None, others_N
    if augmentation.cutmix:
        height, width = image_size
        sides_N = np.sqrt(others_N)
        boxes_N4 = _draw_boxes(
            (height * sides_N).astype(np.int64), (width * sides_N).astype(np.int64), image_size, generator=generator
        )
        boxes_N4[~is_cut_N] = (0, height, 0, width)
        tops_N, bottoms_N, lefts_N, rights_N = boxes_N4.T
        areas_N = (bottoms_N - tops_N) * (rights_N - lefts_N)
        others_N = np.where(is_cut_N, 1.0, others_N)
        shares_N = others_N * areas_N / (height * width)
    # The next image of the batch: images are in random order, so it is any other one by chance.
    numbers_N = np.arange(num_images)
    starts_N = numbers_N - numbers_N % batch_size
    lengths_N = np.minimum(batch_size, num_images - starts_N)
    return Mixing(
        partners_N=_sent(starts_N + (numbers_N - starts_N + 1) % lengths_N, device),
        weights_N=_sent(others_N.astype(np.float32), device),
        shares_N=_sent(shares_N.astype(np.float32), device),
        boxes_N4=None if boxes_N4 is None else _sent(boxes_N4, device),
    )


def _sent(array: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(array).to(device)
