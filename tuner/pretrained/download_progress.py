"""Report the progress of downloads by torch and by the hub of Hugging Face, which draw bars of their own otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tuner.data.dataset import Report


@contextmanager
def torch_downloads_reported(report: Report, what: str) -> Iterator[None]:
    """Send the progress of `torch.hub.download_url_to_file`, in bytes, to `report`. It takes no progress function."""

    class Bar:
        """The part of tqdm that torch uses."""

        def __init__(self, *, total: int | None, **_: Any) -> None:
            self._total, self._done = total or 0, 0

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def update(self, num_bytes: int) -> None:
            self._done += num_bytes
            report(what, self._done, self._total)

    hub: Any = torch.hub
    own, hub.tqdm = hub.tqdm, Bar
    try:
        yield
    finally:
        hub.tqdm = own


def hub_bar(report: Report, what: str) -> type:
    """Return a class for the argument `tqdm_class` of the hub that sends the progress of a download to `report`.

    The hub may draw two bars for one file, for bytes that arrive and bytes that are written. The first one is reported.
    """
    from huggingface_hub import utils

    hub: Any = utils
    bars: list[object] = []

    class Bar(hub.tqdm):  # type: ignore[misc]  # a class of type Any
        def __init__(self, *arguments: Any, **others: Any) -> None:
            super().__init__(*arguments, **{**others, "disable": True})  # nothing is drawn
            bars.append(self)
            self._done, self._total = others.get("initial") or 0, others.get("total") or 0

        def update(self, n: float | None = 1) -> None:
            self._done += int(n or 0)
            if bars[0] is self:
                report(what, self._done, self._total)

    return Bar
