"""Make the folder of decoded images, and refuse images for which its disk has no room."""

import shutil
from pathlib import Path

from tuner.errors import DataError


def make_room(cache_dir: Path, *, num_bytes: int) -> None:
    """Make a cache folder. Raises DataError if its disk has fewer free bytes than decoded images need."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache_dir).free
    # Asked beforehand, because writing a memory map to a full disk kills the process instead of raising.
    if num_bytes > free:
        raise DataError(
            f"the decoded images need {num_bytes / 1e6:,.0f} MB and {cache_dir} has {free / 1e6:,.0f} MB free: "
            "choose a smaller image size or another cache folder"
        )
