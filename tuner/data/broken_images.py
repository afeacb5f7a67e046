"""Find every broken image of a data set once one of them cannot be read, so that one run names them all."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tuner.data.dataset import Report
from tuner.data.images import bombs_as_errors, read_pixels
from tuner.data.threads import map_in_threads
from tuner.errors import BrokenImage, DataError

NUM_NAMED = 10
"""Number of broken images that an error names; the others are counted."""


@contextmanager
def all_broken_named(paths: Sequence[Path], *, report: Report | None) -> Iterator[None]:
    """If a broken image is found, read all files, and raise one DataError that names the broken ones.

    Other errors are raised as they are. Without a broken image, nothing is read.
    """
    try:
        yield
    except BrokenImage as first:
        found = find_broken(paths, report=report)
        if len(found) < 2:
            raise
        raise DataError(_describe(found, num_images=len(paths))) from first


def find_broken(paths: Sequence[Path], *, report: Report | None) -> list[BrokenImage]:
    """Return the errors of the files that cannot be read as images, sorted by path."""

    def check(path: Path) -> BrokenImage | None:
        try:
            read_pixels(path, channels=1, height=1, width=1)
        except BrokenImage as error:
            return error
        return None

    with bombs_as_errors():
        errors = [error for error in map_in_threads(check, paths, what="checking every image", report=report) if error]
    return sorted(errors, key=lambda error: error.path)


def _describe(found: Sequence[BrokenImage], *, num_images: int) -> str:
    named = [f"{error.path} ({error.reason})" for error in found[:NUM_NAMED]]
    others = [f"{len(found) - NUM_NAMED:,} more"] if len(found) > NUM_NAMED else []
    return (
        f"every image must be readable; {len(found):,} of {num_images:,} are not: "
        f"fix or remove {', '.join([*named, *others])}"
    )
