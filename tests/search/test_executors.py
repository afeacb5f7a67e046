import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from optuna.trial import TrialState
from rehearsal import DIGITS, EPOCHS, SPACE, Losing, Rehearsal, ended, rehearse

from tuner.data.development_part import DataSpec, load_development
from tuner.errors import RunnerError, StudyError
from tuner.search.coordinator import search
from tuner.search.events import EpochFinished, SearchEnded, SearchEvent, TrialEnded, TrialLost, TrialStarted
from tuner.search.executors import Answer, InProcess, LocalProcesses, local_executor
from tuner.search.image_trainer import ImageTrainer
from tuner.search.processes import run_apart, run_aside
from tuner.search.study_files import checkpoint_path
from tuner.search.tasks import SearchTask, TrainingEnded, TrialTask
from tuner.space.sampling import candidate_from, first_params
from tuner.training.engine import Engine
from tuner.training.results import EpochResult

pytestmark = pytest.mark.slow

TASK = SearchTask(0, candidate_from(first_params(SPACE)[0], SPACE, DIGITS, epochs=EPOCHS), seed=0)


def dies(task: TrialTask) -> Iterator[EpochResult]:
    """A trainer that takes its process with it, as a killed one or a crash in a library would."""
    yield next(rehearse(task))
    os._exit(7)


def writes_before_it_answers(folder: Path, task: TrialTask) -> Iterator[EpochResult]:
    """A trainer whose every epoch after the first takes a while and leaves a checkpoint."""
    folder.mkdir(exist_ok=True)
    for result in rehearse(task):
        time.sleep(0.0 if result.epoch == 1 else 0.3)
        checkpoint_path(folder, task.number).write_text(str(result.epoch))
        yield result


def does_not_listen(task: TrialTask) -> Iterator[EpochResult]:
    """A trainer whose process cannot be asked to end, as one that is inside of a library; its second epoch is long."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield next(rehearse(task))
    time.sleep(30)


class CannotBeOpened:
    """A trainer that takes its process with it as soon as it arrives there."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return os._exit, (9,)

    def __call__(self, task: TrialTask) -> Iterator[EpochResult]:
        yield from rehearse(task)


def children() -> list[psutil.Process]:
    """The processes of runners, oldest first."""
    found = [psutil.Process(child.pid) for child in multiprocessing.active_children()]
    return sorted(found, key=lambda child: child.create_time())


def wait_for(executor: InProcess | LocalProcesses, *, timeout: float = 60.0) -> list[tuple[int, Answer]]:
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        answers = executor.answers(1.0)
        if answers:
            return answers
    raise AssertionError(f"no answer within {timeout} seconds")


def test_in_this_process_every_request_is_answered_once() -> None:
    executor = InProcess(rehearse)
    assert executor.answers(0.0) == []
    executor.start(0, TASK)
    expected = list(rehearse(TASK))
    assert executor.answers(0.0) == [(0, expected[0])]
    assert executor.answers(0.0) == []
    for result in expected[1:]:
        executor.next_epoch(0)
        assert executor.answers(0.0) == [(0, result)]
    executor.next_epoch(0)
    assert executor.answers(0.0) == [(0, TrainingEnded("finished"))]


def test_in_this_process_a_stopped_trial_says_nothing_more() -> None:
    executor = InProcess(rehearse)
    executor.start(0, TASK)
    executor.stop(0)
    assert executor.answers(0.0) == []


def test_another_process_answers_as_this_one_does_and_is_gone_afterwards() -> None:
    before = children()
    with local_executor([rehearse] * 2) as executor:
        assert isinstance(executor, LocalProcesses)
        executor.start(1, TASK)
        seen = wait_for(executor)
        for _ in range(EPOCHS):
            executor.next_epoch(1)
            seen += wait_for(executor)
    assert seen == [(1, result) for result in rehearse(TASK)] + [(1, TrainingEnded("finished"))]
    assert children() == before


