"""Executors, which run trials on runners in this process, or in separate processes on this machine."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.context import ForkServerProcess, SpawnProcess
from typing import Protocol, cast

from tuner.errors import RunnerError
from tuner.search.processes import end_with_parent, import_ahead, start, why_not_started
from tuner.search.tasks import TrainingEnded, TrialTask
from tuner.search.trial_runner import Trainer, TrialRunner
from tuner.training.results import EpochResult, Preparing

Answer = EpochResult | Preparing | TrainingEnded
GOODBYE_SECONDS = 5.0
MAX_BROKEN = 3
"""If this many processes of a runner in a row cannot use the device for a single epoch, the device is faulty."""
READY = "ready"
"""First message of a new process."""


class Executor(Protocol):
    """Runners by number, each with at most one trial. Every `start` and `next_epoch` gets one answer from `answers`."""

    num_runners: int

    def start(self, runner: int, task: TrialTask) -> None:
        """Begin a trial and its first epoch."""

    def next_epoch(self, runner: int) -> None:
        """Begin the next epoch, or continue to prepare the first one."""

    def stop(self, runner: int) -> None:
        """Drop the trial, so that the runner is free."""

    def answers(self, timeout: float) -> list[tuple[int, Answer]]:
        """Return the answers of runners, waiting up to `timeout` seconds for the first."""

    def close(self) -> None:
        """Drop every trial and end the runners; the executor cannot be used afterwards."""


class InProcess:
    """One runner in this process; each epoch blocks the caller."""

    num_runners = 1

    def __init__(self, trainer: Trainer) -> None:
        self._runner = TrialRunner(trainer)
        self._is_asked = False

    def start(self, runner: int, task: TrialTask) -> None:  # noqa: D102
        self._runner.start(task)
        self._is_asked = True

    def next_epoch(self, runner: int) -> None:  # noqa: D102
        self._is_asked = True

    def stop(self, runner: int) -> None:  # noqa: D102
        self._runner.stop()
        self._is_asked = False

    def answers(self, timeout: float) -> list[tuple[int, Answer]]:  # noqa: D102
        if not self._is_asked:
            return []
        self._is_asked = False
        return [(0, self._runner.next_epoch())]

    def close(self) -> None:  # noqa: D102
        self.stop(0)


@dataclass
class _Worker:
    process: SpawnProcess | ForkServerProcess
    connection: Connection
    is_ready: bool = False
    is_busy: bool = False

    def end(self) -> None:
        """End the process immediately."""
        self.connection.close()
        self.process.kill()
        self.process.join()


class LocalProcesses:
    """Runners in separate processes, which are started when they are first needed.

    If a process dies, its trial is reported as lost and the process is replaced. A process that can no longer use its
    device is also replaced, after it has reported how its trial failed. RunnerError is raised if a process cannot even
    start, since the next could not either, and if several processes of a runner in a row cannot use their device.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        self.num_runners = len(trainers)
        self._trainers = trainers
        self._workers: dict[int, _Worker] = {}
        self._num_broken = [0] * self.num_runners
        import_ahead()

    def start(self, runner: int, task: TrialTask) -> None:  # noqa: D102
        if runner not in self._workers:
            self._workers[runner] = self._spawn(runner)
        self._send(runner, task)

    def next_epoch(self, runner: int) -> None:  # noqa: D102
        self._send(runner, "next epoch")

    def stop(self, runner: int) -> None:
        """Drop the trial. A process in the middle of an epoch is ended before it can write another checkpoint."""
        worker = self._workers.get(runner)  # none, if the process could not be replaced
        if worker is not None and worker.is_busy:
            self._workers.pop(runner).end()

    def answers(self, timeout: float) -> list[tuple[int, Answer]]:  # noqa: D102
        numbers = {worker.connection: number for number, worker in self._workers.items()}
        ready = cast("list[Connection]", wait(list(numbers), timeout))
        received = [(numbers[connection], self._receive(numbers[connection])) for connection in ready]
        return [(number, answer) for number, answer in received if answer is not None]

    def close(self) -> None:
        """End every process: first by request, then by force."""
        for worker in self._workers.values():
            worker.connection.close()
            if worker.is_busy:
                worker.process.terminate()
        for worker in self._workers.values():
            worker.process.join(GOODBYE_SECONDS)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    def _spawn(self, number: int) -> _Worker:
        ours, theirs = Pipe()
        try:
            process = start(_serve, theirs, self._trainers[number], name=f"runner {number}")
        except RunnerError:
            ours.close()
            raise
        finally:
            theirs.close()
        return _Worker(process, ours)

    def _send(self, runner: int, message: TrialTask | str) -> None:
        worker = self._workers[runner]
        worker.is_busy = True
        try:
            worker.connection.send(message)
        except OSError:
            # The process has died; its closed connection is readable, and `answers` says so.
            return

    def _receive(self, runner: int) -> Answer | None:
        worker = self._workers[runner]
        try:
            message: Answer | str = worker.connection.recv()
        except (EOFError, OSError):
            worker.connection.close()
            worker.process.join()
            if not worker.is_ready:
                raise RunnerError(why_not_started(worker.process.exitcode)) from None
            self._workers[runner] = self._spawn(runner)
            return TrainingEnded("lost", f"the process of runner {runner} died (exit code {worker.process.exitcode})")
        if isinstance(message, str):
            worker.is_ready = True
            return None
        worker.is_busy = False
        if isinstance(message, TrainingEnded) and message.device_is_broken:
            return self._replaced(runner, message)
        if isinstance(message, EpochResult):
            self._num_broken[runner] = 0
        return message

    def _replaced(self, runner: int, ended: TrainingEnded) -> TrainingEnded:
        """Replace a process that can no longer use its device, and add this to the result."""
        self._workers.pop(runner).end()
        # Where memory ran out in the capture of a graph, the process is of no more use, but the device is in order.
        self._num_broken[runner] += ended.kind != "out of memory"
        if self._num_broken[runner] == MAX_BROKEN:
            raise RunnerError(
                f"{MAX_BROKEN} processes of runner {runner}, one after another, could not use their device: the last "
                f"said {ended.reason}; check the device, or choose another with --device"
            )
        self._workers[runner] = self._spawn(runner)
        return replace(ended, reason=f"{ended.reason}; the process of runner {runner} was replaced")


@contextmanager
def local_executor(trainers: Sequence[Trainer], *, apart: bool = False) -> Iterator[Executor]:
    """Yield an executor with one runner per trainer: one in this process, or several in separate processes.

    The executor is closed at the end of the block. apart: use a separate process, which can be replaced, even for a
    single runner.
    """
    is_here = len(trainers) == 1 and not apart
    with closing(InProcess(trainers[0]) if is_here else LocalProcesses(trainers)) as executor:
        yield executor


def _serve(connection: Connection, trainer: Trainer) -> None:
    """Main function of a runner's process: train each task that it receives, until the connection is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the coordinator decides what follows
    end_with_parent()
    gc.freeze()  # what was imported stays, and is not looked through whenever cycles of references are sought
    runner = TrialRunner(trainer)
    try:
        connection.send(READY)
        while True:
            message = connection.recv()
            if isinstance(message, TrialTask):
                runner.start(message)
            connection.send(runner.next_epoch())
    except (EOFError, OSError):
        return  # the coordinator has closed the connection, or is gone
