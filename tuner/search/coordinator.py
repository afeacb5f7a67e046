"""The search process, which samples, decides and writes: search(...) -> Iterator[SearchEvent]."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from math import inf
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from tuner.architecture.any_architecture import cost_of, kind_of
from tuner.errors import SpaceError, StudyError
from tuner.search.alike_failures import AlikeFailures
from tuner.search.best_trials import BestTrials
from tuner.search.candidate_limits import CandidateLimits
from tuner.search.dispatch import dispatch
from tuner.search.events import (
    BaselineChosen,
    EpochFinished,
    GivenChanged,
    Outcome,
    SearchEnded,
    SearchEvent,
    SearchStarted,
    TrialEnded,
    TrialLost,
    TrialPreparing,
    TrialStarted,
)
from tuner.search.executors import Executor
from tuner.search.first_candidates import FirstCandidates
from tuner.search.known_candidates import KnownCandidates, KnownTrial
from tuner.search.latencies import BackboneLatencies
from tuner.search.objective import value_of
from tuner.search.record import StudyRecord
from tuner.search.running_trial import RunningTrial
from tuner.search.sampler_and_pruner import Strategy
from tuner.search.search_plan import SearchPlan
from tuner.search.tasks import SearchTask, TrainingEnded, training_seed
from tuner.search.uncounted_trials import UncountedTrials
from tuner.space.baseline import describe_baseline
from tuner.space.sampling import Params, candidate_from, distributions
from tuner.training.candidate import Candidate
from tuner.training.results import EpochResult, Preparing

STATES: dict[Outcome, TrialState] = {"complete": TrialState.COMPLETE, "failed": TrialState.FAIL}
"""Optuna state of each outcome. All other outcomes are stored as PRUNED, which the sampler learns from."""

OUTCOMES: dict[str, Outcome] = {
    "finished": "complete",
    "diverged": "diverged",
    "out of memory": "rejected",
    "failed": "failed",
    "lost": "failed",
}
"""Outcome of a trial by how its training ended."""


def search(
    record: StudyRecord, plan: SearchPlan, executor: Executor, *, clock: Callable[[], float] = time.monotonic
) -> Generator[SearchEvent]:
    """Start or resume a study, and run it until `plan.num_trials` of its trials count, or until its time is up.

    The caller holds the study's lock. If the iterator is closed, running trials wait for the next run.

    Raises SpaceError if all candidates are larger than the space allows, and RunnerError if all trials fail.
    """
    return _Search(record, plan, executor, clock).run()


class _Search:
    """State of one search: what is running, what is known and what remains to be done."""

    def __init__(self, record: StudyRecord, plan: SearchPlan, executor: Executor, clock: Callable[[], float]) -> None:
        self._record, self._plan, self._executor, self._clock = record, plan, executor, clock
        self._distributions: dict[str, BaseDistribution] = distributions(plan.space)
        self._limits = CandidateLimits(plan)
        self._first = FirstCandidates(plan, self._limits)
        self._strategy = Strategy(self._distributions, seed=plan.seed, epochs=plan.epochs, cost=self._limits.work)
        self._running: dict[int, RunningTrial] = {}
        self._unfinished: list[RunningTrial] = []
        self._known = KnownCandidates()
        self._latencies = BackboneLatencies()
        self._best = BestTrials(record, plan.study_folder, plan.class_names)
        self._outcomes: Counter[str] = Counter()
        self._next_number = 0
        self._num_counted = 0
        self._uncounted = UncountedTrials(plan.space.max_parameters)
        self._failures = AlikeFailures()
        self._deadline = clock() + plan.budget_seconds

    def run(self) -> Generator[SearchEvent]:
        self._remember()
        plan = self._plan
        wanted = (
            "as many trials as the time budget allows" if plan.num_trials is None else f"{plan.num_trials:,} trials"
        )
        self._record.write_note(f"A search for {wanted}.")
        yield SearchStarted(
            study=self._record.name,
            num_trials=plan.num_trials,
            num_counted=self._num_counted,
            outcomes=dict(self._outcomes),
            best=self._best.first,
            num_runners=self._executor.num_runners,
            epochs=plan.epochs,
            budget_seconds=plan.budget_seconds,
        )
        try:
            yield from dispatch(self, self._executor)
            yield from self._end_stopped("the time budget is used up")
        except StudyError:
            self._running.clear()  # what cannot be written cannot be put down either; the next run takes it up
            raise
        finally:
            for number in self._running:
                self._record.leave(number)
        self._record.write_note(self._result())
        if self._uncounted.is_space_too_large and self._best.first is None:
            raise SpaceError(f"space {plan.space.name!r}: {self._uncounted.reason}")
        yield SearchEnded(self._num_counted, self._why_it_ended())

    def _remember(self) -> None:
        """Rebuild the state of the search from the record, in the order of the trials."""
        trials = self._record.trials()
        self._next_number = self._record.num_stored
        for trial in trials:
            self._first.remember(trial)
            self._failures.has_trained |= bool(trial.curve)
            if not trial.state.is_finished():
                params = self._strategy.propose(trial.number, dict(trial.params))
                self._unfinished.append(RunningTrial(trial.number, trial.candidate, params, self._clock()))
                self._known.begin(trial.candidate.fingerprint, KnownTrial(trial.number, {}, trial.state))
                continue
            own = KnownTrial(trial.number, trial.curve, trial.state)
            self._learn(own, trial.candidate, dict(trial.params), is_repeated=trial.outcome == "repeated")
            self._count(trial.counts, trial.num_parameters)
            self._outcomes[trial.outcome or "failed"] += 1
            self._latencies.shared(trial.candidate.architecture, trial.latency_ms)
            if trial.state is TrialState.COMPLETE and trial.validation_accuracy is not None:
                self._best.add(trial.number, trial.candidate, trial.validation_accuracy, trial.best_epoch or 0)

    def next_task(self, runner: int) -> Generator[SearchEvent, None, SearchTask | None]:
        """Return the next trial to train, if more are wanted: an unfinished one, or a new candidate."""
        while self._wants_more():
            running: RunningTrial | None
            if self._unfinished:
                running = self._unfinished.pop(0)
                self._record.begin_again(running.number, runner=runner)
                running.started = self._clock()
            else:
                running = yield from self._propose(runner)
            if running is not None:
                candidate = running.candidate
                self._running[running.number] = running
                num_parameters = cost_of(candidate.architecture).num_parameters
                yield TrialStarted(running.number, candidate, num_parameters, runner)
                return SearchTask(running.number, candidate, training_seed(self._plan.seed, candidate))
        return None

    def is_over(self) -> bool:
        """Whether the time budget is used up."""
        return self._clock() >= self._deadline

    def _propose(self, runner: int) -> Generator[SearchEvent, None, RunningTrial | None]:
        """Sample and store the next candidate; return its trial, unless it cannot or need not be trained."""
        plan, number = self._plan, self._next_number
        baseline = self._first.begin_baseline(number)
        if baseline is None:
            given = self._first.next_given(self._num_missing)
            if given is not None and given.changes:
                yield GivenChanged(number, given.changes)
            params = self._strategy.propose(number, None if given is None else given.params)
            candidate = candidate_from(params, plan.space, plan.input_spec, epochs=plan.epochs)
        else:
            params, candidate = self._strategy.propose(number, baseline.params or {}), baseline.candidate
            self._first.remove(params)
            if baseline.changes or baseline.origin == "family":
                yield BaselineChosen(number, describe_baseline(baseline.to_json()))
        self._next_number += 1
        cost = cost_of(candidate.architecture)
        excess, too_large = self._limits.excess(candidate)
        stored = self._record.begin(
            candidate,
            params,
            self._distributions if params else {},
            {
                "num_parameters": cost.num_parameters,
                "flops": cost.flops,
                "architecture": str(candidate.architecture),
                "runner": runner,
                **({} if baseline is None else {"baseline": baseline.to_json()}),
            },
            constraint=excess,
        )
        if stored != number:
            raise StudyError(
                f"study {self._record.name!r} got trial {stored} where {number} was due: another program writes to it; "
                "stop that, or start another study with --study NAME"
            )
        running = RunningTrial(number, candidate, params, self._clock())
        known = self._known.find(candidate.fingerprint)
        if too_large:
            yield self._end(running, "rejected", too_large)
        elif known is not None:
            yield self._end(running, "repeated", f"the same candidate as trial {known.number}")
        else:
            self._known.begin(candidate.fingerprint, KnownTrial(number, running.curve, TrialState.RUNNING))
            return running
        return None

    def wants_next_epoch(self, task: SearchTask, result: EpochResult) -> bool:
        """Record an epoch, and apply the stopping rule."""
        running = self._running[task.number]
        running.take(result)
        self._failures.has_trained = True
        kind = kind_of(running.candidate.architecture)
        reason = self._strategy.reason_to_stop(running.number, running.curve, kind=kind)
        if running.number != self._first.baseline_number:  # a comparison needs all of the baseline's epochs
            running.reason_to_stop = reason
        return not running.reason_to_stop

    def take_epoch(self, task: SearchTask, result: EpochResult) -> Iterator[SearchEvent]:
        """Store an epoch, and the end of the trial if it was stopped after this epoch."""
        running = self._running[task.number]
        self._record.report(running.number, result.epoch, value_of(result))
        yield EpochFinished(running.number, result)
        if running.reason_to_stop:
            del self._running[running.number]
            yield self._end(running, "pruned", running.reason_to_stop)

    def take_preparing(self, task: SearchTask, progress: Preparing) -> Iterator[SearchEvent]:
        """Report the progress of a trial before its first epoch."""
        yield TrialPreparing(task.number, progress)

    def take_lost(self, task: SearchTask, ended: TrainingEnded) -> Iterator[SearchEvent]:
        """Put a trial whose process died back into the queue, to be trained from scratch."""
        running = self._running.pop(task.number)
        self._record.leave(running.number)
        self._unfinished.append(RunningTrial(running.number, running.candidate, running.params, self._clock()))
        yield TrialLost(running.number, ended.reason)

    def take_end(self, task: SearchTask, ended: TrainingEnded) -> Iterator[SearchEvent]:
        """Store the end of a trial that its runner has finished."""
        running, outcome = self._running.pop(task.number), OUTCOMES[ended.kind]
        yield self._end(running, outcome, ended.reason, details=ended.details)
        if ended.kind == "out of memory" and running.number == self._first.baseline_number:
            self._first.give_smaller_baseline(running.candidate.fingerprint)
        self._failures.refuse_alike(outcome, ended.reason)

    def _end_stopped(self, reason: str) -> Iterator[SearchEvent]:
        """End the trials that ran when the search stopped, if they have an epoch; the others wait for the next run."""
        for running in list(self._running.values()):
            if running.curve:
                del self._running[running.number]
                is_done = len(running.curve) == self._plan.epochs
                yield self._end(running, "complete" if is_done else "pruned", "" if is_done else reason)

    def _end(self, running: RunningTrial, outcome: Outcome, reason: str, *, details: str = "") -> TrialEnded:
        """Store a trial's end, report it to the sampler, and delete checkpoints that are no longer among the best."""
        number, curve = running.number, running.curve
        self._failures.end(outcome)
        best_epoch, accuracy = running.best_epoch, running.accuracy
        seconds = self._clock() - running.started
        state = STATES.get(outcome, TrialState.PRUNED)
        attributes: dict[str, Any] = {
            "outcome": outcome,
            "reason": reason,
            "seconds": seconds,
            "num_epochs": len(curve),
        }
        if details:
            attributes["details"] = details
        if best_epoch is not None:
            attributes |= {"best_epoch": best_epoch, "best_validation_accuracy": accuracy}
        attributes |= running.class_attributes(self._plan.class_names)
        running.latency_ms = self._latencies.shared(running.candidate.architecture, running.latency_ms)
        if running.latency_ms is not None:
            attributes["latency_ms"] = running.latency_ms
        if state is TrialState.COMPLETE and accuracy is not None:
            self._best.add(number, running.candidate, accuracy, best_epoch or 0)
        shown = self._best.shown(running, outcome, reason)
        if shown.problem:
            attributes["not_shown"] = shown.problem
        self._record.end(number, state, attributes, validation_accuracy=accuracy, shown=shown)
        own = KnownTrial(number, curve, state)
        self._learn(own, running.candidate, running.params, is_repeated=outcome == "repeated")
        self._best.clean_up(number)
        ended = TrialEnded(
            number,
            outcome,
            reason,
            best_epoch,
            accuracy,
            len(running.curve),
            seconds,
            self._best.first,
            not_shown=shown.problem,
        )
        self._count(ended.counts, cost_of(running.candidate.architecture).num_parameters)
        return ended

    def _learn(self, trial: KnownTrial, candidate: Candidate, params: Params, *, is_repeated: bool) -> None:
        """Report to the sampler how a trial ended; a repeated trial has the result that its candidate had before."""
        learned = self._known.end(candidate.fingerprint, trial, is_repeated=is_repeated)
        kind = kind_of(candidate.architecture)
        self._strategy.learn(
            trial.number, params, learned.curve, state=learned.state, is_repeated=is_repeated, kind=kind
        )

    def _count(self, counts: bool, num_parameters: int) -> None:
        self._num_counted += counts
        self._uncounted.add(counts=counts, num_parameters=num_parameters)

    def _wants_more(self) -> bool:
        if self._uncounted.has_given_up or self._clock() >= self._deadline:
            return False
        return self._num_missing > 0

    @property
    def _num_missing(self) -> float:
        """How many trials are still to be started; infinite if only the time budget limits them."""
        wanted = inf if self._plan.num_trials is None else self._plan.num_trials
        return wanted - self._num_counted - len(self._running)

    def _result(self) -> str:
        best = self._best.first
        if best is None:
            return f"{self._num_counted:,} trials, none of them complete."
        return (
            f"Of {self._num_counted:,} trials, trial {best.number} has the best validation accuracy: "
            f"{best.validation_accuracy:.2%} in epoch {best.epoch}."
        )

    def _why_it_ended(self) -> str:
        if self._plan.num_trials is not None and self._num_counted >= self._plan.num_trials:
            return ""
        if self._uncounted.has_given_up:
            return self._uncounted.reason
        return "the time budget is used up"
