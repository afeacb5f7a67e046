"""Load data sets by name or folder, ready to split and train on; the test part cannot be loaded here."""

from dataclasses import replace
from pathlib import Path

from tuner.data import cache
from tuner.data.dataset import DataSpec, ImageDataset, Report
from tuner.data.prepare import prepare

__all__ = ["DataSpec", "ImageDataset", "Report", "load_cached", "load_development"]


def load_development(spec: DataSpec, *, report: Report | None = None) -> ImageDataset:
    """Load the train part, followed by the source's own validation part, and decode them the first time.

    Cached images are compared with their digest here, and decoded again if they are damaged. The other processes of a
    run call load_cached, which reads no image. report(what, done, total) is called with downloads in bytes and decoding
    in images. Raises DataError for a set that is unknown, missing, broken or too small to be split.
    """
    parts = prepare(spec, report=report)
    return replace(cache.load_cached(parts.development), repairs=parts.repairs, unused=parts.unused)


def load_cached(folder: Path) -> ImageDataset:
    """Open `ImageDataset.folder` in any process, without decoding. Raises DataError if the folder is damaged."""
    return cache.load_cached(folder)
