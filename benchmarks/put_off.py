"""Ctrl-C while processes are started."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_put_off() -> Iterator[None]:
    """Hear Ctrl-C once the block is over, in which processes are started.

    Within it nobody would know of a process that is half started, which trains on or prints that it ran out of input.
    A signal mask does not do: another thread takes the signal, and Python raises in the first one all the same.
    """
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: heard.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard:
            signal.raise_signal(signal.SIGINT)
