"""Ctrl-C: handled from the first moment on, and always answered with the same line and exit code."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

EXIT_CODE = 130
LINE = "interrupted; run the same command again to resume"
LINE_RESTART = "interrupted; nothing was saved, and the same command restarts from scratch"
SECONDS_UNTIL_REPEATED = 0.01

_heard: list[int] = []
_lines = [LINE]


def leave_at_once() -> None:
    """Make Ctrl-C end the process immediately, as long as there is nothing to clean up.

    An exception during the import of a large library may surface as another error, as a message of Python about an
    ignored exception, or not at all.
    """
    signal.signal(signal.SIGINT, _leave)


def leave_in_order() -> None:
    """Make Ctrl-C raise KeyboardInterrupt, so that open resources are closed.

    Python prints and drops an exception that is raised in a finalizer or in the callback of a weak reference. Ctrl-C is
    then repeated, without a word, until it is raised elsewhere; on systems without interval timers (Windows) it has to
    be pressed again.
    """
    if signal.getsignal(signal.SIGINT) is not _leave:  # the tuner is a library here
        return
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, _raise)
        sys.unraisablehook = _hook
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
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    print(_lines[0], file=sys.stderr)  # noqa: T201
    sys.exit(EXIT_CODE)


def _leave(number: int, _: FrameType | None) -> None:
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{_lines[0]}\n".encode())
    os._exit(EXIT_CODE)


def _raise(number: int, frame: FrameType | None) -> None:
    _heard.append(number)
    if _is_within_hook(frame):  # where it would be dropped too
        _repeat_soon()
    else:
        raise KeyboardInterrupt


def _hook(dropped: sys.UnraisableHookArgs) -> None:
    """Repeat a Ctrl-C that Python has dropped, and print any other dropped exception as Python does."""
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        _repeat_soon()
    else:
        sys.__unraisablehook__(dropped)


def _repeat_soon() -> None:
    signal.setitimer(signal.ITIMER_REAL, SECONDS_UNTIL_REPEATED)


def _is_within_hook(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code is _hook.__code__:
            return True
        frame = frame.f_back
    return False
