"""The sealed test part, for the day on which there is a winner. search/ may not import this file."""

from tuner.data.cache import load_cached
from tuner.data.dataset import DataSpec, ImageDataset, Report
from tuner.data.prepare import prepare


def load_test_set(spec: DataSpec, *, report: Report | None = None) -> ImageDataset:
    """Load the test part: the classes, their order and the image shape are those of the development part.

    Raises DataError as load_development does.
    """
    return load_cached(prepare(spec, report=report).test)
