import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_data import make_classes, make_spec
from torch import Tensor

from tuner.data.dataset import ImageDataset
from tuner.data.development_part import load_development
from tuner.data.resident import ResidentData, load_resident
from tuner.data.splits import Split, split_development
from tuner.data.stream_limit import StreamLimit
from tuner.data.streamed import StreamedData, load_streamed
from tuner.data.training_data import (
    TrainingData,
    fits_in_memory,
    how_it_is_held,
    measure_statistics,
    memory_for_images,
    open_data,
    stream_limit,
)
from tuner.errors import DataError

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
NUM_IMAGES, SHAPE = 3000, (3, 5, 4)
PLAIN = (0.0,) * 3, (1 / 255,) * 3
"""Statistics with which images come out as their pixels."""
KIB, MIB = 2**10, 2**20
SMALL_OBJECTS = 32 * KIB
"""Of Python, beside the pixels of a pass: a fraction of a batch."""

Batches = Iterator[tuple[Tensor, Tensor]]


def save_images(folder: Path, num_images: int = NUM_IMAGES, shape: tuple[int, int, int] = SHAPE) -> ImageDataset:
    """A cached set in which the first two pixels of an image are its row, and so is its label."""
    images_NCHW = np.random.default_rng(0).integers(0, 256, (num_images, *shape), dtype=np.uint8)
    images_NCHW.reshape(num_images, -1)[:, :2] = np.arange(num_images, dtype="<u2").view(np.uint8).reshape(-1, 2)
    np.save(folder / "images.npy", images_NCHW)
    return ImageDataset(
        name="rows",
        images_NCHW=torch.from_numpy(np.load(folder / "images.npy", mmap_mode="c")),
        labels_N=torch.arange(num_images),
        class_names=("one", "two"),
        digest="d",
        validation_indices_N=None,
        folder=folder,
        notes=(),
    )


def split_at(validation: list[int] | range, num_images: int = NUM_IMAGES) -> Split:
    in_validation_N = torch.zeros(num_images, dtype=torch.bool)
    in_validation_N[list(validation)] = True
    return Split((~in_validation_N).nonzero().flatten(), in_validation_N.nonzero().flatten())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    return save_images(tmp_path_factory.mktemp("rows"))


def stream(dataset: ImageDataset, split: Split, memory_bytes: int = 64 * KIB) -> StreamedData:
    return load_streamed(dataset, split, device=CPU, memory_bytes=memory_bytes, statistics=PLAIN)


def epoch(data: TrainingData, batch_size: int = 16, *, seed: int = 0) -> Batches:
    generator = torch.Generator().manual_seed(seed)
    return data.train_batches(batch_size, generator=generator, dtype=torch.float32, channels_last=False)


def validation(data: TrainingData, batch_size: int = 16) -> Batches:
    return data.validation_batches(batch_size, dtype=torch.float32, channels_last=False)


def order_of(batches: Batches) -> list[int]:
    """The rows that the images say they are, which must be what the labels say."""
    rows: list[int] = []
    for images_BCHW, labels_B in batches:
        low_B, high_B = images_BCHW.flatten(1)[:, :2].round().long().unbind(1)
        assert torch.equal(low_B + 256 * high_B, labels_B)
        rows += labels_B.tolist()
    return rows


def threads_reading() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


@given(
    validation_rows=st.one_of(
        st.just(range(NUM_IMAGES - 500, NUM_IMAGES)),
        st.just(range(0, NUM_IMAGES, 5)),
        st.just([3, 2998]),
        st.just([row for row in range(NUM_IMAGES) if row not in (0, 1, 1500, 2999)]),
        st.lists(st.integers(0, NUM_IMAGES - 1), min_size=1, max_size=2999, unique=True),
    ),
    batch_size=st.integers(1, 70),
    spare_bytes=st.one_of(st.integers(0, 100 * KIB), st.just(10 * MIB)),
)
@settings(max_examples=25)
def test_an_epoch_holds_every_train_row_once_and_validation_all_of_its_rows_in_order(
    dataset: ImageDataset, validation_rows: list[int] | range, batch_size: int, spare_bytes: int
) -> None:
    split = split_at(validation_rows)
    data = stream(dataset, split, memory_bytes=124 * (2 * batch_size + 9) + spare_bytes)
    batches = list(epoch(data, batch_size))
    num_train = len(split.train_indices_N)
    whole, rest = divmod(num_train, batch_size)
    assert [len(labels_B) for _, labels_B in batches] == [batch_size] * whole + [rest] * (rest > 0)
    assert sorted(order_of(iter(batches))) == split.train_indices_N.tolist()
    assert order_of(validation(data, batch_size)) == split.validation_indices_N.tolist()


