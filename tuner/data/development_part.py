"""Data sets by name or folder, ready to split and train on; the test part is not to be had here."""

from dataclasses import replace
from pathlib import Path

from tuner.data import cache
from tuner.data.dataset import DataSpec, ImageDataset, Report
from tuner.data.prepare import prepare

__all__ = ["DataSpec", "ImageDataset", "Report", "load_cached", "load_development"]


def load_development(spec: DataSpec, *, report: Report | None = None) -> ImageDataset:
    """Load the train part, and the source's own validation part behind it, decoding it the first time.

    What is cached is compared with its digest here, and decoded again if it is damaged; load_cached, for the other
    processes of a run, reads no image. report(what, done, total) follows downloads in bytes and decoding in images.
    Raises DataError for a set that is unknown, missing, broken or too small to be split.
    """
    parts = prepare(spec, report=report)
    return replace(cache.load_cached(parts.development), repairs=parts.repairs)


def load_cached(folder: Path) -> ImageDataset:
    """Open `ImageDataset.folder` again, in any process, without decoding. Raises DataError if it is damaged."""
    return cache.load_cached(folder)
