"""What a process that trains adds to those it shares memory with. It imports no more than a runner's process does."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from multiprocessing.connection import Connection

import psutil

from benchmarks.subset import SubsetTrainer
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head
from tuner.search.tasks import SearchTask
from tuner.training.candidate import Candidate, Recipe

SAMPLED_EVERY = 0.005
"""Seconds."""


def train_watched(sender: Connection, trainer: SubsetTrainer, candidates: Sequence[Candidate]) -> None:
    """Train the candidates one after another, and send what `benchmarks.memory` prints of this process, in bytes.

    Its own when it had trained a network of one channel, for which torch sets itself up, and what came on top of that:
    at the peak, and when all was over.
    """
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group; the process that started this ends it
    _train(
        trainer, Candidate(Architecture(candidates[0].architecture.input, (PlainBlock(1),), Head()), Recipe(epochs=1))
    )
    own, before, most, is_over = _own_bytes(), _resident_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not is_over.wait(SAMPLED_EVERY):
            most = max(most, _resident_bytes() - before)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        for candidate in candidates:
            _train(trainer, candidate)
    finally:
        is_over.set()
        watching.join()
    kept = _own_bytes() - own
    unshared = kept - (_resident_bytes() - before)  # written to meanwhile, and so no longer shared
    sender.send((own, most + unshared, kept))


def _train(trainer: SubsetTrainer, candidate: Candidate) -> None:
    for _ in trainer(SearchTask(0, candidate, seed=0)):
        pass


def _own_bytes() -> int:
    """What this process shares with no other, without files that are mapped into memory.

    It takes too long to be watched.
    """
    if sys.platform == "linux":
        return sum(mapping.private_dirty for mapping in psutil.Process().memory_maps())
    return int(psutil.Process().memory_full_info().uss)


def _resident_bytes() -> int:
    """Without what is mapped from files, where the system tells it apart; with what is shared since a fork."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))
