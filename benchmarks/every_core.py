"""The textbook on every core: processes of one thread, which take the networks from one queue."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.synchronize import Barrier
from pathlib import Path

import torch

from benchmarks.put_off import interrupts_put_off
from benchmarks.subset import Rows
from benchmarks.textbook import train_textbook
from tuner.errors import RunnerError
from tuner.search.processes import deaf_to_interrupts
from tuner.training.candidate import Candidate

WARM_UP_IMAGES = 256


def run_processes(
    candidates: list[Candidate], folder: Path, rows: Rows, *, num_processes: int
) -> tuple[float, list[tuple[float, float]]]:
    """Seconds of all, processes and warm-up not counted; then the seconds and the accuracy of each candidate.

    Raises RunnerError if a process ends before all are trained.
    """
    context = multiprocessing.get_context("spawn")
    warmed = context.Barrier(num_processes)
    few = Rows(rows.train[:WARM_UP_IMAGES], rows.validation[:WARM_UP_IMAGES])
    initial = (warmed, candidates[0], folder, few)
    with ProcessPoolExecutor(num_processes, context, initializer=warm_up, initargs=initial) as pool:
        try:
            # A process is started for each of these calls, and none is answered before all have passed the barrier.
            with interrupts_put_off(), deaf_to_interrupts():
                answers = [pool.submit(os.getpid) for _ in range(num_processes)]
            for answer in answers:
                answer.result()
            started = time.perf_counter()
            results = list(pool.map(partial(train_one, folder=folder, rows=rows), candidates))
            return time.perf_counter() - started, results
        except BrokenProcessPool as error:
            raise RunnerError(
                "the textbook's processes must live until all networks are trained, and one ended before: what it "
                "printed is above; if that is nothing, it was killed, as for want of memory"
            ) from error
        except KeyboardInterrupt:  # the pool would wait for what they train
            for process in multiprocessing.active_children():
                process.kill()
            raise


def warm_up(warmed: Barrier, candidate: Candidate, folder: Path, few: Rows) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the first process ends them
    torch.set_num_threads(1)
    train_one(candidate, folder=folder, rows=few)
    warmed.wait()  # if another process dies meanwhile, the pool ends this one


def train_one(candidate: Candidate, *, folder: Path, rows: Rows) -> tuple[float, float]:
    """Seconds, and the accuracy after the last epoch."""
    return list(train_textbook(candidate, folder, rows, seed=0, device=torch.device("cpu")))[-1]
