"""Optuna's TPE over one joint space: all private names of its samplers that this package uses.

Optuna may change a private name in any release. Each one is therefore listed here with its reason and checked by its
own test, and the requirement in pyproject.toml allows only versions that these tests have checked.

TPESampler._parzen_estimator_cls: the class of its density. Ours is several times faster over fifty parameters.
optuna.samplers._tpe.parzen_estimator._ParzenEstimator: the base class that TPESampler requires of this class.
TPESampler._get_internal_repr: converts the parameters of all earlier trials; ours converts each trial once.
TPESampler._compute_acquisition_func: scores the candidates; ours also takes their cost into account.
TPESampler._sample_relative: called by the public `sample_relative`, which then stores the draw for other processes.
Study._get_trials: returns the trials to TPESampler; ours returns them from memory, as the sampler should see them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.trial import FrozenTrial, TrialState

from tuner.search.objective import DIRECTION
from tuner.search.parzen import JointParzenEstimator, Layout
from tuner.search.storage import quiet_optuna
from tuner.space.sampling import Params, draw

NUM_RANDOM = 10
"""Number of trials sampled at random before TPE has enough to learn from; Optuna's own default."""
NUM_THRIFTY, NUM_COMPARED = 20, 4
"""The first NUM_THRIFTY trials take their cost into account: each is the cheapest of NUM_COMPARED proposals."""

Cost = Callable[[Params], float]
"""Function from parameters to the cost of training a trial with them, in any unit."""


@dataclass
class JointSpace:
    """A joint space that is known beforehand, and values that a sampler would otherwise compute again for every trial.

    rows: parameters of finished trials by the trials' numbers, as TPE represents them, in the order of the space.
    """

    distributions: Mapping[str, BaseDistribution]
    cost: Cost | None = None
    rows: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.distributions = dict(sorted(self.distributions.items()))
        self.layout = Layout(self.distributions)


class _JointEstimator(JointParzenEstimator, _ParzenEstimator):
    """Our density as a subclass of Optuna's, which TPESampler requires."""


class JointTPESampler(TPESampler):
    """Multivariate TPE over one joint space that is known beforehand, which can take the cost of trials into account.

    Optuna's own sampler infers the space from every earlier trial, converts all their parameters each time, and
    processes parameters one by one. Without a cost, this sampler draws the same values as Optuna's. With a cost, it
    proposes the cheapest of NUM_COMPARED candidates: at first of random draws, then of the candidates with the highest
    acquisition function. After NUM_THRIFTY trials, only the acquisition function counts. Source: Lee et al., Cost-aware
    Bayesian Optimization (2020): cheap trials early in a search give as much information for less, but the effect of
    the cost must end while time is left.
    """

    def __init__(self, space: JointSpace, *, seed: int, is_thrifty: bool = True) -> None:
        super().__init__(multivariate=True, n_startup_trials=NUM_RANDOM, seed=seed)
        self._space = space
        self._cost = space.cost if is_thrifty else None
        self._generator = random.Random(seed)
        self._parzen_estimator_cls = cast("type[_ParzenEstimator]", partial(_JointEstimator, layout=space.layout))

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the whole space, all of which is sampled in every trial."""
        return dict(self._space.distributions)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Sample every parameter, by TPE once there are enough trials to learn from."""
        # The private method, because the public one also notes each draw in the storage for other processes; here only
        # one process draws.
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
            if trial.number not in known:
                values = [one.to_internal_repr(trial.params[name]) for name, one in search_space.items()]
                known[trial.number] = np.array(values)
        rows = np.array([known[trial.number] for trial in trials]).reshape(len(trials), len(search_space))
        return dict(zip(search_space, rows.T, strict=True))


class Mirror(optuna.Study):
    """The study as samplers should see it: trials by number."""

    def __init__(self) -> None:
        storage = optuna.storages.InMemoryStorage()
        with quiet_optuna():
            storage.create_new_study([DIRECTION], "mirror")
        super().__init__("mirror", storage)
        self.known: dict[int, FrozenTrial] = {}

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """Return the trials in the order of their numbers, as samplers request them; no sampler changes a trial."""
        return [trial for _, trial in sorted(self.known.items()) if states is None or trial.state in states]
