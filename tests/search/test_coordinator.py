import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from rehearsal import (
    DIGITS,
    EPOCHS,
    FINITE_SPACE,
    SPACE,
    Rehearsal,
    curve_of,
    ended,
    ends_with,
    rehearse,
    writes_checkpoints,
)

from tests.strategies import make_space
from tuner.architecture.cost import network_cost
from tuner.architecture.trace import trace
from tuner.data.stream_limit import StreamLimit
from tuner.errors import RunnerError
from tuner.search.alike_failures import MAX_ALIKE, MAX_ALIKE_LATER
from tuner.search.coordinator import search
from tuner.search.events import (
    EpochFinished,
    SearchEnded,
    SearchEvent,
    SearchStarted,
    TrialEnded,
    TrialPreparing,
    TrialStarted,
)
from tuner.search.executors import Answer, InProcess
from tuner.search.record import CONSTRAINTS
from tuner.search.study_files import NUM_KEPT, checkpoint_path
from tuner.search.summary import summarise
from tuner.search.tasks import SearchTask, TrialTask
from tuner.search.trial_runner import Trainer
from tuner.search.uncounted_trials import MAX_UNCOUNTED
from tuner.space.sampling import candidate_from, distributions, first_params
from tuner.training.results import Diverged, EpochResult, Preparing
from tuner.ui.event_lines import new_problem
from tuner.ui.search_view import SearchView


