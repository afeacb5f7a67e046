"""The path of a data set as a user gives it."""

import errno
from pathlib import Path

from tuner.data.image_parts import ImageParts
from tuner.errors import DataError
from tuner.names import shortened

TABLE_ENDINGS = (".csv", ".tsv")


def is_file(path: Path) -> bool:
    """Whether there is a file at a path. At a path that is too long for this system, there is none."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def _is_too_long(path: Path) -> bool:
    try:
        path.lstat()
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    except ValueError:  # it contains a null character, which is reported where the path is used
        return False
    return False


def given_path(dataset: str | ImageParts) -> Path:
    """Return the path that `--dataset` gives, with `~` expanded.

    Raises DataError if the home folder is unknown, or the path is too long for this system.
    """
    dataset = str(dataset)
    try:
        path = Path(dataset).expanduser()
        if _is_too_long(path):
            raise DataError(f"--dataset must be a path that this system can open; {shortened(dataset)} is too long")
        return path
    except RuntimeError as error:
        raise DataError(
            f"--dataset {dataset}: the home folder of {Path(dataset).parts[0]} is not known here; give the whole "
            "path, or ./~... for a folder of that name"
        ) from error
