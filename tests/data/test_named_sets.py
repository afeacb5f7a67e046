import bz2
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from sample_data import cut_network, make_spec, write_idx, write_mnist

from tuner.data.development_part import DataSpec, ImageDataset, load_development
from tuner.data.known_sets import EMNIST_SPLITS
from tuner.data.sealed import load_test_set
from tuner.errors import DataError


def load_both(spec: DataSpec) -> tuple[ImageDataset, ImageDataset]:
    return load_development(spec), load_test_set(spec)


def test_digits_are_the_real_ones_with_a_sealed_fifth(tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    development, test = load_both(make_spec("digits", tmp_path))
    assert development.images_NCHW.shape == (1437, 1, 8, 8)
    assert test.images_NCHW.shape == (360, 1, 8, 8)
    assert development.class_names == test.class_names == tuple("0123456789")
    counts = (development.labels_N.bincount() + test.labels_N.bincount()).tolist()
    assert counts == np.bincount(load_digits().target).tolist()
    assert all(abs(int(n) - 0.2 * count) < 1 for n, count in zip(test.labels_N.bincount(), counts, strict=True))
    assert development.notes == (
        "digits has no test set of its own: 360 of its 1,797 images (20 %, stratified, seed fixed) are set aside as "
        "the sealed test set",
    )
    together = torch.cat([development.images_NCHW, test.images_NCHW]).flatten(1).sum(dim=1).sort().values
    scaled = np.sort(np.rint(load_digits().images * 255 / 16).sum(axis=(1, 2)))
    np.testing.assert_array_equal(together.numpy(), scaled)


def test_digits_are_resized_when_a_size_is_asked_for(tmp_path: Path) -> None:
    development = load_development(make_spec("digits", tmp_path, image_size=(12, 10)))
    assert development.images_NCHW.shape == (1437, 1, 12, 10)
    assert "images of 8x8 pixels are resized to cover 12x10" in development.notes[-1]


@pytest.mark.parametrize(
    ("name", "folder", "first_class"),
    [("mnist", "MNIST", "0"), ("fashion-mnist", "FashionMNIST", "T-shirt/top"), ("kmnist", "KMNIST", "o")],
)
def test_files_that_are_there_are_read_without_network_or_a_trace_in_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str, first_class: str
) -> None:
    spec = make_spec(name, tmp_path)
    arrays = write_mnist(spec.data_dir / folder / "raw")
    cut_network(monkeypatch)
    before = sorted((path, path.stat().st_mtime_ns) for path in spec.data_dir.rglob("*"))
    development, test = load_both(spec)
    assert sorted((path, path.stat().st_mtime_ns) for path in spec.data_dir.rglob("*")) == before
    np.testing.assert_array_equal(development.images_NCHW[:, 0].numpy(), arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(test.images_NCHW[:, 0].numpy(), arrays["t10k-images-idx3-ubyte"])
    np.testing.assert_array_equal(development.labels_N.numpy(), arrays["train-labels-idx1-ubyte"])
    assert development.class_names[0] == first_class
    assert len(development.class_names) == 10


def test_the_files_are_not_read_again_once_they_are_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = make_spec("mnist", tmp_path)
    write_mnist(spec.data_dir / "MNIST" / "raw")
    first = load_development(spec)
    monkeypatch.setattr("torchvision.datasets.MNIST.__init__", cut_network)
    assert load_development(spec).digest == first.digest
    monkeypatch.undo()
    write_mnist(spec.data_dir / "MNIST" / "raw", num_train=50)
    assert len(load_development(spec).labels_N) == 50


def test_emnist_letters_count_from_a_and_stand_upright(tmp_path: Path) -> None:
    spec = make_spec("emnist-letters", tmp_path)
    pictures = np.random.default_rng(0).integers(0, 256, (52, 28, 28), dtype=np.uint8)
    for part in ("train", "test"):
        stem = f"EMNIST/raw/emnist-letters-{part}"
        write_idx(spec.data_dir / f"{stem}-images-idx3-ubyte", pictures.transpose(0, 2, 1).copy())
        write_idx(spec.data_dir / f"{stem}-labels-idx1-ubyte", (np.arange(52) % 26 + 1).astype(np.uint8))
    development = load_development(spec)
    assert development.class_names == tuple("abcdefghijklmnopqrstuvwxyz")
    assert development.labels_N.tolist() == [*range(26), *range(26)]
    np.testing.assert_array_equal(development.images_NCHW[:, 0].numpy(), pictures)


@pytest.mark.parametrize(("split", "num_classes"), [("balanced", 47), ("digits", 10)])
def test_the_other_splits_of_emnist_count_from_zero(tmp_path: Path, split: str, num_classes: int) -> None:
    spec = make_spec(f"emnist-{split}", tmp_path)
    for part in ("train", "test"):
        stem = f"EMNIST/raw/emnist-{split}-{part}"
        write_idx(spec.data_dir / f"{stem}-images-idx3-ubyte", np.zeros((num_classes, 28, 28), dtype=np.uint8))
        write_idx(spec.data_dir / f"{stem}-labels-idx1-ubyte", np.arange(num_classes).astype(np.uint8))
    development = load_development(spec)
    assert development.labels_N.tolist() == list(range(num_classes))
    assert len(development.class_names) == num_classes
    assert development.class_names[0] == "0"


def test_qmnist_takes_the_class_from_its_eight_labels(tmp_path: Path) -> None:
    spec = make_spec("qmnist", tmp_path)
    labels = np.arange(160, dtype=np.int32).reshape(20, 8)
    labels[:, 0] %= 10
    for part in ("train", "test"):
        write_idx(spec.data_dir / f"QMNIST/raw/qmnist-{part}-images-idx3-ubyte", np.zeros((20, 28, 28), dtype=np.uint8))
        write_idx(spec.data_dir / f"QMNIST/raw/qmnist-{part}-labels-idx2-int", labels)
    development, test = load_both(spec)
    assert development.labels_N.tolist() == test.labels_N.tolist() == labels[:, 0].tolist()
    assert development.class_names == tuple("0123456789")


def write_usps(folder: Path) -> None:
    lines = [
        f"{label} " + " ".join(f"{pixel}:{value}" for pixel in range(1, 257)) for label, value in ((1, -1), (10, 1))
    ]
    folder.mkdir(parents=True)
    for name in ("usps.bz2", "usps.t.bz2"):
        (folder / name).write_bytes(bz2.compress("\n".join(lines).encode()))


def write_svhn(folder: Path) -> None:
    folder.mkdir(parents=True)
    images = np.zeros((32, 32, 3, 2), dtype=np.uint8)
    images[0, 1, 2, 1] = 9
    for part in ("train", "test"):
        scipy.io.savemat(folder / f"{part}_32x32.mat", {"X": images, "y": np.array([[1], [10]])})


def write_cifar10(folder: Path) -> None:
    pixels = np.zeros((2, 3, 32, 32), dtype=np.uint8)
    pixels[1, 2, 0, 1] = 9
    batches = folder / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (batches / name).write_bytes(pickle.dumps({"data": pixels.reshape(2, -1), "labels": [1, 0]}))
    (batches / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"c{number}" for number in range(10)]}))


