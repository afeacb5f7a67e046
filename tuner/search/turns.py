"""in_turns: run a function that reports its progress, and yield that progress, so that the caller can stop it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from queue import SimpleQueue
from typing import TypeVar

import torch

from tuner.data.dataset import Report
from tuner.training.results import Preparing

T = TypeVar("T")
PROGRESS_SECONDS = 1.0
"""Seconds between two reports of a runner to the search, which can stop it at each of them."""
STOPPING_SECONDS = 30.0
"""How long a stopped function may take until its next report, before it is abandoned."""


class _Stopped(Exception):  # noqa: N818 - an end that the caller asks for, not a mistake
    """Raised in a function that is stopped, by the report that it makes."""


def in_turns(function: Callable[[Report], T], *, seconds: float) -> Generator[Preparing, None, T]:
    """Return what function(report) returns; its reports are yielded, at most one in `seconds`.

    The function runs in a thread, but never while the caller has a turn, so that settings of torch that the caller
    changes meanwhile have no effect on it. If the iterator is closed, or interrupted by Ctrl-C, the next report raises
    an exception in the function, which cleans up.
    """
    reported: SimpleQueue[Preparing | None] = SimpleQueue()
    resumed = threading.Event()
    is_stopped = False
    since = time.monotonic()
    returned: list[T] = []
    raised: list[BaseException] = []
    num_threads = torch.get_num_threads()

    def report(what: str, done: int, total: int) -> None:
        nonlocal since
        if not is_stopped and time.monotonic() - since >= seconds:
            resumed.clear()
            reported.put(Preparing(what, done, total))
            if not is_stopped:  # Ctrl-C may have come since: nobody would give the next turn
                resumed.wait()
            since = time.monotonic()
        if is_stopped:
            raise _Stopped

    def work() -> None:
        try:
            torch.set_num_threads(num_threads)  # a number of each thread
            returned.append(function(report))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread of the caller
            raised.append(error)
        reported.put(None)

    thread = threading.Thread(target=work, name="in turns", daemon=True)
    try:
        thread.start()
        while (one := reported.get()) is not None:
            yield one
            resumed.set()
    finally:
        is_stopped = True
        resumed.set()
        if thread.ident is not None:  # None if Ctrl-C came before its start
            thread.join(STOPPING_SECONDS)
    if raised:
        raise raised[0]
    return returned[0]
