"""End a command: an error that the user can fix is one line on standard error and exit code 2."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

import typer

from tuner import interrupts
from tuner.errors import TunerError, reason_of
from tuner.temporary_folder import NO_FOLDER, has_temporary_folder

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""Exception that Typer raises for options it cannot parse; a class of its own, which Typer does not export."""


def run_and_exit(command: Callable[[], object], *, name: str) -> NoReturn:
    """Run a command and end the process with the exit code that it returns; None is 0.

    Every error begins with `name`.
    """
    try:
        code = command()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException as error:
        if interrupts.was_heard() or isinstance(error, KeyboardInterrupt):
            interrupts.end()
        if isinstance(error, TunerError):
            _fail(name, str(error))
        if isinstance(error, USAGE_ERROR):
            _fail(name, error.format_message() if hasattr(error, "format_message") else str(error))
        if isinstance(error, OSError):
            _drop_output()
        if isinstance(error, BrokenPipeError):  # the reader has enough, as `head` has
            sys.exit(1)
        if isinstance(error, Exception) and not has_temporary_folder():  # torch fails in many ways without one
            _fail(name, NO_FOLDER)
        if isinstance(error, OSError):
            _fail(name, str(error) if error.strerror else reason_of(error))
        if isinstance(error, MemoryError | RuntimeError) and _is_out_of_memory(error):
            _fail(name, "there is not enough memory for this; give smaller images, or fewer --workers")
        raise
    if interrupts.was_heard():  # Typer gives its own exit code for a KeyboardInterrupt that it has caught itself
        interrupts.end()
    sys.exit(code if isinstance(code, int) else 0)


def _fail(name: str, message: str) -> NoReturn:
    # The password of a URL that was given in the place of another argument.
    message = re.sub(r"(://[^\s:@]*):(?!\*\*\*@)\S*@", r"\1:***@", message)
    print(f"{name}: error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(2)


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    from tuner.training.failures import is_out_of_memory

    return is_out_of_memory(error)


def _drop_output() -> None:
    """Drop output that could not be written, which Python would retry.

    Source: the note on SIGPIPE in its signal docs.
    """
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