def write_stl10(folder: Path) -> None:
    pixels = np.zeros((2, 3, 96, 96), dtype=np.uint8)
    pixels[1, 2, 1, 0] = 9
    (folder / "stl10_binary").mkdir(parents=True)
    for name in ("train", "test", "unlabeled"):
        (folder / "stl10_binary" / f"{name}_X.bin").write_bytes(pixels.tobytes())
        (folder / "stl10_binary" / f"{name}_y.bin").write_bytes(bytes([2, 1]))
    (folder / "stl10_binary" / "class_names.txt").write_text("\n".join(f"c{number}" for number in range(10)))


@pytest.mark.parametrize(
    ("name", "write", "shape", "labels"),
    [
        ("svhn", write_svhn, (2, 3, 32, 32), [1, 0]),
        ("cifar10", write_cifar10, (10, 3, 32, 32), [1, 0] * 5),
        ("stl10", write_stl10, (2, 3, 96, 96), [1, 0]),
    ],
)
def test_colour_sets_become_uint8_nchw(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    write: Callable[[Path], None],
    shape: tuple[int, ...],
    labels: list[int],
) -> None:
    # Tiny files cannot have the checksums of the real ones.
    module = {"cifar10": "cifar"}.get(name, name)
    monkeypatch.setattr(f"torchvision.datasets.{module}.check_integrity", lambda path, _=None: Path(path).is_file())
    spec = make_spec(name, tmp_path)
    write(spec.data_dir)
    development, test = load_both(spec)
    assert development.images_NCHW.shape == shape
    assert development.images_NCHW[1].nonzero().tolist() == [[2, 0, 1]]
    assert development.labels_N.tolist() == labels
    assert test.labels_N.tolist() == [1, 0]
    assert len(test.class_names) == 10


def test_usps_is_grey_and_counts_from_zero(tmp_path: Path) -> None:
    spec = make_spec("usps", tmp_path)
    write_usps(spec.data_dir)
    development, test = load_both(spec)
    assert development.images_NCHW.flatten(1).unique(dim=1).tolist() == [[0], [255]]
    assert development.images_NCHW.shape == (2, 1, 16, 16)
    assert test.labels_N.tolist() == [0, 9]
    assert test.class_names == tuple("0123456789")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    spec = make_spec("mnist", tmp_path)
    write_mnist(spec.data_dir / "MNIST" / "raw")
    path = spec.data_dir / "MNIST/raw/train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"the files of mnist must be whole.*train-images-idx3-ubyte"):
        load_development(spec)


def test_labels_that_do_not_fit_the_images_are_refused(tmp_path: Path) -> None:
    spec = make_spec("mnist", tmp_path)
    write_mnist(spec.data_dir / "MNIST" / "raw")
    write_idx(spec.data_dir / "MNIST/raw/train-labels-idx1-ubyte", np.zeros(39, dtype=np.uint8))
    with pytest.raises(DataError, match="has 40 images and 39 labels"):
        load_development(spec)
    write_idx(spec.data_dir / "MNIST/raw/train-labels-idx1-ubyte", np.full(40, 12, dtype=np.uint8))
    with pytest.raises(DataError, match="must be between 0 and 9; they are between 12 and 12"):
        load_development(spec)


@pytest.mark.parametrize(
    ("name", "closest"), [("minst", "mnist"), ("CIFAR-10", "cifar10"), ("Fashion_MNIST", "fashion-mnist")]
)
def test_an_unknown_name_gets_the_closest_one_and_the_list(tmp_path: Path, name: str, closest: str) -> None:
    with pytest.raises(DataError, match=rf"'{name}' is neither: did you mean '{closest}'\? known are digits, mnist, "):
        load_development(make_spec(name, tmp_path))


def test_a_name_like_no_other_gets_the_list_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'qqqqq' is neither: known are digits"):
        load_development(make_spec("qqqqq", tmp_path))


def test_plain_emnist_lists_its_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="emnist must be given with a split") as caught:
        load_development(make_spec("emnist", tmp_path))
    assert all(f"emnist-{split}" in str(caught.value) for split in EMNIST_SPLITS)
