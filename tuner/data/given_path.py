"""The path of a data set as a user gives it."""

from pathlib import Path

from tuner.data.image_parts import ImageParts
from tuner.errors import DataError


def given_path(dataset: str | ImageParts) -> Path:
    """Return the path that `--dataset` gives, with `~` expanded. Raises DataError if the home folder is unknown."""
    dataset = str(dataset)
    try:
        return Path(dataset).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"--dataset {dataset}: the home folder of {Path(dataset).parts[0]} is not known here; give the whole "
            "path, or ./~... for a folder of that name"
        ) from error
