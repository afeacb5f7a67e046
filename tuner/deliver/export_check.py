"""Check an exported file: load it in a separate process with the code that its README shows, and score it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tuner.deliver.classifier import Classifier
from tuner.deliver.evaluate import Part
from tuner.deliver.export_formats import Format
from tuner.errors import CheckpointError

TOLERANCE = 1e-4
"""Largest difference of a logit from the reference, relative to the largest logit of all or to 1, if that is larger.

All formats compute in fp32, but add in another order and fold layers together. Networks with fresh weights differ by
less than 1e-5 (tests check this), and the tolerance leaves room for what normalization amplifies in trained ones. A
format that computes something else (half precision, another epsilon, other pixels) exceeds it.
"""
_BEFORE = """\
import sys

sys.modules["tuner"] = None  # from here on it cannot be imported
"""
_AFTER = {
    "images.pt": '\ntorch.save(logits_NK, __file__ + ".logits")\n',
    "images.npy": '\nnp.save(__file__ + ".npy", logits_NK)\n',
}


@dataclass(frozen=True, eq=False)
class Reference:
    """Expected result for all formats: the network's logits on some images, and the number classified correctly."""

    logits_NK: Tensor
    labels_N: Tensor
    num_correct: int


@dataclass(frozen=True)
class Checked:
    """Result of the check of a format. `difference`: the largest difference of any logit from the reference."""

    num_correct: int
    difference: float


def reference_of(classifier: Classifier, part: Part) -> Reference:
    """Compute the logits of the network itself in this process."""
    logits_NK = torch.cat([classifier.logits(images_BCHW) for images_BCHW, _ in part.batches()])
    return Reference(logits_NK, part.labels_N, _num_correct(logits_NK, part.labels_N))


def num_undecided(reference: Reference) -> int:
    """Number of images whose predicted class depends on rounding, because the best two logits are nearly equal."""
    best_N2 = reference.logits_NK.topk(2).values
    return int((best_N2[:, 0] - best_N2[:, 1] <= 2 * _limit(reference)).sum())


def save_images(part: Part, folder: Path, *, names: set[str]) -> None:
    """Write the images of a part as the files that the usage code reads: plain arrays, without pickled objects."""
    path = folder / "images.npy"
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(part.labels_N), *part.images_NCHW.shape[1:])}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for images_BCHW, _ in part.batches():
            file.write(images_BCHW.numpy().data)
    if "images.pt" in names:
        torch.save(torch.from_numpy(np.load(path, mmap_mode="c")), folder / "images.pt")


def check(
    one: Format, folder: Path, reference: Reference, *, name: str, flip_test: bool = False, backbone: str = ""
) -> Checked:
    """Use a new file in its folder, in a fresh process without tuner, and compare its result with the reference.

    The file has the format's default name, and `save_images` has put the images beside it. name: the user's name for
    the file. flip_test: whether the file was written with it. backbone: as in `Format.usage`. Raises CheckpointError
    with both numbers if they differ.
    """
    script = folder / f"check {one.file_name}.py"
    usage = one.usage(one.file_name, flip_test=flip_test, backbone=backbone)
    script.write_text(_BEFORE + usage + _AFTER[one.images], encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:backslashreplace", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))  # a fresh process knows no CPU quota
    environment.pop("PYTHONSAFEPATH", None)  # model.py is imported from the script's folder
    command = [sys.executable, script.name]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
    if done.returncode != 0:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise CheckpointError(f"{name} was written, but cannot be used ({''.join(last)}); nothing was exported")
    if one.images == "images.npy":
        logits_NK = torch.from_numpy(np.load(f"{script}.npy"))
    else:
        logits_NK = torch.load(f"{script}.logits", weights_only=True)
    return _compare(name, logits_NK, reference)


def _compare(name: str, logits_NK: Tensor, reference: Reference) -> Checked:
    if logits_NK.shape != reference.logits_NK.shape:
        shapes = f"{tuple(logits_NK.shape)}, not {tuple(reference.logits_NK.shape)}"
        raise CheckpointError(f"{name}: loaded again, it gives logits of shape {shapes}; nothing was exported")
    num_correct, num_images = _num_correct(logits_NK, reference.labels_N), len(reference.labels_N)
    if num_correct != reference.num_correct:
        raise CheckpointError(
            f"{name}: loaded again, it classifies {num_correct:,} of {num_images:,} images correctly, and the network "
            f"{reference.num_correct:,}; nothing was exported"
        )
    difference = (logits_NK - reference.logits_NK).abs().max().item()
    limit = _limit(reference)
    if not difference <= limit:  # not a number is beyond every limit
        raise CheckpointError(
            f"{name}: loaded again, its logits differ from the network's by up to {difference:.3g}, more than the "
            f"{limit:.3g} that rounding explains; nothing was exported"
        )
    return Checked(num_correct, difference)


def _limit(reference: Reference) -> float:
    """Largest difference that a logit may have from the reference."""
    return TOLERANCE * max(1.0, reference.logits_NK.abs().max().item())


def _num_correct(logits_NK: Tensor, labels_N: Tensor) -> int:
    return int((logits_NK.argmax(1) == labels_N).sum())
