"""Report torchvision's downloads on our own progress bars, with a timeout."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tuner.data.dataset import Report
from tuner.versions import check_installation

_TIMEOUT = 30.0  # seconds without an answer, after which a network counts as absent


class _Bar:
    """The part of tqdm that torchvision uses: total, update, and use in a with statement."""

    def __init__(self, *, total: int | None, report: Report | None) -> None:
        self._total, self._done, self._report = total or 0, 0, report

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, num_bytes: int) -> None:
        self._done += num_bytes
        if self._report is not None:
            self._report("downloading", self._done, self._total)


@contextmanager
def report_downloads(report: Report | None) -> Iterator[None]:
    """Send the progress of torchvision's downloads, in bytes, to `report` if given; torchvision's own bars are hidden.

    Torchvision accepts neither a progress function nor a timeout, so both are set around the call and restored.
    """
    check_installation()
    from torchvision.datasets import utils

    def make_bar(*_: object, total: int | None = None, **__: Any) -> _Bar:
        return _Bar(total=total, report=report)

    own_bar, own_timeout = utils.tqdm, socket.getdefaulttimeout()
    utils.tqdm = make_bar
    socket.setdefaulttimeout(_TIMEOUT)
    try:
        yield
    finally:
        utils.tqdm = own_bar
        socket.setdefaulttimeout(own_timeout)
