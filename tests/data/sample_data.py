"""Small images and files in the formats of real data sets."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tuner.data.development_part import DataSpec


def save_image(path: Path, mode: str = "RGB", size: tuple[int, int] = (8, 8), colour: Any = 0, **options: Any) -> Path:
    """Save one image of a single colour; size is Pillow's (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)
    return path


def make_classes(
    root: Path, counts: Mapping[str, int], *, mode: str = "L", size: tuple[int, int] = (8, 8), first: int = 0
) -> Path:
    """Save so many images a class; every image of a folder has another grey."""
    levels = iter(range(first, 256))
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            level = next(levels)
            save_image(root / name / f"{number:03}.png", mode, size, level if mode == "L" else (level, 0, 0))
    return root


def make_spec(dataset: Path | str, tmp_path: Path, **options: Any) -> DataSpec:
    return DataSpec(str(dataset), data_dir=tmp_path / "downloads", cache_dir=tmp_path / "cache", **options)


def write_idx(path: Path, array: NDArray[Any]) -> None:
    """Write the format of MNIST: two zero bytes, the type, the number of sides, the sides, then the values."""
    kind = {"u1": 8, "i4": 12}[array.dtype.str[1:]]
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, kind, array.ndim]) + np.array(array.shape, dtype=">i4").tobytes()
    path.write_bytes(header + array.astype(array.dtype.newbyteorder(">")).tobytes())


def write_mnist(folder: Path, *, num_train: int = 40, num_test: int = 20) -> dict[str, NDArray[np.uint8]]:
    """Write a tiny MNIST into a folder `raw`, and give its arrays."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", num_train), ("t10k", num_test)):
        arrays[f"{part}-images-idx3-ubyte"] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(count) % 10).astype(np.uint8)
    for name, array in arrays.items():
        write_idx(folder / name, array)
    return arrays


def cut_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
