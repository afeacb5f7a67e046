"""The sampler's view of the study, and the rule that stops weak trials."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping
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
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

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
    """One joint space, known beforehand, and what a sampler would otherwise work out anew for every trial.

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

    Optuna's own infers the space from every earlier trial, converts all their parameters anew each time, and goes
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
        sampled = super().sample_relative(study, trial, search_space)
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


class Strategy:
    """Proposes parameters and decides who goes on.

    The sampler sees a study in memory that is built from the record and can be told what the record cannot express: a
    stopped trial's best epoch instead of its last, a repeated trial's known result. Each trial is sampled from a seed
    of its own, so that a study that was interrupted goes on with the same trials.

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
        self._epochs = epochs
        self._curves: dict[int, dict[int, float]] = {}
        self._open: dict[int, Trial] = {}
        self._seen: dict[int, FrozenTrial] = {}
        self._mirror = self._new_mirror()

    def propose(self, number: int, params: Mapping[str, Any] | None = None) -> Trial:
        """The mirror's next trial, its parameters still to be suggested, or fixed to `params`."""
        self._mirror.sampler = self._sampler(number)
        if params is not None:
            self._mirror.enqueue_trial(dict(params))
        trial = self._mirror.ask()
        self._open[number] = trial
        return trial

    def learn(self, number: int, curve: Mapping[int, float], *, state: TrialState) -> None:
        """Tell the sampler how a proposed trial ended; `curve` is its validation accuracy by epoch."""
        trial = self._open.pop(number)
        seen = self._as_seen(trial.params, curve, state)
        # What Study.tell does, without its checks and copies of fifty distributions.
        storage = self._mirror._storage
        for step, value in seen.intermediate_values.items():
            storage.set_trial_intermediate_value(trial._trial_id, step, value)
        storage.set_trial_state_values(trial._trial_id, seen.state, None if seen.value is None else [seen.value])
        self._keep(number, curve, seen)

    def remember(self, params: Mapping[str, Any], number: int, curve: Mapping[int, float], state: TrialState) -> None:
        """Take over a trial that ended in an earlier run, as `propose` and `learn` would have left it."""
        seen = self._as_seen(params, curve, state)
        self._mirror.add_trial(seen)
        self._keep(number, curve, seen)

    def _as_seen(self, params: Mapping[str, Any], curve: Mapping[int, float], state: TrialState) -> FrozenTrial:
        """A trial as the sampler is told of it: complete or stopped with its best epoch's accuracy, or failed."""
        complete = state is TrialState.COMPLETE and bool(curve)
        if state is not TrialState.FAIL:
            state = TrialState.COMPLETE if complete else TrialState.PRUNED
        return create_trial(
            state=state,
            value=max(curve.values()) if complete else None,
            params=dict(params),
            distributions=self._distributions,
            intermediate_values={max(curve): max(curve.values())} if curve and not complete else {},
        )

    def _keep(self, number: int, curve: Mapping[int, float], seen: FrozenTrial) -> None:
        self._curves[number] = dict(curve)
        self._seen[number] = seen
        if len(self._seen) >= MAX_SEEN:
            self._forget()

    def _forget(self) -> None:
        """Give the sampler a new mirror with the best and the latest trials, and with those that are running."""
        ranked = sorted(self._seen, key=lambda number: (-max(self._curves[number].values(), default=-1.0), number))
        kept = sorted({*ranked[:KEPT_BEST], *sorted(self._seen)[-KEPT_LATEST:]})
        self._seen = {number: self._seen[number] for number in kept}
        self._space.rows.clear()
        self._mirror = self._new_mirror()
        for seen in self._seen.values():
            self._mirror.add_trial(seen)
        for number, trial in self._open.items():
            running = create_trial(
                state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions, value=None
            )
            self._mirror.add_trial(running)
            self._open[number] = Trial(self._mirror, self._mirror.get_trials(deepcopy=False)[-1]._trial_id)

    def _new_mirror(self) -> optuna.Study:
        with quiet_optuna():
            return optuna.create_study(direction="maximize", sampler=self._sampler(0))

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
        self._curves[number] = dict(curve)
        epoch = max(curve)
        if epoch not in rungs(self._epochs):
            return ""
        there = [
            max(accuracy for at, accuracy in other.items() if at <= epoch)
            for other in self._curves.values()
            if epoch in other
        ]
        best = max(curve.values())
        rank = 1 + sum(accuracy > best for accuracy in there)
        num_going_on = ceil(len(there) / ETA)
        if rank <= num_going_on:
            return ""
        return f"best accuracy {best:.2%} after epoch {epoch}: place {rank} of {len(there)}, where {num_going_on} go on"


def rungs(epochs: int) -> tuple[int, ...]:
    """The epochs after which trials are compared: a third of all, a ninth, and so on; at least one if there can be."""
    found: list[int] = []
    share = epochs / ETA
    while share >= 1:
        found.insert(0, round(share))
        share /= ETA
    return tuple(found) or ((1,) if epochs > 1 else ())
