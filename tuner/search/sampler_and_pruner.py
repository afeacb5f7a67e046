"""The sampler's view of the study, and the rule that stops weak trials."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import ceil

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from tuner.search.objective import BELOW_ALL, best_value, is_better, rank_key
from tuner.search.optuna_tpe import NUM_THRIFTY, Cost, JointSpace, JointTPESampler, Mirror
from tuner.space.sampling import Params
from tuner.training.seeds import derive_seed

MAX_SEEN, KEPT_BEST, KEPT_LATEST = 250, 50, 100
"""Trials that the sampler learns from at most; which it keeps when there are so many."""
ETA = 3
"""One in so many goes on at a rung, and rungs lie this factor of epochs apart."""


class Strategy:
    """Proposes parameters and decides who goes on.

    The sampler sees a mirror of the study that is built from the record and can be told what the record cannot express:
    a stopped trial's best epoch instead of its last, a repeated trial's known result. Each trial is sampled from a seed
    of its own, so that a study that was interrupted resumes with the same trials.

    TPE grows slower with every trial that it has seen. When it has seen MAX_SEEN, it forgets all but the best
    KEPT_BEST, which are what it samples from, and the KEPT_LATEST latest.

    cost: of training a trial with given parameters; without it, all cost the same.
    """

    def __init__(
        self, distributions: Mapping[str, BaseDistribution], *, seed: int, epochs: int, cost: Cost | None = None
    ) -> None:
        self._space = JointSpace(distributions, cost)
        self._distributions = dict(distributions)
        self._seed = seed
        self._rungs: dict[int, dict[int, float]] = {epoch: {} for epoch in rungs(epochs)}
        self._mirror = Mirror()

    def propose(self, number: int, params: Params | None = None) -> Params:
        """A value of every parameter for the trial of this number, which runs from now on: `params` if given.

        The sampler does not see parameters that are not those of the space, as of a baseline outside it.
        """
        if params is None:
            new = _as_running(number, {}, {})
            sampler = self._sampler(number)
            sampled = sampler.sample_relative(self._mirror, new, sampler.infer_relative_search_space(self._mirror, new))
            params = {
                name: sampled[name] if name in sampled else sampler.sample_independent(self._mirror, new, name, one)
                for name, one in self._distributions.items()
            }
        if self._lies_in_space(params):
            self._mirror.known[number] = _as_running(number, params, self._distributions)
        return params

    def _lies_in_space(self, params: Params) -> bool:
        return set(params) == set(self._distributions)

    def learn(self, number: int, params: Params, curve: Mapping[int, float], *, state: TrialState) -> None:
        """Tell the sampler how a trial ended, in this run or an earlier one.

        curve: its validation accuracy by epoch. A trial without the space's parameters is compared with at the rungs,
        and the sampler does not see it.
        """
        for epoch, there in self._rungs.items():
            if epoch in curve:
                there[number] = best_value((value for at, value in curve.items() if at <= epoch), default=BELOW_ALL)
        if not self._lies_in_space(params):
            return
        known = self._mirror.known
        known[number] = self._as_ended(number, params, curve, state)
        ended = [other for other, trial in known.items() if trial.state.is_finished()]
        if len(ended) >= MAX_SEEN:
            self._forget(ended)

    def _as_ended(self, number: int, params: Params, curve: Mapping[int, float], state: TrialState) -> FrozenTrial:
        """A trial as the sampler sees it: complete or stopped with its best epoch's accuracy, or failed."""
        complete = state is TrialState.COMPLETE and bool(curve)
        if state is not TrialState.FAIL:
            state = TrialState.COMPLETE if complete else TrialState.PRUNED
        trial = _as_running(number, params, self._distributions)
        trial.state = state
        best = best_value(curve.values(), default=BELOW_ALL)
        if complete:
            trial.value = best
        elif curve:
            trial.intermediate_values = {max(curve): best}
        return trial

    def _forget(self, ended: Sequence[int]) -> None:
        """Keep the best and the latest of the trials that have ended, and those that run."""
        known, rows = self._mirror.known, self._space.rows
        ranked = sorted(ended, key=lambda number: rank_key(_best_accuracy(known[number]), number))
        for number in set(ended) - {*ranked[:KEPT_BEST], *sorted(ended)[-KEPT_LATEST:]}:
            del known[number]
            rows.pop(number, None)

    def _sampler(self, number: int) -> TPESampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return JointTPESampler(
                self._space,
                seed=derive_seed(self._seed, "sampler", number) % 2**32,
                is_thrifty=number < NUM_THRIFTY,
            )

    def reason_to_stop(self, number: int, curve: Mapping[int, float]) -> str:
        """Why a trial should not go on after its last epoch; empty when it should.

        The rule: at every rung, a trial goes on if its best accuracy so far is among the best third (rounded up) of all
        trials that have got there, itself included. Source: asynchronous successive halving in its stopping variant
        (Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020), with an eta of 3.
        """
        epoch, best = max(curve), best_value(curve.values(), default=BELOW_ALL)
        if epoch not in self._rungs:
            return ""
        there = self._rungs[epoch]
        there[number] = best
        place = 1 + sum(is_better(value, best) for value in there.values())
        num_going_on = ceil(len(there) / ETA)
        if place <= num_going_on:
            return ""
        who = "the best continues" if num_going_on == 1 else f"the top {num_going_on} continue"
        return f"best accuracy {best:.2%} after epoch {epoch}: ranked {place} of {len(there)}; {who}"


def _as_running(number: int, params: Params, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params=params,
        distributions=dict(distributions),
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def _best_accuracy(trial: FrozenTrial) -> float:
    """What the sampler was told of a trial; below all accuracies where it was told of none."""
    return best_value(trial.intermediate_values.values(), default=BELOW_ALL) if trial.value is None else trial.value


def rungs(epochs: int) -> tuple[int, ...]:
    """The epochs after which trials are compared: a third of all, a ninth, and so on; at least one if there can be."""
    found: list[int] = []
    share = epochs / ETA
    while share >= 1:
        found.insert(0, round(share))
        share /= ETA
    return tuple(found) or ((1,) if epochs > 1 else ())
