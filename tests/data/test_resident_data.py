from pathlib import Path

import pytest
import torch
from sample_data import make_classes, make_spec

from tuner.data.development_part import load_development
from tuner.data.resident import ResidentData, load_resident
from tuner.data.splits import split_development

CPU = torch.device("cpu")


@pytest.fixture(params=["L", "RGB"], ids=["grey", "rgb"])
def data(tmp_path: Path, request: pytest.FixtureRequest) -> ResidentData:
    make_classes(tmp_path / "pets" / "train", {"cat": 20, "dog": 20}, mode=request.param, size=(6, 5))
    make_classes(tmp_path / "pets" / "test", {"cat": 5, "dog": 5}, mode=request.param, size=(6, 5), first=100)
    dataset = load_development(make_spec(tmp_path / "pets", tmp_path))
    return load_resident(dataset, split_development(dataset, seed=0), device=CPU)


def epoch(data: ResidentData, *, seed: int, batch_size: int = 7) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return list(data.train_batches(batch_size, generator=generator, dtype=torch.float32, channels_last=False))


def test_an_epoch_holds_every_train_row_once_and_ends_with_a_short_batch(data: ResidentData) -> None:
    batches = epoch(data, seed=0)
    assert [len(labels_B) for _, labels_B in batches] == [7, 7, 7, 7, 4]
    seen = torch.cat([images_BCHW for images_BCHW, _ in batches])
    pixels = (seen * torch.tensor(data.std).view(-1, 1, 1) + torch.tensor(data.mean).view(-1, 1, 1)) * 255
    levels = sorted(round(level) for level in pixels[:, 0, 0, 0].tolist())
    assert levels == sorted(data.images_NCHW[data.train_indices_N][:, 0, 0, 0].tolist())


def test_labels_stay_with_their_images(data: ResidentData) -> None:
    row_of_level = {int(image[0, 0, 0]): row for row, image in enumerate(data.images_NCHW)}
    for images_BCHW, labels_B in epoch(data, seed=3):
        levels = ((images_BCHW[:, 0, 0, 0] * data.std[0] + data.mean[0]) * 255).round().int().tolist()
        assert labels_B.tolist() == [int(data.labels_N[row_of_level[level]]) for level in levels]


def test_the_generator_decides_the_order(data: ResidentData) -> None:
    first, again, other = (torch.cat([images for images, _ in epoch(data, seed=seed)]) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_generator_gives_each_epoch_another_order(data: ResidentData) -> None:
    generator = torch.Generator().manual_seed(0)
    orders = [
        torch.cat([x for x, _ in data.train_batches(8, generator=generator, dtype=torch.float32, channels_last=False)])
        for _ in range(2)
    ]
    assert not torch.equal(*orders)


def test_train_images_have_mean_zero_and_deviation_one(data: ResidentData) -> None:
    images_NCHW = torch.cat([images for images, _ in epoch(data, seed=0)])
    assert images_NCHW.mean(dim=(0, 2, 3)).abs().max() < 1e-5
    # The green and blue of these images are constant, and stay zero.
    assert images_NCHW.std(dim=(0, 2, 3), correction=0)[0] == pytest.approx(1, abs=1e-5)
    assert images_NCHW[:, 1:].abs().sum() == 0


def test_validation_batches_come_in_order(data: ResidentData) -> None:
    batches = list(data.validation_batches(3, dtype=torch.float32, channels_last=False))
    assert [len(labels_B) for _, labels_B in batches] == [3, 3, 2]
    assert torch.equal(torch.cat([labels for _, labels in batches]), data.labels_N[data.validation_indices_N])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_have_the_type_and_layout_asked_for(
    data: ResidentData, dtype: torch.dtype, channels_last: bool
) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    plain = list(data.validation_batches(3, dtype=torch.float32, channels_last=False))
    for (images_BCHW, _), (expected_BCHW, _) in zip(
        data.validation_batches(3, dtype=dtype, channels_last=channels_last), plain, strict=True
    ):
        assert images_BCHW.dtype == dtype
        assert images_BCHW.is_contiguous(memory_format=layout)
        torch.testing.assert_close(images_BCHW.float(), expected_BCHW, rtol=0.01, atol=0.02)


def test_a_cpu_shares_the_mapped_images_and_batches_leave_them_alone(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "pets", {"cat": 10, "dog": 10})
    dataset = load_development(make_spec(root, tmp_path))
    before = dataset.images_NCHW.clone()
    data = load_resident(dataset, split_development(dataset, seed=0), device=CPU)
    assert data.images_NCHW.data_ptr() == dataset.images_NCHW.data_ptr()
    epoch(data, seed=0)
    assert torch.equal(dataset.images_NCHW, before)
    assert (data.name, data.digest, data.class_names) == ("pets", dataset.digest, ("cat", "dog"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gets_a_copy_and_the_same_order(data: ResidentData, tmp_path: Path) -> None:
    dataset = load_development(make_spec(tmp_path / "pets", tmp_path))
    there = load_resident(dataset, split_development(dataset, seed=0), device=torch.device("cuda"))
    for (here_BCHW, _), (there_BCHW, _) in zip(epoch(data, seed=5), epoch(there, seed=5), strict=True):
        assert there_BCHW.is_cuda
        torch.testing.assert_close(there_BCHW.cpu(), here_BCHW)
