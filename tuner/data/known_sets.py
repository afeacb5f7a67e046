"""The data sets that have a name: the digits, and torchvision's sets with the files that each needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

DIGITS = "digits"
_TRAIN, _TEST = {"train": True}, {"train": False}
_TRAIN_SPLIT, _TEST_SPLIT = {"split": "train"}, {"split": "test"}
_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
EMNIST_SPLITS = ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")


@dataclass(frozen=True)
class TorchvisionSet:
    """A class of torchvision.datasets, its arguments for each part, and its files below the data folder."""

    class_name: str
    files: tuple[str, ...]
    train_arguments: Mapping[str, Any] = field(default_factory=lambda: _TRAIN)
    test_arguments: Mapping[str, Any] = field(default_factory=lambda: _TEST)
    archive: str | None = None
    first_label: int = 0
    transposed: bool = False


def _emnist(split: str) -> TorchvisionSet:
    files = tuple(
        f"EMNIST/raw/emnist-{split}-{part}-{kind}"
        for part in ("train", "test")
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    )
    return TorchvisionSet(
        class_name="EMNIST",
        files=files,
        train_arguments={"split": split, **_TRAIN},
        test_arguments={"split": split, **_TEST},
        archive="EMNIST/raw/gzip.zip",
        # The letters are labelled 1 to 26; torchvision fills the gap with a class "N/A".
        first_label=1 if split == "letters" else 0,
        # EMNIST stores its images column by column, and torchvision hands them out like that.
        transposed=True,
    )


TORCHVISION_SETS: Mapping[str, TorchvisionSet] = {
    "mnist": TorchvisionSet("MNIST", tuple(f"MNIST/raw/{name}" for name in _IDX_FILES)),
    "fashion-mnist": TorchvisionSet("FashionMNIST", tuple(f"FashionMNIST/raw/{name}" for name in _IDX_FILES)),
    "kmnist": TorchvisionSet("KMNIST", tuple(f"KMNIST/raw/{name}" for name in _IDX_FILES)),
    **{f"emnist-{split}": _emnist(split) for split in EMNIST_SPLITS},
    "qmnist": TorchvisionSet(
        "QMNIST",
        tuple(
            f"QMNIST/raw/qmnist-{part}-{kind}"
            for part in ("train", "test")
            for kind in ("images-idx3-ubyte", "labels-idx2-int")
        ),
        train_arguments={"what": "train"},
        test_arguments={"what": "test10k"},
    ),
    "usps": TorchvisionSet("USPS", ("usps.bz2", "usps.t.bz2")),
    "svhn": TorchvisionSet("SVHN", ("train_32x32.mat", "test_32x32.mat"), _TRAIN_SPLIT, _TEST_SPLIT),
    "cifar10": TorchvisionSet(
        "CIFAR10",
        tuple(
            f"cifar-10-batches-py/{name}"
            for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch", "batches.meta")
        ),
        archive="cifar-10-python.tar.gz",
    ),
    "cifar100": TorchvisionSet(
        "CIFAR100", tuple(f"cifar-100-python/{n}" for n in ("train", "test", "meta")), archive="cifar-100-python.tar.gz"
    ),
    "stl10": TorchvisionSet(
        "STL10",
        tuple(
            f"stl10_binary/{name}"
            for name in ("train_X.bin", "train_y.bin", "unlabeled_X.bin", "test_X.bin", "test_y.bin", "class_names.txt")
        ),
        _TRAIN_SPLIT,
        _TEST_SPLIT,
        archive="stl10_binary.tar.gz",
    ),
}

KNOWN_NAMES = (DIGITS, *TORCHVISION_SETS)
SETS_OF_CHARACTERS = frozenset(
    {DIGITS, "mnist", "kmnist", "qmnist", "usps", "svhn", *(f"emnist-{split}" for split in EMNIST_SPLITS)}
)
"""Sets of digits or letters, which are other characters, or none, when mirrored."""
