"""The sampler with its view of the study, and the rule that stops weak trials."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from tuner.search.objective import BELOW_ALL, best_value, is_better, rank_key
from tuner.search.optuna_tpe import NUM_THRIFTY, Cost, JointSpace, JointTPESampler, Mirror
from tuner.space.sampling import Params
from tuner.training.seeds import derive_seed

MAX_SEEN, KEPT_BEST, KEPT_LATEST = 250, 50, 100
"""Number of trials at which the sampler forgets some, and how many of the best and of the latest it then keeps."""
ETA = 3
"""One in this many trials continues after a rung, and the epochs of neighbouring rungs differ by this factor."""

MIN_COMPARED, DEARER_ARE_BETTER = 6, 0.3
"""Number of trials, and rank correlation of their costs and accuracies, above which cheap ones are not preferred."""


class Rung:
    """The best accuracy of every trial that has reached an epoch, by the kind of its network."""

    def __init__(self) -> None:
        self._by_kind: dict[str, dict[int, float]] = {}

    def of_kind(self, kind: str) -> dict[int, float]:
        """Accuracy by trial, for networks of a kind."""
        return self._by_kind.setdefault(kind, {})

    def of_all(self) -> dict[int, float]:
        """Accuracy by trial, for all networks."""
        return {number: accuracy for there in self._by_kind.values() for number, accuracy in there.items()}


class Strategy:
    """Proposes parameters and decides which trials continue.

    The sampler sees a mirror of the study that is built from the record. It contains what the record cannot: the best
    epoch of a stopped trial instead of its last, and the known result of a repeated trial. Each trial is sampled with
    its own seed, so that an interrupted study resumes with the same trials.

    TPE becomes slower with every trial that it has seen. When it has seen MAX_SEEN trials, it forgets all but the
    KEPT_BEST best, which it samples from, and the KEPT_LATEST latest.

    cost: function for the cost of training a trial with given parameters; without it, all trials cost the same.
    """

    def __init__(
        self, distributions: Mapping[str, BaseDistribution], *, seed: int, epochs: int, cost: Cost | None = None
    ) -> None:
        self._space = JointSpace(distributions, cost)
        self._distributions = dict(distributions)
        self._seed = seed
        self._rungs = {epoch: Rung() for epoch in rungs(epochs)}
        self._mirror = Mirror()

    def propose(self, number: int, params: Params | None = None) -> Params:
        """Return a value of every parameter for the trial with this number, which runs from now on: `params` if given.

        The sampler does not see parameters outside the space, such as those of a baseline that is not in it.
        """
        if params is None:
            new = _as_running(number, {}, {})
            sampler = self._sampler(number)
            sampled = sampler.sample_relative(self._mirror, new, sampler.infer_relative_search_space(self._mirror, new))
            params = {
                name: sampled[name] if name in sampled else sampler.sample_independent(self._mirror, new, name, one)
                for name, one in self._distributions.items()
            }
        if self._is_in_space(params):
            self._mirror.known[number] = _as_running(number, params, self._distributions)
        return params

    def _is_in_space(self, params: Params) -> bool:
        return set(params) == set(self._distributions)

    def learn(
        self,
        number: int,
        params: Params,
        curve: Mapping[int, float],
        *,
        state: TrialState,
        is_repeated: bool = False,
        kind: str = "",
    ) -> None:
        """Record how a trial ended, in this run or an earlier one.

        curve: its validation accuracy by epoch. A trial without the parameters of the space counts at the rungs, but
        the sampler does not see it. is_repeated: whether the curve is that of an earlier trial of the same candidate;
        the sampler sees such a trial, but it does not count at the rungs, where its candidate would count twice. kind:
        as in `reason_to_stop`.
        """
        for epoch, rung in self._rungs.items():
            if epoch in curve and not is_repeated:
                best = best_value((value for at, value in curve.items() if at <= epoch), default=BELOW_ALL)
                rung.of_kind(kind)[number] = best
        if not self._is_in_space(params):
            return
        known = self._mirror.known
        known[number] = self._as_ended(number, params, curve, state)
        ended = [other for other, trial in known.items() if trial.state.is_finished()]
        if len(ended) >= MAX_SEEN:
            self._forget(ended)

    def _as_ended(self, number: int, params: Params, curve: Mapping[int, float], state: TrialState) -> FrozenTrial:
        """Return a trial as the sampler sees it: complete or stopped with the accuracy of its best epoch, or failed."""
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
        """Keep only the best and the latest of the ended trials, and the running ones."""
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
                is_thrifty=number < NUM_THRIFTY and not self._dearer_are_better(),
            )

    def _dearer_are_better(self) -> bool:
        """Whether trials that cost more were more accurate at the first rung, by rank correlation.

        Cheap trials are then no bargain. Of 32 networks of each space, drawn and trained by `benchmarks spaces`, the
        cheapest of four were better for the same time in `mobile` (by 2 points), and worse in `resnet` (by 2 points).
        """
        cost, there = self._space.cost, self._rungs[min(self._rungs)].of_all() if self._rungs else {}
        known = [(number, self._mirror.known[number]) for number in there if number in self._mirror.known]
        if cost is None or len(known) < MIN_COMPARED:
            return False
        costs, accuracies = ([cost(trial.params) for _, trial in known], [there[number] for number, _ in known])
        if len(set(costs)) == 1 or len(set(accuracies)) == 1:
            return False
        return bool(np.corrcoef(_ranks(costs), _ranks(accuracies))[0, 1] > DEARER_ARE_BETTER)

    def reason_to_stop(self, number: int, curve: Mapping[int, float], *, kind: str = "") -> str:
        """Why a trial should stop after its last epoch; empty if it should continue.

        Rule: at every rung, a trial continues if its best accuracy so far is among the best third (rounded up) of all
        trials of its kind that have reached the rung, itself included. Source: asynchronous successive halving in its
        stopping variant (Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020), with an eta of 3.

        kind: of the network, if networks learn at speeds that differ by kind, in the plural for the reason.
        """
        epoch, best = max(curve), best_value(curve.values(), default=BELOW_ALL)
        if epoch not in self._rungs:
            return ""
        there = self._rungs[epoch].of_kind(kind)
        there[number] = best
        place = 1 + sum(is_better(value, best) for value in there.values())
        num_going_on = ceil(len(there) / ETA)
        if place <= num_going_on:
            return ""
        of_kind = f" {kind}" if kind else ""
        who = "the best continues" if num_going_on == 1 else f"the top {num_going_on} continue"
        return f"best accuracy {best:.2%} after epoch {epoch}: ranked {place} of {len(there)}{of_kind}; {who}"


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


def _ranks(values: Sequence[float]) -> NDArray[np.int64]:
    """Rank of each value, from 0; equal values have the same."""
    return np.unique(values, return_inverse=True)[1]


def _best_accuracy(trial: FrozenTrial) -> float:
    """Accuracy of a trial as the sampler knows it; below all accuracies if it has none."""
    return best_value(trial.intermediate_values.values(), default=BELOW_ALL) if trial.value is None else trial.value


def rungs(epochs: int) -> tuple[int, ...]:
    """Return the epochs after which trials are compared: a third of all, a ninth, ...; at least one if possible."""
    found: list[int] = []
    share = epochs / ETA
    while share >= 1:
        found.insert(0, round(share))
        share /= ETA
    return tuple(found) or ((1,) if epochs > 1 else ())
