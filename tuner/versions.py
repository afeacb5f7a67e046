"""Which packages are installed, and whether torch and torchvision fit together."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

from tuner.__about__ import __version__
from tuner.errors import InstallationError

REPORTED = ("torch", "torchvision", "optuna", "numpy")


@cache
def package_versions(*others: str) -> dict[str, str]:
    """Python's version and those of the packages that a result depends on. others: packages that only some need."""
    installed = {name: metadata.version(name) for name in (*REPORTED, *others)}
    return {"python": platform.python_version(), "tuner": __version__, **installed}


def check_installation() -> None:
    """Raise InstallationError, with the command to run, if torch and torchvision were not built for each other.

    Only commands that need torchvision call this, because it is slow to import.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError, OSError) as error:
        torch_version, torchvision_version = metadata.version("torch"), metadata.version("torchvision")
        raise InstallationError(
            f"torch {torch_version} and torchvision {torchvision_version} do not fit together "
            f"({str(error).splitlines()[0]}). To fix this: pip install --force-reinstall torch torchvision"
        ) from error
