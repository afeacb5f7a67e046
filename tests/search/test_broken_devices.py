"""An error that leaves a process without its device: the trial has failed, and another process takes the next one."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from optuna.trial import TrialState
from rehearsal import Rehearsal, ended, rehearse

from tests.training.test_failures import BROKEN, OTHERS, OUT_OF_MEMORY, in_the_end_of_a_capture
from tuner.errors import RunnerError
from tuner.search.coordinator import search
from tuner.search.events import SearchEnded, SearchEvent, TrialEnded, TrialLost
from tuner.search.executors import InProcess, LocalProcesses, local_executor
from tuner.search.tasks import TrialTask
from tuner.search.trial_runner import Trainer
from tuner.training.results import EpochResult

pytestmark = pytest.mark.slow

left_behind: list[Exception] = []
"""In a runner's process: what every later call of its device raises, as CUDA's do."""


def breaks_its_device(error: Exception, number: int, task: TrialTask) -> Iterator[EpochResult]:
    """A trainer in which a trial of this number ends with an error, after which nothing can be trained there."""
    for result in rehearse(task):
        if task.number == number and result.epoch == 2:
            left_behind.append(error)
        if left_behind:
            raise left_behind[0]
        yield result


def fails(error: Exception, number: int, task: TrialTask) -> Iterator[EpochResult]:
    """A trainer in which a trial of this number ends with an error, and that is all."""
    for result in rehearse(task):
        if task.number == number and result.epoch == 2:
            raise error
        yield result


def breaks_at_once(task: TrialTask) -> Iterator[EpochResult]:
    """A trainer on a device that is out of order."""
    yield from ()
    raise BROKEN[0]


def writes_its_process(folder: Path, task: TrialTask) -> Iterator[EpochResult]:
    """A trainer that leaves the number of its process, and whether CUDA refuses to begin there."""
    (folder / str(task.number)).write_text(f"{os.getpid()} {torch.cuda._is_in_bad_fork()}")
    yield from rehearse(task)


def searched(study: Rehearsal, trainer: Trainer, *, num_runners: int, num_trials: int = 8) -> list[SearchEvent]:
    """A search in processes of their own."""
    with local_executor([trainer] * num_runners, apart=True) as executor:
        assert isinstance(executor, LocalProcesses)
        return list(search(study.record(), study.plan(num_trials), executor))


@pytest.mark.slow
@pytest.mark.parametrize("num_runners", [1, 2])
@pytest.mark.parametrize("error", [BROKEN[0], BROKEN[5], BROKEN[6]], ids=str)
def test_one_trial_fails_and_those_after_it_train_in_another_process(
    tmp_path: Path, error: Exception, num_runners: int
) -> None:
    study = Rehearsal(tmp_path)
    events = searched(study, partial(breaks_its_device, error, 1), num_runners=num_runners)
    (failed,) = (event for event in ended(events) if event.outcome == "failed")
    assert failed.number == 1
    first_line = f"{type(error).__name__}: {error}".splitlines()[0]
    runner = study.record().trials()[1].runner
    assert failed.reason == f"{first_line}; the process of runner {runner} was replaced"
    assert [event for event in events if isinstance(event, TrialLost)] == []
    assert events[-1] == SearchEnded(8, "")
    stored = study.record().stored_trials()[1]
    assert stored.state is TrialState.FAIL
    assert "Traceback" in stored.user_attrs["details"]


@pytest.mark.parametrize("error", [OUT_OF_MEMORY[0], OUT_OF_MEMORY[1], OTHERS[0]], ids=str)
def test_an_error_that_harms_no_device_leaves_the_process_as_it_is(tmp_path: Path, error: Exception) -> None:
    study = Rehearsal(tmp_path)
    seen = set()
    with local_executor([partial(fails, error, 1)], apart=True) as executor:
        assert isinstance(executor, LocalProcesses)
        for _ in search(study.record(), study.plan(4), executor):
            seen |= {worker.process.pid for worker in executor._workers.values()}
    assert len(seen) == 1
    assert study.record().trials()[1].outcome in ("failed", "rejected")


def test_a_process_that_is_replaced_is_gone(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path)
    seen = set()
    with local_executor([partial(breaks_its_device, BROKEN[0], 1)], apart=True) as executor:
        assert isinstance(executor, LocalProcesses)
        for event in search(study.record(), study.plan(4), executor):
            seen |= {worker.process.pid for worker in executor._workers.values()}
            if isinstance(event, TrialEnded) and event.outcome == "failed":
                assert len(seen) == 2
                assert sum(psutil.pid_exists(pid) for pid in seen if pid is not None) == 1
    assert len(seen) == 2


@pytest.mark.parametrize("num_runners", [1, 2])
def test_a_device_that_fails_in_one_process_after_another_ends_the_search_in_one_line(
    tmp_path: Path, num_runners: int
) -> None:
    study = Rehearsal(tmp_path)
    with pytest.raises(RunnerError, match=r"3 processes of runner \d.* illegal memory access .* --device") as caught:
        searched(study, breaks_at_once, num_runners=num_runners)
    assert "\n" not in str(caught.value)
    outcomes = [trial.outcome for trial in study.record().trials()]
    assert outcomes.count("failed") >= 2
    assert set(outcomes) <= {"failed", None}
    assert study.run(4)[-1] == SearchEnded(4, "")


@pytest.mark.slow
def test_errors_of_the_device_between_which_epochs_were_trained_do_not_end_the_search(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path)
    events = searched(study, every_other_breaks, num_runners=1)
    assert [event.outcome for event in ended(events)].count("failed") > 3
    assert events[-1] == SearchEnded(8, "")


@pytest.mark.slow
@pytest.mark.parametrize("num_runners", [1, 2])
def test_want_of_memory_in_the_capture_of_a_graph_rejects_a_trial_and_never_ends_the_search(
    tmp_path: Path, num_runners: int
) -> None:
    study = Rehearsal(tmp_path)
    events = searched(study, lacks_memory_in_a_capture, num_runners=num_runners, num_trials=3)
    outcomes = [trial.outcome for trial in study.record().trials()]
    assert outcomes[:8] == ["rejected"] * 8
    assert outcomes.count("failed") == 0
    assert events[-1] == SearchEnded(3, "")
    reasons = {trial.reason for trial in study.record().trials()[:8]}
    assert all("previous error during capture" in reason and "was replaced" in reason for reason in reasons)


def lacks_memory_in_a_capture(task: TrialTask) -> Iterator[EpochResult]:
    """A trainer in which memory runs out in the first trials while a graph is captured."""
    if task.number < 8:
        raise in_the_end_of_a_capture(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."))
    yield from rehearse(task)


def every_other_breaks(task: TrialTask) -> Iterator[EpochResult]:
    """A trainer in which every other trial ends with an error of the device after its first epoch."""
    results = rehearse(task)
    yield next(results)
    if task.number % 2:
        raise BROKEN[0]
    yield from results


def test_a_single_runner_lives_in_this_process_unless_it_shall_be_apart() -> None:
    with local_executor([rehearse]) as here:
        assert isinstance(here, InProcess)
    with local_executor([rehearse], apart=True) as elsewhere:
        assert isinstance(elsewhere, LocalProcesses)


def test_cuda_may_begin_in_the_process_of_a_runner(tmp_path: Path) -> None:
    """It refuses in a fork of a process that has asked for it, as an import there may."""
    searched(Rehearsal(tmp_path), partial(writes_its_process, tmp_path), num_runners=2, num_trials=2)
    written = [(tmp_path / number).read_text().split() for number in "01"]
    assert {is_in_bad_fork for _, is_in_bad_fork in written} == {"False"}
    assert str(os.getpid()) not in {pid for pid, _ in written}
    assert len({pid for pid, _ in written}) == 2
