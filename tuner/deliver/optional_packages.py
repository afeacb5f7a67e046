"""The packages of the extra `export`, which only some export formats need."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from tuner.errors import InstallationError


def require_extra(packages: Sequence[str], *, what: str) -> None:
    """Raise InstallationError, with the command that fixes it, if one of the packages is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise InstallationError(f"{what} needs {', '.join(missing)}, not installed here: pip install 'tuner[export]'")