@pytest.fixture
def _nobody_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what happens to a trial that goes on: no rungs."""
    monkeypatch.setattr("tuner.search.sampler_and_pruner.rungs", lambda epochs: ())


@pytest.fixture
def study(tmp_path: Path) -> Rehearsal:
    return Rehearsal(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rehearsal, list[SearchEvent]]:
    """A study of 24 trials, run in one go."""
    study = Rehearsal(tmp_path_factory.mktemp("finished"))
    return study, study.run(24)


def ending_of(events: list[SearchEvent]) -> SearchEnded:
    assert isinstance(events[-1], SearchEnded)
    return events[-1]


# What a search does, as a stream of events


def test_a_search_ends_with_as_many_counted_trials_as_were_asked_for(
    finished: tuple[Rehearsal, list[SearchEvent]],
) -> None:
    study, events = finished
    assert isinstance(events[0], SearchStarted)
    assert (events[0].num_trials, events[0].num_counted, events[0].epochs) == (24, 0, EPOCHS)
    assert ending_of(events) == SearchEnded(24, "")
    assert sum(event.counts for event in ended(events)) == 24
    assert sum(trial.counts for trial in study.record().trials()) == 24
    assert {event.outcome for event in ended(events)} >= {"complete", "pruned"}


def test_a_trial_starts_then_finishes_its_epochs_in_order_then_ends(
    finished: tuple[Rehearsal, list[SearchEvent]],
) -> None:
    _, events = finished
    for end in ended(events):
        own = [event for event in events if getattr(event, "number", None) == end.number]
        assert isinstance(own[0], TrialStarted)
        assert own[-1] is end
        epochs = [event.result.epoch for event in own[1:-1] if isinstance(event, EpochFinished)]
        assert epochs == list(range(1, end.num_epochs + 1))
        assert len(own) == end.num_epochs + 2


def test_a_trial_is_scored_by_its_best_epoch(finished: tuple[Rehearsal, list[SearchEvent]]) -> None:
    study, events = finished
    for end, trial in zip(ended(events), study.record().trials(), strict=True):
        curve = curve_of(SearchTask(trial.number, trial.candidate, seed=0))[: end.num_epochs]
        assert list(trial.curve.values()) == curve
        assert end.validation_accuracy == trial.validation_accuracy == max(curve)
        assert end.best_epoch == trial.best_epoch == curve.index(max(curve)) + 1
        if end.outcome == "complete":
            assert end.best_epoch == EPOCHS - 1  # the last one falls


def test_a_pruned_trial_has_the_reason_and_a_complete_one_none(
    finished: tuple[Rehearsal, list[SearchEvent]],
) -> None:
    for end in ended(finished[1]):
        assert ("continue" in end.reason) == (end.outcome == "pruned")
        assert (end.num_epochs < EPOCHS) == (end.outcome == "pruned")


def test_the_configurations_to_try_first_are_tried_first(study: Rehearsal) -> None:
    study.run(2)
    assert dict(study.record().trials()[0].params) == first_params(SPACE)[0]


def given(*out_channels: int) -> Any:
    """A space that gives networks of one block with so many channels."""
    return make_space(
        name="given",
        network={"num_blocks": 1},
        block={"out_channels": {"low": 2, "high": 32}},
        first=[{"block": [{"out_channels": channels}]} for channels in out_channels],
    )


def channels_tried(study: Rehearsal) -> list[int]:
    return [trial.candidate.architecture.blocks[0].out_channels for trial in study.record().trials()]


def test_where_only_given_configurations_are_left_the_longest_starts_first_after_the_first(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path, space=given(4, 8, 32, 16, 24))
    study.run(4)
    assert channels_tried(study) == [4, 32, 16, 8]  # 24 is not among the first four


def test_given_configurations_keep_their_order_while_other_trials_follow_them(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path, space=given(4, 8, 32, 16))
    study.run(6)
    assert channels_tried(study)[:4] == [4, 8, 32, 16]


def test_every_given_configuration_is_tried_once_however_a_study_is_cut_and_topped_up(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path, space=given(4, 8, 32, 16, 24))
    study.run(3, until=lambda event: isinstance(event, TrialEnded))
    study.run(3)
    assert channels_tried(study) == [4, 32, 8]
    study.run(6)
    assert channels_tried(study)[:5] == [4, 32, 8, 16, 24]


def test_every_trial_that_runs_gets_a_seed_from_study_and_candidate_alone(tmp_path: Path) -> None:
    tasks: list[list[TrialTask]] = [[], [], []]
    for number, seed in enumerate((0, 0, 1)):

        def keep(task: TrialTask, tasks: list[TrialTask] = tasks[number]) -> Iterator[EpochResult]:
            tasks.append(task)
            return rehearse(task)

        Rehearsal(tmp_path, name=f"study-{number}").run(4, trainer=keep, seed=seed)
    assert tasks[0] == tasks[1]
    assert len({task.seed for task in tasks[0]}) == 4
    # The first configuration is the same candidate in both; its training draws from another seed.
    assert tasks[0][0].candidate == tasks[2][0].candidate
    assert tasks[0][0].seed != tasks[2][0].seed


# What Optuna itself reads


def test_optuna_reads_the_finished_study(finished: tuple[Rehearsal, list[SearchEvent]]) -> None:
    study, _ = finished
    loaded = optuna.load_study(study_name=study.name, storage=study.url)
    trials = study.record().trials()
    assert [trial.state for trial in loaded.trials] == [trial.state for trial in trials]
    assert [trial.params for trial in loaded.trials] == [trial.params for trial in trials]
    assert [trial.intermediate_values for trial in loaded.trials] == [trial.curve for trial in trials]
    summary = summarise(study.record(), studies=study.folder)
    assert summary.best is not None
    assert loaded.best_trial.number == summary.best.number
    assert loaded.best_value == summary.best.validation_accuracy
    assert loaded.best_params == summary.best.params
    assert loaded.direction == optuna.study.StudyDirection.MAXIMIZE
    assert all(trial.datetime_start <= trial.datetime_complete for trial in loaded.trials)


def test_a_stored_trial_is_built_again_from_the_database_alone(
    finished: tuple[Rehearsal, list[SearchEvent]],
) -> None:
    study, _ = finished
    loaded = optuna.load_study(study_name=study.name, storage=study.url)
    for stored, trial in zip(loaded.trials, study.record().trials(), strict=True):
        assert stored.distributions == distributions(SPACE)
        assert candidate_from(stored.params, SPACE, DIGITS, epochs=EPOCHS) == trial.candidate
        cost = network_cost(trace(trial.candidate.architecture))
        assert (trial.num_parameters, trial.flops) == (cost.num_parameters, cost.flops)
        assert stored.user_attrs["fingerprint"] == trial.candidate.fingerprint
        assert stored.user_attrs["architecture"]


@pytest.mark.usefixtures("_nobody_stops")
def test_optuna_reads_a_running_study(study: Rehearsal) -> None:
    running = search(study.record(), study.plan(5), InProcess(rehearse), clock=lambda: 0.0)
    for event in running:
        if isinstance(event, EpochFinished) and event.number == 2 and event.result.epoch == 3:
            break
    loaded = optuna.load_study(study_name=study.name, storage=study.url)
    assert [trial.state.name for trial in loaded.trials] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert list(loaded.trials[2].intermediate_values) == [1, 2, 3]
    running.close()


# Trials that do not count


def test_a_candidate_beyond_the_memory_is_rejected_and_not_trained(study: Rehearsal) -> None:
    sizes: list[float] = []

    def measure(task: TrialTask) -> Iterator[EpochResult]:
        cost = network_cost(trace(task.candidate.architecture))
        sizes.append(cost.training_bytes(task.candidate.recipe.batch_size))
        return rehearse(task)

    limit = 3_000_000.0
    events = study.run(6, trainer=measure, memory_bytes=limit)
    rejected = [event for event in ended(events) if event.outcome == "rejected"]
    assert rejected
    assert len(sizes) == 6
    assert max(sizes) <= limit
    assert all(event.reason.startswith("its training needs 0.0 GiB of memory, more than") for event in rejected)
    assert not any(event.counts for event in rejected)
    assert ending_of(events) == SearchEnded(6, "")
    trials = {trial.number: trial for trial in study.record().trials()}
    for event in rejected:
        assert trials[event.number].state is TrialState.PRUNED
        assert trials[event.number].reason == event.reason
        assert not trials[event.number].curve


def test_a_batch_that_cannot_be_streamed_is_rejected_and_not_trained(tmp_path: Path) -> None:
    sizes: list[int] = []

    def keep(task: TrialTask) -> Iterator[EpochResult]:
        sizes.append(task.candidate.recipe.batch_size)
        return rehearse(task)

    space = make_space(
        name="batches", block={"out_channels": {"low": 2, "high": 32}}, recipe={"batch_size": {"low": 8, "high": 64}}
    )
    study = Rehearsal(tmp_path, space)
    stream = StreamLimit(8 * 1024, 64, torch.device("cpu"))
    events = study.run(6, trainer=keep, stream=stream)
    rejected = [event for event in ended(events) if event.outcome == "rejected"]
    assert rejected
    assert all(event.reason.endswith("more than the 8.0 KiB allowed; at most 27 fits") for event in rejected)
    assert not any(event.counts for event in rejected)
    assert len(sizes) == 6
    assert max(sizes) <= stream.largest_batch == 27
    for trial, stored in zip(study.record().trials(), study.record().stored_trials(), strict=True):
        is_beyond = trial.candidate.recipe.batch_size > 27
        assert (stored.system_attrs[CONSTRAINTS][0] > 0) == is_beyond == (trial.outcome == "rejected")


def test_a_repeated_candidate_is_stored_but_not_trained_again(tmp_path: Path) -> None:
    trained: list[str] = []

    def keep(task: TrialTask) -> Iterator[EpochResult]:
        trained.append(task.candidate.fingerprint)
        return rehearse(task)

    study = Rehearsal(tmp_path, space=FINITE_SPACE)
    events = study.run(6, trainer=keep)
    repeated = [event for event in ended(events) if event.outcome == "repeated"]
    assert repeated
    assert len(trained) == len(set(trained)) == 6
    trials = {trial.number: trial for trial in study.record().trials()}
    for event in repeated:
        first = int(event.reason.removeprefix("the same candidate as trial "))
        assert first < event.number
        assert trials[first].candidate == trials[event.number].candidate
        assert trials[event.number].state is TrialState.PRUNED
        assert not event.counts


@pytest.mark.parametrize("num_a_run", [1, 9])
def test_a_repeated_candidate_takes_one_place_at_a_rung(tmp_path: Path, num_a_run: int) -> None:
    """Also when the trials are read from the study."""

    def worse_every_time(task: TrialTask) -> Iterator[EpochResult]:
        for epoch in range(1, EPOCHS + 1):
            yield EpochResult(epoch, 0.5, 0.5, 0.9 - task.number / 1_000, 0.0)

    study = Rehearsal(tmp_path, space=FINITE_SPACE)
    for num_trials in range(num_a_run, 10, num_a_run):
        study.run(num_trials, trainer=worse_every_time)
    trained = [trial for trial in study.record().trials() if trial.outcome != "repeated"]
    assert trained[-1].number >= len(trained)  # some repeated ones came before it
    places = [trial.reason.split("ranked ")[-1].split(";")[0] for trial in trained]
    assert places == ["", *(f"{place} of {place}" for place in range(2, 10))]


@pytest.mark.parametrize("num_a_run", [1, 9])
def test_a_candidate_that_failed_may_be_tried_again(tmp_path: Path, num_a_run: int) -> None:
    """Also when another run of the study proposes it."""
    failed: set[str] = set()

    def fails_first(task: TrialTask) -> Iterator[EpochResult]:
        if task.candidate.fingerprint in failed:
            return rehearse(task)
        failed.add(task.candidate.fingerprint)
        return ends_with(OSError("the disk was away"), after=1)(task)

    study = Rehearsal(tmp_path, space=FINITE_SPACE)
    events: list[SearchEvent] = []
    for num_trials in range(num_a_run, 10, num_a_run):
        events += study.run(num_trials, trainer=fails_first)
    assert ending_of(events) == SearchEnded(9, "")  # all that there are
    assert len(failed) == 9
    trials = study.record().trials()
    for fingerprint in failed:
        outcomes = [trial.outcome for trial in trials if trial.candidate.fingerprint == fingerprint]
        assert outcomes[0] == "failed"
        assert outcomes[1] in ("complete", "pruned")
        assert set(outcomes[2:]) <= {"repeated"}


@pytest.mark.usefixtures("_nobody_stops")
def test_a_trainer_that_raises_fails_the_trial_alone(study: Rehearsal) -> None:
    def fails_at_times(task: TrialTask) -> Iterator[EpochResult]:
        return ends_with(ValueError("no such\nthing"), after=2)(task) if task.number in (1, 3) else rehearse(task)

    events = study.run(4, trainer=fails_at_times)
    assert [event.outcome for event in ended(events)][:4] == ["complete", "failed", "complete", "failed"]
    assert ending_of(events) == SearchEnded(4, "")
    trial = study.record().trials()[1]
    assert trial.state is TrialState.FAIL
    assert trial.reason == "ValueError: no such"
    stored = optuna.load_study(study_name=study.name, storage=study.url).trials[1]
    assert "Traceback" in stored.user_attrs["details"]
    assert "no such" in stored.user_attrs["details"]


def test_a_run_whose_first_trials_all_fail_alike_ends_after_a_few_with_the_reason(study: Rehearsal) -> None:
    def fails(task: TrialTask) -> Iterator[EpochResult]:
        raise RuntimeError(f"expected scalar type Float but found Double in batch {task.number}")
        yield

    with pytest.raises(RunnerError, match=r"first 5 trials all failed .*: expected scalar type") as caught:
        study.run(8, trainer=fails)
    assert "\n" not in str(caught.value)
    trials = optuna.load_study(study_name=study.name, storage=study.url).trials
    assert [trial.state for trial in trials] == [TrialState.FAIL] * MAX_ALIKE
    assert all("Traceback" in trial.user_attrs["details"] for trial in trials)
    assert ending_of(study.run(8)) == SearchEnded(8, "")  # once that is put right


@pytest.mark.usefixtures("_nobody_stops")
def test_a_run_whose_later_trials_all_fail_alike_ends_with_the_reason(study: Rehearsal) -> None:
    def fails_later(task: TrialTask) -> Iterator[EpochResult]:
        yield from rehearse(task)
        if task.number >= 3 and task.number != 12:
            raise OSError(f"No space left for trial {task.number}")

    with pytest.raises(RunnerError, match=r"the last 20 trials all failed in the same way: OSError: No space left"):
        study.run(30, trainer=fails_later)
    trials = optuna.load_study(study_name=study.name, storage=study.url).trials
    trained = [trial.number for trial in trials if trial.state is not TrialState.FAIL]
    assert {0, 1, 2, 12} <= set(trained)
    assert [trial.state for trial in trials[-MAX_ALIKE_LATER:]] == [TrialState.FAIL] * MAX_ALIKE_LATER
    assert ending_of(study.run(30)) == SearchEnded(30, "")  # once that is put right


@pytest.mark.usefixtures("_nobody_stops")
@pytest.mark.parametrize("spared", [0, 2, 4])
def test_a_run_goes_on_when_one_of_its_first_trials_has_had_an_epoch_or_failed_otherwise(
    study: Rehearsal, spared: int
) -> None:
    def others_fail(task: TrialTask) -> Iterator[EpochResult]:
        if task.number >= 12:
            return rehearse(task)
        return ends_with(KeyError("other") if task.number == spared else ValueError("no"))(task)

    assert ending_of(study.run(2, trainer=others_fail)) == SearchEnded(2, "")
    later = study.run(3, trainer=lambda task: ends_with(ValueError("no"))(task) if task.number < 30 else rehearse(task))
    assert ending_of(later) == SearchEnded(3, "")  # trials of an earlier run have had epochs


@pytest.mark.usefixtures("_nobody_stops")
@pytest.mark.parametrize(("after", "is_counted"), [(0, False), (2, True)])
def test_a_diverged_trial_is_pruned_with_the_reason_and_counts_with_an_epoch(
    study: Rehearsal, after: int, is_counted: bool
) -> None:
    error = Diverged("the training loss of epoch 3 is nan")

    def diverges_once(task: TrialTask) -> Iterator[EpochResult]:
        return ends_with(error, after=after)(task) if task.number == 1 else rehearse(task)

    events = study.run(3, trainer=diverges_once)
    assert len(ended(events)) == 3 + (not is_counted)
    assert ended(events)[1].outcome == "diverged"
    assert ended(events)[1].counts == is_counted
    trial = study.record().trials()[1]
    assert (trial.state, trial.reason) == (TrialState.PRUNED, str(error))


@pytest.mark.usefixtures("_nobody_stops")
@pytest.mark.parametrize("error", [MemoryError("no more"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_a_trial_that_runs_out_of_memory_is_rejected(study: Rehearsal, error: Exception) -> None:
    def once(task: TrialTask) -> Iterator[EpochResult]:
        return ends_with(error)(task) if task.number == 1 else rehearse(task)

    events = study.run(2, trainer=once)
    assert [event.outcome for event in ended(events)] == ["complete", "rejected", "complete"]
    trial = study.record().trials()[1]
    assert trial.state is TrialState.PRUNED
    assert str(error) in trial.reason


@pytest.mark.slow
def test_a_search_of_a_finite_space_gives_up_and_says_why(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path, space=FINITE_SPACE)
    events = study.run(50)
    ending = ending_of(events)
    assert ending.num_counted == 9  # three widths for each of two blocks
    assert ending.reason.startswith("gave up after 1,000 trials in a row that were rejected, repeated or failed")
    assert [event.outcome for event in ended(events)][-MAX_UNCOUNTED:] == ["repeated"] * MAX_UNCOUNTED
    # And again at once when it is gone on with.
    again = study.run(50)
    assert not ended(again)
    assert ending_of(again) == ending


class OneFastOneSlow:
    """Two runners in this process, of which runner 0 answers at every fourth call only."""

    num_runners = 2

    def __init__(self, trainer: Trainer) -> None:
        self.executors = [InProcess(trainer), InProcess(trainer)]
        self.num_calls = 0

    def start(self, runner: int, task: TrialTask) -> None:
        self.executors[runner].start(0, task)

    def next_epoch(self, runner: int) -> None:
        self.executors[runner].next_epoch(0)

    def stop(self, runner: int) -> None:
        self.executors[runner].stop(0)

    def answers(self, timeout: float) -> list[tuple[int, Answer]]:
        self.num_calls += 1
        ready = (0, 1) if self.num_calls % 4 == 1 else (1,)
        return [(runner, answer) for runner in ready for _, answer in self.executors[runner].answers(timeout)]


def test_a_search_that_gives_up_while_a_trial_runs_lets_it_end_and_speaks_of_no_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.search.uncounted_trials.MAX_UNCOUNTED", 20)
    first = [{"block": [{}]}]
    space = make_space(name="two", network={"num_blocks": 1}, block={"out_channels": [4, 8]}, first=first)
    study = Rehearsal(tmp_path, space=space)
    events = list(search(study.record(), study.plan(50), OneFastOneSlow(rehearse)))
    numbers = [event.number for event in ended(events)]
    assert numbers.index(0) > 20  # when the slow one ended, the other runner had given up
    assert ended(events)[numbers.index(0)].num_epochs == EPOCHS
    assert all("budget" not in event.reason for event in ended(events))
    assert ending_of(events).num_counted == 2
    assert ending_of(events).reason.startswith("gave up after 20 trials in a row")


# A study that goes on


def test_a_study_is_topped_up_to_a_larger_total(study: Rehearsal) -> None:
    study.run(3)
    before = study.outcome()
    events = study.run(5)
    assert isinstance(events[0], SearchStarted)
    assert events[0].num_counted == 3
    assert [event.number for event in ended(events)] == [3, 4]
    assert study.outcome()[:3] == before


@pytest.mark.parametrize("num_trials", [3, 2])
def test_a_study_that_has_all_it_was_asked_for_starts_nothing(study: Rehearsal, num_trials: int) -> None:
    study.run(3)
    events = study.run(num_trials)
    assert [type(event) for event in events] == [SearchStarted, SearchEnded]
    assert ending_of(events) == SearchEnded(3, "")


@pytest.mark.parametrize("number", [0, 3, 11, 19])
def test_a_study_interrupted_between_two_trials_ends_as_if_it_had_not_been(
    finished: tuple[Rehearsal, list[SearchEvent]], study: Rehearsal, number: int
) -> None:
    events = study.run(24, until=lambda event: isinstance(event, TrialEnded) and event.number == number)
    assert len(ended(events)) == number + 1
    study.run(24)
    assert study.outcome() == finished[0].outcome()


@pytest.mark.parametrize(
    ("number", "epoch"),
    [(0, 3), (12, 0), (12, 2), (12, 5), (13, 0), (13, 2)],  # 12 goes on, 13 is stopped after epoch 2
)
def test_a_study_interrupted_within_a_trial_ends_as_if_it_had_not_been(
    finished: tuple[Rehearsal, list[SearchEvent]], study: Rehearsal, number: int, epoch: int
) -> None:
    def is_there(event: SearchEvent) -> bool:
        if epoch == 0:
            return isinstance(event, TrialStarted) and event.number == number
        return isinstance(event, EpochFinished) and (event.number, event.result.epoch) == (number, epoch)

    events = study.run(24, until=is_there)
    assert is_there(events[-1])
    study.run(24)
    assert study.outcome() == finished[0].outcome()


def test_a_study_run_a_trial_at_a_time_ends_as_if_it_had_been_run_in_one_go(
    finished: tuple[Rehearsal, list[SearchEvent]], study: Rehearsal
) -> None:
    for num_trials in range(1, 25):
        study.run(num_trials)
    assert study.outcome() == finished[0].outcome()


def test_a_study_with_uncounted_trials_goes_on_as_if_it_had_not_been_interrupted(tmp_path: Path) -> None:
    def unlucky(task: TrialTask) -> Iterator[EpochResult]:
        generator = random.Random(task.seed)
        after = generator.randint(0, 3)
        error = generator.choice([ValueError("bad"), Diverged("nan"), MemoryError("full"), None, None])
        return rehearse(task) if error is None else ends_with(error, after=after)(task)

    whole, parts = (Rehearsal(tmp_path, name=name) for name in ("whole", "parts"))
    whole.run(16, trainer=unlucky, memory_bytes=12_000_000.0)
    for last in (4, 9, 13):
        parts.run(
            16,
            trainer=unlucky,
            memory_bytes=12_000_000.0,
            until=lambda event, last=last: isinstance(event, TrialEnded) and event.number == last,  # type: ignore[misc]
        )
    parts.run(16, trainer=unlucky, memory_bytes=12_000_000.0)
    assert parts.outcome() == whole.outcome()
    assert {trial.outcome for trial in whole.record().trials()} >= {"complete", "diverged", "failed", "rejected"}


@pytest.mark.usefixtures("_nobody_stops")
@pytest.mark.parametrize("epoch", [0, 1, 4])
def test_closing_leaves_the_running_trial_waiting_and_the_next_run_takes_it_up_whole(
    study: Rehearsal, epoch: int
) -> None:
    def is_there(event: SearchEvent) -> bool:
        if epoch == 0:
            return isinstance(event, TrialStarted) and event.number == 2
        return isinstance(event, EpochFinished) and event.number == 2 and event.result.epoch == epoch

    study.run(6, until=is_there)
    left = study.record().trials()
    assert [trial.state.name for trial in left] == ["COMPLETE", "COMPLETE", "WAITING"]
    assert len(left[2].curve) == epoch
    events = study.run(6)
    started = [event.number for event in events if isinstance(event, TrialStarted)]
    assert started[0] == 2
    assert ended(events)[0].num_epochs == EPOCHS
    trials = study.record().trials()
    assert len(trials) == 6
    assert trials[2].candidate == left[2].candidate
    assert trials[2].state is TrialState.COMPLETE
    assert not [trial for trial in trials if not trial.state.is_finished()]


def test_a_trial_of_a_process_that_was_killed_is_taken_up(study: Rehearsal) -> None:
    study.run(4, until=lambda event: isinstance(event, TrialStarted) and event.number == 2)
    record = study.record()
    record.trials()
    record.begin_again(2, runner=0)  # as a killed process leaves it: still running
    assert record.trials()[2].state is TrialState.RUNNING
    events = study.run(4)
    assert [event.number for event in ended(events)] == [2, 3]


def test_a_trial_of_another_program_at_the_end_does_not_stop_a_study_for_good(study: Rehearsal) -> None:
    study.run(2)
    foreign = optuna.load_study(study_name=study.name, storage=study.url)
    foreign.tell(foreign.ask(), 0.99)
    events = study.run(3)
    assert [event.number for event in ended(events)] == [3]
    assert ending_of(events) == SearchEnded(3, "")


# Budget and checkpoints


def clock_of(seconds_an_epoch: float) -> tuple[Any, Any]:
    """A clock that only training moves."""
    now = [100.0]

    def train(task: TrialTask) -> Iterator[EpochResult]:
        for result in rehearse(task):
            now[0] += seconds_an_epoch
            yield result

    return train, lambda: now[0]


@pytest.mark.usefixtures("_nobody_stops")
def test_a_budget_ends_the_search_and_stores_what_was_running(study: Rehearsal) -> None:
    train, clock = clock_of(10.0)
    events = study.run(50, trainer=train, clock=clock, budget_seconds=145.0)
    # Two trials of six epochs, then three epochs: 150 seconds is the first moment past the budget.
    assert [event.outcome for event in ended(events)] == ["complete", "complete", "pruned"]
    assert ended(events)[2].num_epochs == 3
    assert ended(events)[2].seconds == 30.0
    assert ended(events)[2].reason == "the time budget is used up"
    assert ending_of(events) == SearchEnded(3, "the time budget is used up")
    assert [trial.state.name for trial in study.record().trials()] == ["COMPLETE", "COMPLETE", "PRUNED"]


def test_a_budget_ends_a_trial_that_still_computes_features_and_it_waits_for_the_next_run(study: Rehearsal) -> None:
    seconds = iter(range(1_000))

    def prepare_for_long(task: TrialTask) -> Iterator[EpochResult | Preparing]:
        for done in range(10_000):
            yield Preparing("computing features", done, 10_000)

    events = study.run(5, trainer=prepare_for_long, clock=lambda: float(next(seconds)), budget_seconds=20.0)
    assert ending_of(events) == SearchEnded(0, "the time budget is used up")
    assert events[2] == TrialPreparing(0, Preparing("computing features", 0, 10_000))
    (trial,) = study.record().trials()
    assert not trial.state.is_finished()
    assert ending_of(study.run(1)) == SearchEnded(1, "")


@pytest.mark.usefixtures("_nobody_stops")
def test_without_a_number_of_trials_only_the_budget_ends_the_search(study: Rehearsal) -> None:
    train, clock = clock_of(10.0)
    events = study.run(None, trainer=train, clock=clock, budget_seconds=60.0 * 5 - 1.0)
    started = events[0]
    assert isinstance(started, SearchStarted)
    assert (started.num_trials, started.budget_seconds) == (None, 299.0)
    assert [event.outcome for event in ended(events)] == ["complete"] * 5
    assert ending_of(events) == SearchEnded(5, "the time budget is used up")


def test_a_search_without_time_left_starts_nothing(study: Rehearsal) -> None:
    events = study.run(50, budget_seconds=0.0)
    assert [type(event) for event in events] == [SearchStarted, SearchEnded]
    assert ending_of(events).reason == "the time budget is used up"


def test_a_study_goes_on_after_its_budget_with_a_new_one(study: Rehearsal) -> None:
    train, clock = clock_of(10.0)
    study.run(5, trainer=train, clock=clock, budget_seconds=145.0)
    assert ending_of(study.run(5, trainer=train, clock=clock, budget_seconds=1e9)) == SearchEnded(5, "")


@pytest.mark.usefixtures("_nobody_stops")
def test_a_trial_taken_up_again_and_stopped_by_a_budget_has_one_score(study: Rehearsal) -> None:
    study.run(1, until=lambda event: isinstance(event, EpochFinished) and event.result.epoch == 4)
    train, clock = clock_of(10.0)
    (end,) = ended(study.run(1, trainer=train, clock=clock, budget_seconds=15.0))
    (trial,) = study.record().trials()
    assert end.num_epochs == end.best_epoch == 2  # of the four before, none counts
    assert (trial.best_epoch, trial.validation_accuracy) == (end.best_epoch, end.validation_accuracy)
    assert list(trial.curve) == [1, 2]


def best_of(trials: list[tuple[float, int]]) -> set[int]:
    return {number for _, number in sorted((-accuracy, number) for accuracy, number in trials)[:NUM_KEPT]}


def kept_in(folder: Path) -> set[int]:
    return {int(path.stem.removeprefix("trial-")) for path in folder.glob("*.pt")}


def test_only_the_checkpoints_of_the_best_and_of_running_trials_are_kept(study: Rehearsal) -> None:
    train = writes_checkpoints(study.study_folder)
    complete: list[tuple[float, int]] = []
    for event in search(study.record(), study.plan(20), InProcess(train), clock=lambda: 0.0):
        if isinstance(event, EpochFinished):
            assert kept_in(study.study_folder) == best_of(complete) | {event.number}
        elif isinstance(event, TrialEnded):
            if event.outcome == "complete":
                complete.append((event.validation_accuracy or 0.0, event.number))
            assert kept_in(study.study_folder) == best_of(complete)
    assert len(complete) > NUM_KEPT
    summary = summarise(study.record(), studies=study.folder)
    assert summary.best is not None
    assert summary.checkpoint == checkpoint_path(study.study_folder, summary.best.number)


def test_a_study_that_goes_on_knows_the_checkpoints_of_its_best(study: Rehearsal) -> None:
    train = writes_checkpoints(study.study_folder)
    for num_trials in (7, 14, 20):
        study.run(num_trials, trainer=train)
    trials = study.record().trials()
    complete = [(trial.validation_accuracy or 0.0, trial.number) for trial in trials if trial.outcome == "complete"]
    assert kept_in(study.study_folder) == best_of(complete)


# Beside the study


LIBRARY_USER = """
import sys
from pathlib import Path
from tests.search.rehearsal import Rehearsal
print(len(Rehearsal(Path(sys.argv[1])).run(2)))
"""


@pytest.mark.slow
def test_a_library_user_is_told_nothing_of_optuna(tmp_path: Path) -> None:
    """In a process of its own: here Optuna is quiet already."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", LIBRARY_USER, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    assert int(done.stdout) > 2


