"""How processes that train come into being. Without torch, so that it can be asked before torch is imported."""

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
"""Exit code of a process that would begin the search again, for want of a guard in the script that it imports."""
_PRELOADED = ["tuner.search.image_trainer", "tuner.search.trial_runner", "torch._dynamo"]
"""What every such process imports; torch's optimizers import its compiler, used or not."""
T = TypeVar("T")

_server: ForkServer | None
if sys.platform == "linux":
    from multiprocessing.forkserver import _forkserver

    _server = _forkserver
else:  # where a process with libraries like torch had better not be forked, or cannot be
    _server = None


def context() -> SpawnContext | ForkServerContext:
    """How processes are made: from a clean one that has the imports behind it, or else each from scratch."""
    return ForkServerContext() if _server else SpawnContext()


def start(target: Callable[..., None], *args: Any, name: str) -> SpawnProcess | ForkServerProcess:
    """A process that calls `target`, started. Raises RunnerError where the system allows no more of them."""
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
    """Begin with the imports of the processes to come, at the side; what they all share is then in memory once."""
    if _server:
        _server.set_forkserver_preload(_PRELOADED)
        with _said_in_one_line(), deaf_to_interrupts():
            _server.ensure_running()


def run_aside(function: Callable[[], T]) -> T:
    """What a function returns, or raises, in a process of its own. Raises RunnerError when that cannot start.

    Where processes are not forked it runs in this one, as it would only wait for the imports there.
    """
    return run_apart(function) if _server else function()


def run_apart(function: Callable[[], T]) -> T:
    """What a function returns, or raises, in a process of its own. Raises RunnerError when that cannot start."""
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
    """End this process as soon as the one that started it is gone, in the middle of an epoch too.

    A process that resumes the study afterwards must not find it still training and writing.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "called in a process that multiprocessing has started"

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="end with parent", daemon=True).start()


def why_not_started(exit_code: int | None) -> str:
    """What to say of a process that trains and that ended before it said anything."""
    if exit_code == UNGUARDED:
        return (
            "the script that starts the search is imported by every process that trains, and would start it again "
            'there: put what it does under `if __name__ == "__main__":`'
        )
    return (
        f"a process that trains could not start (exit code {exit_code}): fix what it says above, or, on a CPU, train "
        "in this process alone, with --workers 1"
    )


def end_if_unguarded() -> None:
    """End this process if it is one of a runner's that is still importing the user's script.

    That is when a script without the guard would start the search again; the first process says so.
    """
    # What multiprocessing itself looks at, to refuse such a process of its own, with a traceback in each of them.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)  # a process that is forked makes 1 of what SystemExit says


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Let a process that is started here not hear Ctrl-C while it imports; afterwards it ignores it by itself.

    Where there are no signal masks (Windows), it hears it.
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