def test_a_process_that_dies_is_answered_for_and_replaced() -> None:
    with local_executor([dies] * 2) as executor:
        for _ in range(2):
            executor.start(0, TASK)
            assert wait_for(executor) == [(0, next(rehearse(TASK)))]
            executor.next_epoch(0)
            ((runner, answer),) = wait_for(executor)
            assert runner == 0
            assert isinstance(answer, TrainingEnded)
            assert (answer.kind, answer.reason) == ("lost", "the process of runner 0 died (exit code 7)")


def test_processes_that_cannot_start_end_the_search_in_one_line_and_fail_no_trial(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path)
    with local_executor([CannotBeOpened()] * 2) as executor:
        running = search(study.record(), study.plan(6), executor)
        with pytest.raises(RunnerError, match=r"could not start \(exit code 9\)") as caught:
            list(running)
    assert "\n" not in str(caught.value)
    assert children() == []
    assert {trial.state for trial in study.record().trials()} == {TrialState.WAITING}
    assert study.run(6)[-1] == SearchEnded(6, "")


def test_a_process_that_is_stopped_within_an_epoch_is_gone_at_once_and_the_next_trial_gets_another() -> None:
    with local_executor([rehearse] * 2) as executor:
        executor.start(0, TASK)
        assert wait_for(executor) == [(0, next(rehearse(TASK)))]
        (process,) = children()
        executor.next_epoch(0)
        executor.stop(0)
        assert not process.is_running()
        executor.start(0, TASK)
        assert wait_for(executor) == [(0, next(rehearse(TASK)))]


def test_a_process_that_is_stopped_between_two_epochs_takes_the_next_trial() -> None:
    with local_executor([rehearse] * 2) as executor:
        executor.start(0, TASK)
        wait_for(executor)
        before = children()
        executor.stop(0)
        executor.start(0, TASK)
        assert wait_for(executor) == [(0, next(rehearse(TASK)))]
        assert children() == before


def test_a_process_that_does_not_listen_is_gone_all_the_same_when_its_runner_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tuner.search.executors.GOODBYE_SECONDS", 0.1)
    with local_executor([does_not_listen] * 2) as executor:
        executor.start(0, TASK)
        assert wait_for(executor) == [(0, next(rehearse(TASK)))]
        (process,) = children()
        executor.next_epoch(0)
    assert not process.is_running()


