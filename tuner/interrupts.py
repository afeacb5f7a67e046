"""Ctrl-C: heard from the first moment on, and answered by the same one line and exit code wherever it hits."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

EXIT_CODE = 130
LINE = "interrupted; the same command goes on from here"
LINE_RESTART = "interrupted; nothing of it was kept, and the same command restarts from scratch"

_heard: list[int] = []
_lines = [LINE]


def leave_at_once() -> None:
    """From now on Ctrl-C ends the process on the spot, for as long as there is nothing to put down.

    An exception in the middle of an import of a large library comes out as anything: another error, a message of
    Python about an exception that it has ignored, or nothing at all.
    """
    signal.signal(signal.SIGINT, _leave)


def leave_in_order() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt, so that what is open is put down."""
    if signal.getsignal(signal.SIGINT) is _leave:  # not where the tuner is a library
        signal.signal(signal.SIGINT, _raise)


def say_restart() -> None:
    """From now on, an interrupted command says that the same one restarts from scratch."""
    _lines[:] = [LINE_RESTART]


def was_heard() -> bool:
    """Whether Ctrl-C has been pressed; what is raised afterwards comes of it."""
    return bool(_heard)


def end() -> None:
    """Say that the command was interrupted, and end it; Ctrl-C is no longer heard."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(_lines[0], file=sys.stderr)  # noqa: T201
    sys.exit(EXIT_CODE)


def _leave(number: int, _: FrameType | None) -> None:
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{_lines[0]}\n".encode())
    os._exit(EXIT_CODE)


def _raise(number: int, _: FrameType | None) -> None:
    _heard.append(number)
    raise KeyboardInterrupt