def test_images_and_labels_of_validation_are_those_of_the_set_in_memory(dataset: ImageDataset) -> None:
    split = split_at(range(0, NUM_IMAGES, 7))
    resident = load_resident(dataset, split, device=CPU)
    streamed = load_streamed(dataset, split, device=CPU, memory_bytes=64 * KIB)
    assert (streamed.mean, streamed.std) == (resident.mean, resident.std)
    for dtype, channels_last in ((torch.float32, False), (torch.float32, True), (torch.bfloat16, True)):
        held, read = (
            list(data.validation_batches(9, dtype=dtype, channels_last=channels_last)) for data in (resident, streamed)
        )
        for (held_BCHW, held_labels_B), (read_BCHW, read_labels_B) in zip(held, read, strict=True):
            assert torch.equal(held_BCHW, read_BCHW)
            assert (held_BCHW.dtype, held_BCHW.stride()) == (read_BCHW.dtype, read_BCHW.stride())
            assert torch.equal(held_labels_B, read_labels_B)


def test_the_generator_decides_the_order(dataset: ImageDataset) -> None:
    data = stream(dataset, split_at(range(100)))
    first, again, other = (order_of(epoch(data, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_one_generator_gives_each_epoch_another_order_whatever_it_draws_in_between(dataset: ImageDataset) -> None:
    def orders(*, disturbed: bool) -> list[list[int]]:
        generator = torch.Generator().manual_seed(0)
        passes = [
            data.train_batches(16, generator=generator, dtype=torch.float32, channels_last=False) for _ in range(2)
        ]
        if disturbed:
            torch.rand(5, generator=generator)
        return [order_of(batches) for batches in passes]

    data = stream(dataset, split_at(range(100)))
    first, second = orders(disturbed=False)
    assert first != second
    assert orders(disturbed=True) == [first, second]


def test_batches_are_drawn_from_many_places_of_the_file(dataset: ImageDataset) -> None:
    data = stream(dataset, split_at(range(100)), memory_bytes=128 * KIB)
    order_N = np.array(order_of(epoch(data, 32)))
    batches_MB = order_N[: len(order_N) // 32 * 32].reshape(-1, 32)
    # 2,900 rows; were they drawn from all of the file, the places of a batch would deviate by 2,900 / sqrt(12) = 837.
    assert np.median(batches_MB.std(axis=1)) > 600
    # Neighbours in the file are neighbours in the order by chance alone.
    assert (np.abs(np.diff(order_N)) == 1).mean() < 0.02
    # Not only the order of reading: rows of one chunk leave the buffer at different times.
    places_N = np.argsort(order_N)
    assert np.median(np.abs(np.diff(places_N))) > 100


def test_a_set_smaller_than_the_buffer_is_shuffled_as_a_whole(dataset: ImageDataset) -> None:
    data = stream(dataset, split_at(range(100)), memory_bytes=10 * MIB)
    order = order_of(epoch(data, 50))
    means = [np.mean(order[start : start + 50]) for start in range(0, len(order), 50)]
    # The mean of 50 draws deviates by 837 / sqrt(50) = 118.
    assert 60 < np.std(means) < 180


def test_a_limit_that_does_not_hold_a_batch_to_draw_and_one_to_draw_from_is_refused_with_the_numbers(
    dataset: ImageDataset,
) -> None:
    least = 124 * (16 + 16 + 9)
    data = stream(dataset, split_at(range(100)), memory_bytes=least - 1)
    assert data.limit.largest_batch == 15
    with pytest.raises(DataError, match=r"size of 16 needs 5.0 KiB .* images of 60 bytes, .* at most 15 fits: choose"):
        epoch(data)
    assert len(order_of(epoch(data, 15))) == 2900
    batches = list(epoch(replace(data, memory_bytes=least)))
    assert [len(labels_B) for _, labels_B in batches] == [16] * 181 + [4]


def test_validation_takes_smaller_batches_where_the_limit_does_not_hold_larger_ones(dataset: ImageDataset) -> None:
    split = split_at(range(0, 3000, 30))
    data = stream(dataset, split, memory_bytes=124 * (15 + 15 + 9))
    batches = list(validation(data, 64))
    assert [len(labels_B) for _, labels_B in batches] == [15] * 6 + [10]
    assert order_of(iter(batches)) == split.validation_indices_N.tolist()
    with pytest.raises(DataError, match=r"a batch size of 1 needs 1.3 KiB .* more than the 1.2 KiB allowed; at most 0"):
        validation(replace(data, memory_bytes=124 * 10))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_needed_is_what_suffices_and_room_goes_to_devices_for_batches_on_their_way(device: str) -> None:
    for image_bytes in (60, 3 * 32 * 32, 3 * 512 * 512, 2**23):
        limit = StreamLimit(512 * MIB, image_bytes, torch.device(device))
        largest = limit.largest_batch
        assert limit.needed_bytes(largest) <= 512 * MIB < limit.needed_bytes(largest + 1)
        assert limit.reason_against(largest) == ""
        for batch_size in {1, largest // 2 or 1, largest}:
            least = replace(limit, memory_bytes=limit.needed_bytes(batch_size))
            assert least.largest_batch == batch_size
            for one in (limit, least):
                room = one.room_for(batch_size)
                # Full but for a chunk that waits, the buffer still has a batch to be drawn.
                assert room.num_slots - room.chunk_rows + 1 > batch_size
    assert (limit.largest_batch, device) in {(27, "cpu"), (7, "cuda")}


def most_bytes_of(batches: Batches) -> tuple[int, int]:
    """How many images a pass gives, and the most memory that it takes meanwhile, without torch's tensors.

    numpy's arrays, which hold all pixels, are counted exactly, and so are Python's own small objects.
    """
    tracemalloc.start()
    num_images = sum(len(labels_B) for _, labels_B in batches)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return num_images, most


def test_a_pass_holds_no_more_pixels_than_the_limit_allows(tmp_path: Path) -> None:
    dataset = save_images(tmp_path, 5000, (3, 32, 32))
    split = split_at(range(0, 5000, 9), 5000)
    for memory_bytes in (2 * MIB, 5 * MIB):
        data = stream(dataset, split, memory_bytes=memory_bytes)
        largest = data.limit.largest_batch
        for passes, num_expected in (
            (epoch, len(split.train_indices_N)),
            (validation, len(split.validation_indices_N)),
        ):
            for batch_size in (40, largest):
                num_images, most = most_bytes_of(passes(data, batch_size))
                assert num_images == num_expected
                assert most <= memory_bytes + SMALL_OBJECTS
                # The buffer is as large as it may be.
                assert passes is validation or most > 0.8 * memory_bytes


# A sparse file of 205 MiB. Rows are left out, so that the room in which rows are sorted out is used, too.
IN_LITTLE_MEMORY = """
import sys, threading, psutil, numpy as np, torch
from pathlib import Path
from tuner.data.dataset import ImageDataset
from tuner.data.training_data import measure_statistics, open_data
from tuner.data.splits import Split
from tuner.data.streamed import StreamedData

torch.set_num_threads(1)
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
images = torch.from_numpy(np.load(folder / "images.npy", mmap_mode="c"))
rows = torch.arange(len(images))
dataset = ImageDataset("big", images, rows, ("a", "b"), "d", None, folder, ())
split = Split(rows[rows % 10 > 0], rows[rows % 10 == 0])
settings = {"dtype": torch.float32, "channels_last": True}

before, most = psutil.Process().memory_info().rss, 0
statistics = measure_statistics(dataset, split, memory_bytes=limit)
data = open_data(dataset, split, device=torch.device("cpu"), memory_bytes=limit, statistics=statistics)
assert isinstance(data, StreamedData)
count = 0
for batches in (
    data.train_batches(64, generator=torch.Generator(), **settings), data.validation_batches(64, **settings)
):
    for images_BCHW, _ in batches:
        most = max(most, psutil.Process().memory_info().rss - before)
        count += len(images_BCHW)
print(count, most)
"""


@pytest.mark.slow
def test_a_pass_over_a_set_of_many_times_the_limit_stays_within_it(tmp_path: Path) -> None:
    shape, limit = (20_000, 3, 64, 56), 16 * MIB
    with (tmp_path / "images.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + int(np.prod(shape)))
    finished = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY, str(tmp_path), str(limit)],
        capture_output=True,
        text=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},  # glibc would keep tens of MiB that are free
    )
    assert finished.returncode == 0, finished.stderr
    count, most = map(int, finished.stdout.split())
    assert count == 20_000
    # The limit is one of pixels; batches in fp32, and the code that is loaded, come on top.
    assert most < limit + 40 * MIB


def test_an_iterator_that_is_dropped_ends_its_thread(dataset: ImageDataset) -> None:
    data = stream(dataset, split_at(range(1500)))
    for passes in (epoch, validation):
        batches = passes(data)
        assert not threads_reading()
        next(batches)
        assert threads_reading()
        del batches
        assert not threads_reading()


def test_a_pass_to_the_end_leaves_no_thread_and_no_open_file(dataset: ImageDataset) -> None:
    data = stream(dataset, split_at(range(100)))
    open_files = psutil.Process().open_files()
    batches = epoch(data)
    next(batches)
    assert psutil.Process().open_files() != open_files
    assert len(order_of(batches)) == 2900 - 16
    assert not threads_reading()
    assert psutil.Process().open_files() == open_files


def test_two_passes_at_once_do_not_disturb_each_other(dataset: ImageDataset) -> None:
    data = stream(dataset, split_at(range(1500)))
    alone = [order_of(epoch(data, seed=seed)) for seed in (1, 2)]
    together = zip(epoch(data, seed=1), epoch(data, seed=2), strict=True)
    first, second = zip(*together, strict=True)
    assert [order_of(iter(first)), order_of(iter(second))] == alone


def test_an_image_that_cannot_be_read_is_an_error_where_batches_are_asked_for(tmp_path: Path) -> None:
    dataset = save_images(tmp_path, 300)
    data = stream(replace(dataset, images_NCHW=dataset.images_NCHW.clone()), split_at(range(100), 300))
    os.truncate(tmp_path / "images.npy", 128 + 60 * 299)
    with pytest.raises(DataError, match=r"images\.npy is not \(it ends too early\): load the data set again"):
        order_of(epoch(data))
    assert not threads_reading()
    assert len(order_of(validation(data))) == 100
    (tmp_path / "images.npy").unlink()
    with pytest.raises(DataError, match=r"images\.npy is not \(.*No such file"):
        order_of(epoch(data))
    with pytest.raises(DataError, match=r"images\.npy is not \(.*No such file"):
        stream(dataset, split_at([0], 300))


def test_size_chooses_how_a_set_is_held_and_the_note_says_so(dataset: ImageDataset) -> None:
    split, size = split_at(range(100)), NUM_IMAGES * 60
    held = open_data(dataset, split, device=CPU, memory_bytes=size)
    streamed = open_data(dataset, split, device=CPU, memory_bytes=size - 1, stream_bytes=64 * KIB)
    assert isinstance(held, ResidentData)
    assert isinstance(streamed, StreamedData)
    assert streamed.memory_bytes == 64 * KIB
    assert how_it_is_held(dataset, device=CPU, memory_bytes=size) == "176 KiB of images: held in memory"
    assert how_it_is_held(dataset, device=CPU, memory_bytes=100 * KIB, stream_bytes=64 * KIB) == (
        "176 KiB of images, more than the 100 KiB allowed: streamed from disk with at most 64.0 KiB in memory "
        "for each runner"
    )
    there = torch.device("cuda:1")
    assert how_it_is_held(dataset, device=there, memory_bytes=size) == "176 KiB of images: held on cuda:1"


@pytest.mark.parametrize(("num_images", "is_held"), [(2**20, True), (2**20 + 1, False)])
def test_a_set_of_more_than_four_gibibytes_is_streamed_to_mps_which_indexes_with_32_bits(
    dataset: ImageDataset, num_images: int, is_held: bool
) -> None:
    images_NCHW = torch.empty(num_images, 1, 64, 64, dtype=torch.uint8, device="meta")
    large, mps, memory_bytes = replace(dataset, images_NCHW=images_NCHW), torch.device("mps"), 64 * 1024 * MIB
    assert fits_in_memory(large, memory_bytes, device=mps) is is_held
    assert (stream_limit(large, device=mps, memory_bytes=memory_bytes) is None) is is_held
    assert how_it_is_held(large, device=mps, memory_bytes=memory_bytes) == (
        "4.0 GiB of images: held on mps"
        if is_held
        else "4.0 GiB of images, more than the 4.0 GiB allowed: streamed from disk with at most 512 MiB in memory "
        "for each runner"
    )
    for other in ("cpu", "cuda:0"):
        assert stream_limit(large, device=torch.device(other), memory_bytes=memory_bytes) is None
    assert not fits_in_memory(large, 2**31, device=mps)


def test_a_large_set_opened_for_mps_is_a_stream(dataset: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.data.training_data.LARGEST_ON_MPS", dataset.images_NCHW.numel() - 1)
    data = open_data(dataset, split_at(range(100)), device=torch.device("mps"), memory_bytes=64 * MIB, statistics=PLAIN)
    assert isinstance(data, StreamedData)


def test_a_stream_never_takes_more_than_images_may(dataset: ImageDataset) -> None:
    data = open_data(dataset, split_at(range(100)), device=CPU, memory_bytes=100 * KIB)
    assert isinstance(data, StreamedData)
    assert data.memory_bytes == 100 * KIB
    assert how_it_is_held(dataset, device=CPU, memory_bytes=100 * KIB).endswith(
        "with at most 100 KiB in memory for each runner"
    )


def test_statistics_are_measured_once_and_handed_on(dataset: ImageDataset) -> None:
    split = split_at(range(0, NUM_IMAGES, 3))
    mean, std = measure_statistics(dataset, split, memory_bytes=10 * MIB)
    assert measure_statistics(dataset, split, memory_bytes=100 * KIB) == (mean, std)
    pixels_NCHW = dataset.images_NCHW[split.train_indices_N].double() / 255
    torch.testing.assert_close(torch.tensor(mean).double(), pixels_NCHW.mean((0, 2, 3)))
    for memory_bytes in (10 * MIB, 100 * KIB):
        data = open_data(dataset, split, device=CPU, memory_bytes=memory_bytes, statistics=PLAIN)
        assert (data.mean, data.std) == PLAIN


def test_images_may_take_a_share_of_this_machine() -> None:
    assert 0 < memory_for_images(CPU) < psutil.virtual_memory().total


def test_a_data_set_of_files_is_streamed_from_its_cache(tmp_path: Path) -> None:
    root = make_classes(tmp_path / "pets", {"cat": 25, "dog": 25}, mode="RGB", size=(6, 5))
    dataset = load_development(make_spec(root, tmp_path))
    split = split_development(dataset, seed=0)
    data = load_streamed(dataset, split, device=CPU, memory_bytes=64 * KIB)
    assert (data.name, data.digest, data.class_names) == ("pets", dataset.digest, ("cat", "dog"))
    held = load_resident(dataset, split, device=CPU)
    assert (data.mean, data.std) == (held.mean, held.std)
    for (read_BCHW, read_labels_B), (held_BCHW, held_labels_B) in zip(validation(data), validation(held), strict=True):
        assert torch.equal(read_BCHW, held_BCHW)
        assert torch.equal(read_labels_B, held_labels_B)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gets_the_images_a_cpu_gets(dataset: ImageDataset) -> None:
    here = stream(dataset, split_at(range(0, NUM_IMAGES, 3)))
    there = replace(here, device=torch.device("cuda"))
    for (here_BCHW, here_labels_B), (there_BCHW, there_labels_B) in zip(
        validation(here), validation(there), strict=True
    ):
        assert there_BCHW.is_cuda
        torch.testing.assert_close(there_BCHW.cpu(), here_BCHW)
        assert torch.equal(there_labels_B.cpu(), here_labels_B)
    # In another order: batches on their way to a GPU take room from the buffer.
    arrived = [(images_BCHW.cpu(), labels_B.cpu()) for images_BCHW, labels_B in epoch(there)]
    assert sorted(order_of(iter(arrived))) == here.train_indices_N.tolist()
