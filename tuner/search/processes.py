"""Start processes for training. This module does not import torch, so it can be used before torch is imported."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from multiprocessing.forkserver import ForkServer
from typing import Any, TypeVar

from tuner.errors import RunnerError, reason_of
from tuner.temporary_folder import NO_FOLDER, has_temporary_folder

UNGUARDED = 78
"""Exit code of a process that would start the search again, because the script that it imports has no guard."""
_PRELOADED = ["tuner.search.image_trainer", "tuner.search.trial_runner", "torch._dynamo"]
"""Modules that every such process imports. torch's optimizers always import its compiler."""
T = TypeVar("T")

_server: ForkServer | None
if sys.platform == "linux":
    from multiprocessing.forkserver import _forkserver

    _server = _forkserver
else:  # where a process with libraries like torch had better not be forked, or cannot be
    _server = None


def context() -> SpawnContext | ForkServerContext:
    """Return the way to start processes: from a clean process with the imports already done, or from scratch."""
    return ForkServerContext() if _server else SpawnContext()


def start(target: Callable[..., None], *args: Any, name: str) -> SpawnProcess | ForkServerProcess:
    """Start a process that calls `target`, and return it. Raises RunnerError if the system allows no more processes."""
    process = context().Process(target=target, args=args, name=name, daemon=True)
    with _said_in_one_line(), deaf_to_interrupts():
        process.start()
    return process


@contextmanager
def _said_in_one_line() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = f"{reason_of(error)}; give fewer --workers" if has_temporary_folder() else NO_FOLDER
        raise RunnerError(f"a process cannot be started: {why}") from error


def import_ahead() -> None:
    """Start the imports for later processes in the background; the processes then share them in memory."""
    if _server:
        _server.set_forkserver_preload(_PRELOADED)
        with _said_in_one_line(), deaf_to_interrupts():
            _server.ensure_running()


def run_aside(function: Callable[[], T]) -> T:
    """Return or raise what a function does, in a separate process. Raises RunnerError if that cannot start.

    Where processes are not forked, the function runs in this process, since a new one would only repeat the imports.
    """
    return run_apart(function) if _server else function()


def run_apart(function: Callable[[], T]) -> T:
    """Return or raise what a function does, always in a separate process. Raises RunnerError if that cannot start."""
    import_ahead()
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = start(_answer, theirs, function, name="aside")
    theirs.close()
    try:
        value, error = ours.recv()
    except EOFError:
        process.join()
        raise RunnerError(why_not_started(process.exitcode)) from None
    process.join()
    if error is not None:
        raise error
    result: T = value
    return result


def _answer(connection: Connection, function: Callable[[], T]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    try:
        connection.send((function(), None))
    except Exception as error:  # noqa: BLE001 - the caller gets it
        connection.send((None, error))


def end_with_parent() -> None:
    """End this process as soon as its parent process has ended, even in the middle of an epoch.

    Otherwise it could still be training and writing when another process resumes the study.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in a process that multiprocessing has started"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def why_not_started(exit_code: int | None) -> str:
    """Explain why a training process ended before it sent its first message."""
    if exit_code == UNGUARDED:
        return (
            "the script that starts the search is imported by every process that trains, and would start it again "
            'there: put what it does under `if __name__ == "__main__":`'
        )
    return (
        f"a process that trains could not start (exit code {exit_code}): fix the error that it printed above, or, "
        "on a CPU, train in this process alone, with --workers 1"
    )


def end_if_unguarded() -> None:
    """End this process if it is a runner's process that is still importing the user's script.

    In that case, a script without the guard would start the search again; the parent process reports this.
    """
    # What multiprocessing itself looks at, to refuse such a process of its own, with a traceback in each of them.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)  # a process that is forked makes 1 of what SystemExit says


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Make a process that is started in this block ignore Ctrl-C while it imports; later it ignores Ctrl-C by itself.

    On systems without signal masks (Windows), it does not ignore Ctrl-C during its imports.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # which would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