# What optuna-dashboard shows beside a trial is never a reason to end one


@pytest.mark.usefixtures("_nobody_stops")
@pytest.mark.parametrize("broken", ["confusion_picture", "trial_note", "_link"])
def test_a_note_or_a_picture_that_cannot_be_made_ends_no_trial_and_is_reported(
    study: Rehearsal, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fails(*_: object, **__: object) -> str:
        raise ValueError("cannot be drawn\nhere")

    module = "tuner.search.best_trials" if broken == "trial_note" else "tuner.search.dashboard_entries"
    monkeypatch.setattr(f"{module}.{broken}", fails)

    def with_confusion(task: TrialTask) -> Iterator[EpochResult]:
        for result in writes_checkpoints(study.study_folder)(task):
            yield replace(result, confusion=((1, 0), (0, 1)))

    events = study.run(2, trainer=with_confusion)
    assert [event.outcome for event in ended(events)] == ["complete", "complete"]
    assert [event.not_shown for event in ended(events)] == ["ValueError: cannot be drawn"] * 2
    trials = optuna.load_study(study_name=study.name, storage=study.url).trials
    assert [trial.user_attrs["not_shown"] for trial in trials] == ["ValueError: cannot be drawn"] * 2
    view = SearchView()
    told = [new_problem(event, view) for event in events]
    assert [line for line in told if line] == [
        "trial 0 has no note and no pictures in optuna-dashboard: ValueError: cannot be drawn"
    ]


def test_a_folder_of_artifacts_that_cannot_be_written_ends_no_search(study: Rehearsal) -> None:
    (study.folder / ".artifacts").touch()
    events = study.run(2, trainer=writes_checkpoints(study.study_folder))
    assert ending_of(events) == SearchEnded(2, "")
    assert ".artifacts" in next(event.not_shown for event in ended(events) if event.not_shown)
