"""Augmentations of tiny images against values made by hand, by torch and by torchvision."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sample_data import make_classes, make_spec
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as vision

from tuner.data.augmentation import Augmentation, EpochAugmentation, Moves, draw_epoch
from tuner.data.development_part import load_development
from tuner.data.resident import ResidentData, load_resident
from tuner.data.splits import split_development
from tuner.data.streamed import StreamedData, load_streamed

CPU = torch.device("cpu")
AS_PIXELS = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
"""Scaling that leaves pixels as they are."""
NUM_CLASSES = 5
EVERYTHING = Augmentation("horizontal", 0.2, 0.3, 0.4, 1.0, 0.3, 0.3)


def noise(num_images: int, *shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (num_images, *shape), generator=generator, dtype=torch.uint8)


def drawn_for(pixels_NCHW: Tensor, augmentation: Augmentation, *, batch_size: int = 4) -> EpochAugmentation:
    height, width = pixels_NCHW.shape[2:]
    return draw_epoch(
        augmentation,
        num_images=len(pixels_NCHW),
        batch_size=batch_size,
        image_size=(height, width),
        num_classes=NUM_CLASSES,
        device=CPU,
    )


def augmented(
    pixels_NCHW: Tensor, augmentation: Augmentation, *, labels_N: Tensor | None = None, batch_size: int = 4
) -> tuple[Tensor, Tensor, EpochAugmentation]:
    """The images and labels of an epoch whose batches come one by one, and what was drawn for it."""
    labels_N = torch.arange(len(pixels_NCHW)) % NUM_CLASSES if labels_N is None else labels_N
    drawn = drawn_for(pixels_NCHW, augmentation, batch_size=batch_size)
    batches = [
        drawn.apply(pixels, labels, scaling=AS_PIXELS, start=number * batch_size)
        for number, (pixels, labels) in enumerate(
            zip(pixels_NCHW.split(batch_size), labels_N.split(batch_size), strict=True)
        )
    ]
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels), drawn


def moves_of(drawn: EpochAugmentation) -> Moves:
    assert drawn.moves is not None
    return drawn.moves


def test_a_flip_mirrors_about_half_of_the_images_as_torch_does() -> None:
    pixels_NCHW = noise(1000, 3, 2, 5)
    images_NCHW, labels_N, _ = augmented(pixels_NCHW, Augmentation("horizontal"))
    is_mirrored_N = (images_NCHW == pixels_NCHW.flip(3)).flatten(1).all(1)
    is_same_N = (images_NCHW == pixels_NCHW).flatten(1).all(1)
    assert torch.equal(is_same_N, ~is_mirrored_N)
    assert 430 < int(is_mirrored_N.sum()) < 570  # four standard deviations
    assert labels_N.dtype == torch.int64
    assert labels_N.tolist() == [number % NUM_CLASSES for number in range(1000)]


@pytest.mark.parametrize(("height", "width", "translate"), [(8, 8, 0.25), (7, 12, 0.4), (4, 6, 0.5), (3, 1, 0.5)])
@pytest.mark.parametrize("flip", ["none", "horizontal"])
def test_a_shift_is_a_slice_of_the_reflected_image(height: int, width: int, translate: float, flip: Any) -> None:
    pixels_NCHW = noise(200, 3, height, width)
    images_NCHW, _, drawn = augmented(pixels_NCHW, Augmentation(flip, translate))
    moves = moves_of(drawn)
    reach = round(translate * height), round(translate * width)
    padded_NCHW = functional.pad(pixels_NCHW.float(), (reach[1], reach[1], reach[0], reach[0]), mode="reflect")
    mirrored_NCHW = functional.pad(
        pixels_NCHW.flip(3).float(), (reach[1], reach[1], reach[0], reach[0]), mode="reflect"
    )
    num_shifts = 2 * reach[1] + 1
    for number, image_CHW in enumerate(images_NCHW):
        entry = int(moves.column_numbers_N[number])
        source_CHW = (padded_NCHW if entry < num_shifts else mirrored_NCHW)[number]
        down, right = int(moves.row_numbers_N[number]) - reach[0], entry % num_shifts - reach[1]
        top, left = reach[0] - down, reach[1] - right
        assert torch.equal(image_CHW, source_CHW[:, top : top + height, left : left + width])


def test_shifts_have_torchvisions_frequencies() -> None:
    # RandomAffine rounds a uniform number, so that the two largest shifts are half as frequent as the others.
    pixels_NCHW = noise(20_000, 1, 8, 4)
    moves = moves_of(drawn_for(pixels_NCHW, Augmentation(translate=0.25)))
    rows, columns = (torch.bincount(numbers_N) / 20_000 for numbers_N in (moves.row_numbers_N, moves.column_numbers_N))
    assert rows.tolist() == pytest.approx([1 / 8, 1 / 4, 1 / 4, 1 / 4, 1 / 8], abs=0.02)
    assert columns.tolist() == pytest.approx([1 / 4, 1 / 2, 1 / 4], abs=0.02)


@pytest.mark.parametrize("channels", [1, 3])
def test_brightness_and_contrast_are_torchvisions(channels: int) -> None:
    pixels_NCHW = noise(50, channels, 6, 5)
    images_NCHW, _, drawn = augmented(pixels_NCHW, Augmentation(brightness=0.5, contrast=0.8))
    assert drawn.brightness_N is not None
    assert drawn.contrast_N is not None
    for image_CHW, pixels_CHW, brightness, contrast in zip(
        images_NCHW, pixels_NCHW, drawn.brightness_N, drawn.contrast_N, strict=True
    ):
        expected_CHW = vision.adjust_contrast(
            vision.adjust_brightness(pixels_CHW / 255, float(brightness)), float(contrast)
        )
        assert torch.allclose(image_CHW / 255, expected_CHW, atol=1e-3)  # its grey shares have rounding of their own
    for factors_N, reach in ((drawn.brightness_N, 0.5), (drawn.contrast_N, 0.8)):
        assert (factors_N - 1).abs().max() <= reach
        assert factors_N.std() > reach / 3


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    cutout=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**63 - 1),
)
def test_cutout_erases_a_square_that_the_border_clips(height: int, width: int, cutout: float, seed: int) -> None:
    pixels_NCHW = noise(12, 2, height, width).clamp(min=1)
    images_NCHW, _, _ = augmented(pixels_NCHW, Augmentation(cutout=cutout, seed=seed))
    side = round(cutout * min(height, width))
    for image_CHW, pixels_CHW in zip(images_NCHW, pixels_NCHW, strict=True):
        erased_HW = image_CHW[0] == 0
        assert torch.equal(erased_HW, image_CHW[1] == 0)
        assert torch.equal(image_CHW[:, ~erased_HW], pixels_CHW.float()[:, ~erased_HW])
        rows, columns = (erased_HW.any(dim).nonzero().flatten() for dim in (1, 0))
        assert int(erased_HW.sum()) == len(rows) * len(columns)
        for line, size in ((rows, height), (columns, width)):
            if side == 0:
                assert len(line) == 0
            else:
                assert line.tolist() == list(range(int(line[0]), int(line[-1]) + 1))
                is_clipped = int(line[0]) == 0 or int(line[-1]) == size - 1
                assert len(line) == side or (is_clipped and side // 2 <= len(line) < side)


def test_what_is_erased_is_the_mean_of_normalised_images() -> None:
    pixels_NCHW = noise(4, 3, 8, 8)
    scaling = torch.tensor([100.0, 120.0, 140.0]).view(3, 1, 1), torch.full((3, 1, 1), 0.02)
    images_NCHW, _ = drawn_for(pixels_NCHW, Augmentation(cutout=1.0)).apply(
        pixels_NCHW, torch.zeros(4, dtype=torch.int64), scaling=scaling, start=0
    )
    normalised_NCHW = (pixels_NCHW.float() - scaling[0]) * scaling[1]
    is_erased_NCHW = images_NCHW != normalised_NCHW
    assert is_erased_NCHW.any(dim=(1, 2, 3)).all()
    assert (images_NCHW[is_erased_NCHW] == 0).all()


def partners_of(num_images: int, batch_size: int) -> list[int]:
    """The next image of the same batch; of the last one, the first."""
    numbers: list[int] = []
    for start in range(0, num_images, batch_size):
        batch = list(range(start, min(start + batch_size, num_images)))
        numbers += [*batch[1:], batch[0]]
    return numbers


@pytest.mark.parametrize("num_images", [8, 9, 10, 1])
def test_mixup_is_a_convex_combination_of_images_and_labels(num_images: int) -> None:
    pixels_NCHW, labels_N = noise(num_images, 3, 4, 5), torch.arange(num_images) % NUM_CLASSES
    images_NCHW, labels_NK, drawn = augmented(pixels_NCHW, Augmentation(mixup=0.8), labels_N=labels_N)
    assert drawn.mixing is not None
    partners = partners_of(num_images, 4)
    weights_N = drawn.mixing.weights_N.view(-1, 1, 1, 1)
    one_hot_NK = functional.one_hot(labels_N, NUM_CLASSES).float()
    expected_NCHW = (1 - weights_N) * pixels_NCHW + weights_N * pixels_NCHW[partners]
    assert torch.allclose(images_NCHW, expected_NCHW, atol=1e-4)
    shares_N1 = drawn.mixing.weights_N.view(-1, 1)
    assert torch.allclose(labels_NK, (1 - shares_N1) * one_hot_NK + shares_N1 * one_hot_NK[partners], atol=1e-6)
    if num_images == 1:  # mixed with itself
        assert torch.equal(images_NCHW, pixels_NCHW.float())
        assert torch.equal(labels_NK, one_hot_NK)


@given(num_images=st.integers(1, 11), height=st.integers(1, 9), width=st.integers(1, 9), seed=st.integers(0, 2**63 - 1))
def test_the_label_shares_of_cutmix_are_exactly_the_areas(num_images: int, height: int, width: int, seed: int) -> None:
    # Each image has a colour of its own, so that each pixel shows the image that it comes from.
    pixels_NCHW = (1 + torch.arange(num_images, dtype=torch.uint8)).view(-1, 1, 1, 1).expand(-1, 2, height, width)
    labels_N = torch.arange(num_images) % NUM_CLASSES
    images_NCHW, labels_NK, _ = augmented(pixels_NCHW, Augmentation(cutmix=1.0, seed=seed), labels_N=labels_N)
    for number, partner in enumerate(partners_of(num_images, 4)):
        is_other_HW = images_NCHW[number, 0] == 1 + partner
        assert torch.equal(images_NCHW[number, 0], images_NCHW[number, 1])
        assert torch.equal(images_NCHW[number, 0][~is_other_HW], torch.full((int((~is_other_HW).sum()),), 1.0 + number))
        share = int(is_other_HW.sum()) / (height * width) if partner != number else 0.0
        expected_K = torch.zeros(NUM_CLASSES)
        expected_K[number % NUM_CLASSES] += 1 - share
        expected_K[partner % NUM_CLASSES] += share
        assert torch.allclose(labels_NK[number], expected_K, atol=1e-7)


def test_the_weights_of_mixup_have_the_moments_of_the_beta_distribution() -> None:
    pixels_NCHW = noise(20_000, 1, 1, 1)
    for alpha in (0.1, 1.0, 5.0):
        mixing = drawn_for(pixels_NCHW, Augmentation(mixup=alpha)).mixing
        assert mixing is not None
        assert float(mixing.weights_N.mean()) == pytest.approx(0.5, abs=0.015)
        assert float(mixing.weights_N.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.05)


def test_with_both_each_image_takes_mixup_or_cutmix_by_chance() -> None:
    pixels_NCHW = noise(2000, 1, 8, 8)
    mixing = drawn_for(pixels_NCHW, Augmentation(mixup=1.0, cutmix=1.0)).mixing
    assert mixing is not None
    assert mixing.boxes_N4 is not None
    is_cut_N = mixing.weights_N == 1
    assert 900 < int(is_cut_N.sum()) < 1100
    assert (mixing.boxes_N4[~is_cut_N] == torch.tensor([0, 8, 0, 8])).all()
    assert torch.equal(mixing.shares_N[~is_cut_N], mixing.weights_N[~is_cut_N])


augmentations = st.builds(
    Augmentation,
    flip=st.sampled_from(["none", "horizontal"]),
    translate=st.floats(0.0, 0.5),
    cutout=st.floats(0.0, 1.0),
    mixup=st.just(0.0) | st.floats(0.0, 100.0),
    cutmix=st.just(0.0) | st.floats(0.0, 100.0),
    brightness=st.floats(0.0, 1.0),
    contrast=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**63 - 1),
)


@given(
    augmentation=augmentations,
    num_images=st.integers(1, 9),
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(1, 7), st.integers(1, 7)),
    batch_size=st.integers(1, 10),
)
def test_any_augmentation_of_any_images_gives_pixels_and_shares_of_classes(
    augmentation: Augmentation, num_images: int, shape: tuple[int, int, int], batch_size: int
) -> None:
    pixels_NCHW = noise(num_images, *shape)
    given_NCHW = pixels_NCHW.clone()
    images_NCHW, labels, _ = augmented(pixels_NCHW, augmentation, batch_size=batch_size)
    assert torch.equal(pixels_NCHW, given_NCHW)
    assert images_NCHW.shape == pixels_NCHW.shape
    assert images_NCHW.dtype == torch.float32
    assert images_NCHW.min() >= -1e-3
    assert images_NCHW.max() <= 255.001
    if augmentation.mixup or augmentation.cutmix:
        assert labels.shape == (num_images, NUM_CLASSES)
        assert labels.min() >= 0
        assert torch.allclose(labels.sum(1), torch.ones(num_images))
    else:
        assert torch.equal(labels, torch.arange(num_images) % NUM_CLASSES)


@given(augmentation=augmentations, batch_size=st.integers(1, 4), at_once=st.integers(1, 4))
def test_several_batches_at_once_are_the_same_as_one_after_another(
    augmentation: Augmentation, batch_size: int, at_once: int
) -> None:
    pixels_NCHW, labels_N = noise(11, 3, 4, 5), torch.arange(11) % NUM_CLASSES
    images_NCHW, labels, drawn = augmented(pixels_NCHW, augmentation, batch_size=batch_size)
    step = batch_size * at_once
    blocks = [
        drawn.apply(pixels_NCHW[start : start + step], labels_N[start : start + step], scaling=AS_PIXELS, start=start)
        for start in range(0, 11, step)
    ]
    assert torch.equal(torch.cat([one for one, _ in blocks]), images_NCHW)
    assert torch.equal(torch.cat([one for _, one in blocks]), labels)


def test_the_seed_alone_decides_what_is_drawn() -> None:
    pixels_NCHW = noise(64, 3, 8, 8)
    torch.manual_seed(0)
    np.random.seed(0)
    once, _, _ = augmented(pixels_NCHW, replace(EVERYTHING, seed=7))
    again, _, _ = augmented(pixels_NCHW, replace(EVERYTHING, seed=7))
    other, _, _ = augmented(pixels_NCHW, replace(EVERYTHING, seed=8))
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_images_are_the_same_in_the_layout_and_precision_of_every_engine(tmp_path: Path) -> None:
    resident, _ = both(tmp_path)
    plain, last = (epoch(resident, EVERYTHING, channels_last=channels_last) for channels_last in (False, True))
    rounded = epoch(resident, EVERYTHING, dtype=torch.bfloat16)
    for (images, labels), (images_last, labels_last), (images_rounded, _) in zip(plain, last, rounded, strict=True):
        assert images_last.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(images, images_last)
        assert torch.equal(labels, labels_last)
        assert torch.equal(images.to(torch.bfloat16), images_rounded)


def both(tmp_path: Path) -> tuple[ResidentData, StreamedData]:
    make_classes(tmp_path / "pets" / "train", {"cat": 20, "dog": 20}, mode="RGB", size=(6, 5))
    make_classes(tmp_path / "pets" / "test", {"cat": 5, "dog": 5}, mode="RGB", size=(6, 5), first=100)
    dataset = load_development(make_spec(tmp_path / "pets", tmp_path))
    split = split_development(dataset, seed=0)
    return load_resident(dataset, split, device=CPU), load_streamed(dataset, split, device=CPU, memory_bytes=2**20)


def epoch(
    data: ResidentData | StreamedData,
    augmentation: Augmentation | None,
    *,
    batch_size: int = 7,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> list[tuple[Tensor, Tensor]]:
    drawn = None
    if augmentation is not None:
        drawn = draw_epoch(
            augmentation,
            num_images=len(data.train_indices_N),
            batch_size=batch_size,
            image_size=(5, 6),
            num_classes=2,
            device=CPU,
        )
    return list(
        data.train_batches(
            batch_size,
            generator=torch.Generator().manual_seed(0),
            dtype=dtype,
            channels_last=channels_last,
            augmentation=drawn,
        )
    )


def test_in_one_order_resident_and_streamed_images_are_augmented_in_the_same_way(tmp_path: Path) -> None:
    # The two have orders of their own, so each is compared with an epoch of itself that is augmented by hand.
    for data in both(tmp_path):
        drawn = draw_epoch(EVERYTHING, num_images=32, batch_size=7, image_size=(5, 6), num_classes=2, device=CPU)
        pixels_NCHW = torch.cat([images for images, _ in epoch(replace(data, mean=(0.0,) * 3, std=(1.0,) * 3), None)])
        labels_N = torch.cat([labels for _, labels in epoch(data, None)])
        shift, scale = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
        images_NCHW, labels_NK = drawn.apply(
            (pixels_NCHW * 255).round().to(torch.uint8), labels_N, scaling=(255 * shift, 1 / (255 * scale)), start=0
        )
        found = epoch(data, EVERYTHING)
        assert torch.allclose(torch.cat([images for images, _ in found]), images_NCHW, atol=1e-5)
        assert torch.equal(torch.cat([labels for _, labels in found]), labels_NK)
        assert [len(images) for images, _ in found] == [7, 7, 7, 7, 4]
