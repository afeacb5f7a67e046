"""Torchvision's data sets: find or download their files, and read them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tuner.data.arrays import ArrayPart, source_from_arrays
from tuner.data.dataset import DataSpec, DecodableSource, ListedSource, Report
from tuner.data.downloads import report_downloads
from tuner.data.known_sets import TORCHVISION_SETS, TorchvisionSet
from tuner.errors import DataError
from tuner.versions import check_installation


def list_torchvision_set(name: str, spec: DataSpec, *, report: Report | None) -> ListedSource:
    """Find the files of a set, and download them if they are missing and `spec` allows it.

    If the files exist, nothing is written and the network is not used. Raises DataError with the names of missing
    files.
    """
    described = TORCHVISION_SETS[name]
    if _missing(described, spec.data_dir):
        _download(described, spec, report=report)
    stats = [(file, (spec.data_dir / file).stat()) for file in described.files]
    lines = (f"{file} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}" for file, stat in stats)
    return ListedSource(
        listing=(name, str(spec.data_dir.resolve()), *lines), read=lambda _: _read(name, described, spec)
    )


def _missing(described: TorchvisionSet, data_dir: Path) -> list[str]:
    return [name for name in described.files if not (data_dir / name).is_file()]


def _download(described: TorchvisionSet, spec: DataSpec, *, report: Report | None) -> None:
    reason = "downloading is off"
    if spec.download:
        try:
            with report_downloads(report):
                for arguments in (described.train_arguments, described.test_arguments):
                    _open(described, spec.data_dir, arguments, download=True)
        # OSError: no network, or no right to write; RuntimeError: every mirror failed, or a checksum; EOFError and
        # ValueError: archives that break off or are none.
        except (OSError, RuntimeError, EOFError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
        else:
            reason = "the download did not contain them"
    missing = _missing(described, spec.data_dir)
    if missing:
        files = ", ".join(str(spec.data_dir / name) for name in missing)
        source = "" if described.archive is None else f" (they come in {spec.data_dir / described.archive})"
        raise DataError(f"{spec.dataset} needs files that do not exist ({reason}): put in place {files}{source}")


def _open(described: TorchvisionSet, data_dir: Path, arguments: Mapping[str, Any], *, download: bool) -> Any:
    check_installation()
    from torchvision import datasets

    return getattr(datasets, described.class_name)(root=data_dir, download=download, **arguments)


def _read(name: str, described: TorchvisionSet, spec: DataSpec) -> DecodableSource:
    try:
        train = _open(described, spec.data_dir, described.train_arguments, download=False)
        test = _open(described, spec.data_dir, described.test_arguments, download=False)
        parts = [_part(described, dataset) for dataset in (train, test)]
    # The readers were written for whole files; of damaged ones they raise whatever comes first.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        files = ", ".join(str(spec.data_dir / name) for name in described.files)
        raise DataError(
            f"the files of {spec.dataset} must be whole; they are not ({reason}): replace {files}"
        ) from error
    names = getattr(train, "classes", [str(digit) for digit in range(10)])[described.first_label :]
    # "7 - seven" is how torchvision calls the digit 7.
    class_names = [name.split(" - ")[0] for name in names]
    return source_from_arrays(name, class_names, development=parts[0], test=parts[1], decoding=spec.decoding)


def _part(described: TorchvisionSet, dataset: Any) -> ArrayPart:
    images = np.asarray(dataset.data, dtype=np.uint8)
    labels = np.asarray(dataset.labels if hasattr(dataset, "labels") else dataset.targets, dtype=np.int64)
    if images.ndim == 3:
        images_NCHW = images[:, np.newaxis]
    else:
        images_NCHW = images if images.shape[1] == 3 else images.transpose(0, 3, 1, 2)
    # QMNIST gives eight facts of each digit; the first is its class.
    labels_N = labels[:, 0] if labels.ndim == 2 else labels
    if described.transposed:
        images_NCHW = images_NCHW.swapaxes(2, 3)
    return ArrayPart(images_NCHW, labels_N - described.first_label)
