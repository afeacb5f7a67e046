"""The sampler's view of the study, and the rule that stops weak trials."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from typing import Any, cast

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.trial import FrozenTrial, TrialState

from tuner.search.objective import BELOW_ALL, DIRECTION, best_value, is_better, rank_key
from tuner.search.parzen import JointParzenEstimator, Layout
from tuner.search.storage import quiet_optuna
from tuner.space.sampling import Params, draw
from tuner.training.seeds import derive_seed

NUM_RANDOM = 10
"""Trials sampled at random before TPE has enough to learn from; Optuna's own default."""
MAX_SEEN, KEPT_BEST, KEPT_LATEST = 250, 50, 100
"""Trials that the sampler learns from at most; which it keeps when there are so many."""
NUM_THRIFTY, NUM_COMPARED = 20, 4
"""So many trials are chosen with an eye on their cost, each the cheapest to train of so many that were drawn."""
ETA = 3
"""One in so many goes on at a rung, and rungs lie this factor of epochs apart."""

Cost = Callable[[Params], float]
"""What training a trial with these parameters takes, in any unit."""


@dataclass
class JointSpace:
    """One joint space, known beforehand, and what a sampler would otherwise work out again for every trial.

    rows: by the id of a finished trial, its parameters as TPE has them, in the order of the space.
    """

    distributions: Mapping[str, BaseDistribution]
    cost: Cost | None = None
    rows: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.distributions = dict(sorted(self.distributions.items()))
        self.layout = Layout(self.distributions)


class JointTPESampler(TPESampler):
    """Multivariate TPE over one joint space that is known beforehand, with an eye on what a trial costs.

    Optuna's own infers the space from every earlier trial, converts all their parameters each time, and goes
    through them one by one. Without a cost, it draws what Optuna's draws. With one, it proposes the cheapest of
    NUM_COMPARED: at first of random draws, then of those of TPE's candidates that promise the greatest improvement;
    after NUM_THRIFTY trials the promise alone decides. Source: Lee et al., Cost-aware Bayesian Optimization (2020):
    cheap trials first tell as much for less, and the eye on the cost must close while there is time left.
    """

    def __init__(self, space: JointSpace, *, seed: int, is_thrifty: bool = True) -> None:
        super().__init__(multivariate=True, n_startup_trials=NUM_RANDOM, seed=seed)
        self._space = space
        self._cost = space.cost if is_thrifty else None
        self._generator = random.Random(seed)
        self._parzen_estimator_cls = cast("type[_ParzenEstimator]", partial(JointParzenEstimator, layout=space.layout))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The whole space; all of it is sampled in every trial."""
        return dict(self._space.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Every parameter, by TPE once there is enough to learn from."""
        # What lies around it notes a draw in the storage, for other processes; here one process draws.
        sampled = self._sample_relative(study, trial, search_space)
        if sampled or self._cost is None:
            return sampled
        return min((draw(search_space, self._generator) for _ in range(NUM_COMPARED)), key=self._cost)

    def _compute_acquisition_func(
        self, samples: dict[str, NDArray[np.float64]], mpe_below: _ParzenEstimator, mpe_above: _ParzenEstimator
    ) -> NDArray[np.float64]:
        promising = super()._compute_acquisition_func(samples, mpe_below, mpe_above)
        if self._cost is None:
            return promising
        best = np.argsort(-promising, kind="stable")[:NUM_COMPARED]
        params = (
            {name: one.to_external_repr(samples[name][at].item()) for name, one in self._space.distributions.items()}
            for at in best
        )
        cheapest = min(zip(best, map(self._cost, params), strict=True), key=lambda pair: pair[1])[0]
        return np.where(np.arange(len(promising)) == cheapest, np.inf, promising)

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: dict[str, BaseDistribution], study: optuna.Study
    ) -> dict[str, NDArray[np.float64]]:
        known = self._space.rows
        for trial in trials:
            if trial._trial_id not in known:
                values = [one.to_internal_repr(trial.params[name]) for name, one in search_space.items()]
                known[trial._trial_id] = np.array(values)
        rows = np.array([known[trial._trial_id] for trial in trials]).reshape(len(trials), len(search_space))
        return dict(zip(search_space, rows.T, strict=True))


class Mirror(optuna.Study):
    """The study that samplers see: trials by number, as they should see them."""

    def __init__(self) -> None:
        storage = optuna.storages.InMemoryStorage()
        with quiet_optuna():
            storage.create_new_study([DIRECTION], "mirror")
        super().__init__("mirror", storage)
        self.known: dict[int, FrozenTrial] = {}

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """What every sampler asks for, in the order of the numbers; no sampler changes a trial."""
        return [trial for _, trial in sorted(self.known.items()) if states is None or trial.state in states]


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
