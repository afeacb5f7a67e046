"""Ctrl-C: handled from the first moment on, and always answered with the same line and exit code."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

EXIT_CODE = 130
LINE = "interrupted; run the same command again to resume"
LINE_RESTART = "interrupted; nothing was saved, and the same command restarts from scratch"

_heard: list[int] = []
_lines = [LINE]


def leave_at_once() -> None:
    """Make Ctrl-C end the process immediately, as long as there is nothing to clean up.

    An exception during the import of a large library may surface as another error, as a message of Python about an
    ignored exception, or not at all.
    """
    signal.signal(signal.SIGINT, _leave)


def leave_in_order() -> None:
    """Make Ctrl-C raise KeyboardInterrupt, so that open resources are closed."""
    if signal.getsignal(signal.SIGINT) is _leave:  # not where the tuner is a library
        signal.signal(signal.SIGINT, _raise)


def say_restart() -> None:
    """Make an interrupted command say that the same command restarts from scratch."""
    _lines[:] = [LINE_RESTART]


def was_heard() -> bool:
    """Whether Ctrl-C was pressed; later exceptions are its consequences."""
    return bool(_heard)


def end() -> None:
    """Print that the command was interrupted, and end the process; Ctrl-C is ignored from here on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(_lines[0], file=sys.stderr)  # noqa: T201
    sys.exit(EXIT_CODE)


def _leave(number: int, _: FrameType | None) -> None:
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{_lines[0]}\n".encode())
    os._exit(EXIT_CODE)


def _raise(number: int, _: FrameType | None) -> None:
    _heard.append(number)
    raise KeyboardInterrupt