def test_a_budget_with_processes_leaves_no_traceback_and_no_checkpoint_of_a_stopped_trial(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    study = Rehearsal(tmp_path)
    is_over: list[bool] = []  # the clock jumps when both trials have an epoch, and both are in the middle of the next
    events = []
    with local_executor([partial(writes_before_it_answers, study.study_folder)] * 2) as executor:
        plan = study.plan(50, budget_seconds=1.0)
        for event in search(study.record(), plan, executor, clock=lambda: 10.0 * bool(is_over)):
            events.append(event)
            if {event.number for event in events if isinstance(event, EpochFinished)} == {0, 1}:
                is_over.append(True)
    assert [event.reason for event in ended(events)] == ["the time budget is used up"] * 2
    assert [trial.outcome for trial in study.record().trials()] == ["pruned"] * 2
    assert list(study.study_folder.glob("*.pt")) == []
    assert "Traceback" not in capfd.readouterr().err


def run_on_digits(
    study: Rehearsal,
    num_trials: int,
    act: Callable[[SearchEvent, LocalProcesses], None] = lambda event, executor: None,
) -> list[SearchEvent]:
    """A search of real training in two processes."""
    dataset = load_development(DataSpec("digits", study.folder / "data", study.folder / "cache"))
    trainer = ImageTrainer(dataset.folder, study.name, study.study_folder, 0, Engine("cpu"))
    events = []
    with local_executor([trainer] * 2) as executor:
        assert isinstance(executor, LocalProcesses)
        for event in search(study.record(), study.plan(num_trials, epochs=3), executor):
            events.append(event)
            act(event, executor)
    return events


def test_two_processes_train_real_trials_together(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path)
    most = [0]

    def count(event: SearchEvent, executor: LocalProcesses) -> None:
        most[0] = max(most[0], len(children()))

    events = run_on_digits(study, 5, count)
    assert isinstance(events[-1], SearchEnded)
    assert events[-1].num_counted == 5
    assert most[0] == 2
    assert {event.runner for event in events if isinstance(event, TrialStarted)} == {0, 1}
    trials = study.record().trials()
    assert [trial.number for trial in trials] == [0, 1, 2, 3, 4]
    assert all(trial.state.is_finished() for trial in trials)
    assert max(trial.validation_accuracy or 0.0 for trial in trials) > 0.5  # chance is 0.1
    assert children() == []


@pytest.mark.slow
def test_a_trial_whose_runner_is_killed_starts_again_and_the_search_goes_on(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path)
    killed: list[psutil.Process] = []
    victims: list[int] = []
    runners: dict[int, int] = {}

    def kill_one(event: SearchEvent, executor: LocalProcesses) -> None:
        if isinstance(event, TrialStarted):
            runners[event.number] = event.runner
        if isinstance(event, EpochFinished) and not killed:
            worker = executor._workers.get(runners[event.number])
            if worker is not None and worker.is_busy:  # it has not been stopped for being weak
                victims.append(event.number)
                killed.append(psutil.Process(worker.process.pid))
                killed[0].kill()

    events = run_on_digits(study, 4, kill_one)
    lost = [event for event in events if isinstance(event, TrialLost)]
    assert [event.number for event in lost] == victims
    assert "died (exit code " in lost[0].reason
    assert [event.counts for event in ended(events) if event.number == victims[0]] == [True]
    assert isinstance(events[-1], SearchEnded)
    assert events[-1].num_counted == 4
    assert [trial.state for trial in study.record().trials() if trial.state is TrialState.FAIL] == []
    assert not killed[0].is_running()


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_trial_that_is_lost_starts_again_once_and_then_has_failed(tmp_path: Path, times: int) -> None:
    study = Rehearsal(tmp_path)
    events = list(search(study.record(), study.plan(4), Losing(rehearse, 1, times=times)))
    assert [event.number for event in events if isinstance(event, TrialLost)] == [1] * min(times, 1)
    assert [event.outcome for event in ended(events) if event.outcome == "failed"] == ["failed"] * (times == 2)
    last = events[-1]
    assert isinstance(last, SearchEnded)
    assert last.num_counted == 4
    assert study.record().trials()[1].state is (TrialState.FAIL if times == 2 else TrialState.COMPLETE)


@pytest.mark.slow
@pytest.mark.parametrize("num_ended", [1, 2])
def test_two_processes_that_are_interrupted_leave_their_trials_to_the_next_run(tmp_path: Path, num_ended: int) -> None:
    study = Rehearsal(tmp_path)
    with local_executor([rehearse] * 2) as executor:
        running = search(study.record(), study.plan(6), executor)
        for event in running:
            if isinstance(event, TrialEnded) and event.number + 1 >= num_ended:
                break
        running.close()
    left = study.record().trials()
    assert all(trial.state.is_finished() or trial.state is TrialState.WAITING for trial in left)
    assert len(left) < 6
    events = study.run(6)
    assert isinstance(events[-1], SearchEnded)
    assert events[-1].num_counted == 6
    assert all(trial.state.is_finished() for trial in study.record().trials())


def where() -> int:
    return os.getpid()


def raises() -> None:
    raise StudyError("what went wrong")


def leaves() -> None:
    os._exit(9)


def test_what_runs_aside_gives_its_value_its_error_or_why_it_could_not() -> None:
    assert (run_aside(where) != os.getpid()) == (sys.platform == "linux")
    with pytest.raises(StudyError, match=r"^what went wrong$"):
        run_aside(raises)
    if sys.platform == "linux":  # elsewhere it would end this process
        with pytest.raises(RunnerError, match=r"could not start \(exit code 9\)"):
            run_aside(leaves)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each process does the imports itself")
def test_a_process_has_what_trains_imported_before_it_begins() -> None:
    """It is asked by a built-in function, as one of this file would bring this file's imports with it."""
    imported = run_apart(partial(eval, "set(__import__('sys').modules)"))
    assert {"torch", "torch._dynamo", "tuner.search.image_trainer", "tuner.search.trial_runner"} <= imported
