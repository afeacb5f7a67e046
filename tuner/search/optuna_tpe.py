"""Optuna's TPE over one joint space: all private names of its samplers that this package uses.

Optuna may change a private name in any release. Each is therefore named with its reason here, checked by a test of its
own, and the requirement in pyproject.toml is no wider than the versions that these tests have seen.

TPESampler._parzen_estimator_cls: the class of its density. Ours is several times faster over fifty parameters.
optuna.samplers._tpe.parzen_estimator._ParzenEstimator: the only base that TPESampler accepts for such a class.
TPESampler._get_internal_repr: converts the parameters of all earlier trials; ours converts each trial once.
TPESampler._compute_acquisition_func: how much each candidate promises; ours also looks at what it costs.
TPESampler._sample_relative: what the public `sample_relative` calls before it stores a draw for other processes.
Study._get_trials: where TPESampler reads its trials; ours come from memory, as the sampler should see them.
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
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.search.parzen import JointParzenEstimator, Layout
from tuner.search.storage import quiet_optuna
from tuner.space.sampling import Params, draw

NUM_RANDOM = 10
"""Trials sampled at random before TPE has enough to learn from; Optuna's own default."""
NUM_THRIFTY, NUM_COMPARED = 20, 4
"""So many trials are chosen with an eye on their cost, each the cheapest to train of so many that were drawn."""

Cost = Callable[[Params], float]
"""What training a trial with these parameters takes, in any unit."""


@dataclass
class JointSpace:
    """One joint space, known beforehand, and what a sampler would otherwise work out again for every trial.

    rows: by the number of a finished trial, its parameters as TPE has them, in the order of the space.
    """

    distributions: Mapping[str, BaseDistribution]
    cost: Cost | None = None
    rows: dict[int, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.distributions = dict(sorted(self.distributions.items()))
        self.layout = Layout(self.distributions)


class _JointEstimator(JointParzenEstimator, _ParzenEstimator):
    """Our density as a subclass of Optuna's, which TPESampler insists on."""


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
        self._parzen_estimator_cls = cast("type[_ParzenEstimator]", partial(_JointEstimator, layout=space.layout))

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
            if trial.number not in known:
                values = [one.to_internal_repr(trial.params[name]) for name, one in search_space.items()]
                known[trial.number] = np.array(values)
        rows = np.array([known[trial.number] for trial in trials]).reshape(len(trials), len(search_space))
        return dict(zip(search_space, rows.T, strict=True))


class Mirror(optuna.Study):
    """The study that samplers see: trials by number, as they should see them."""

    def __init__(self) -> None:
        storage = optuna.storages.InMemoryStorage()
        with quiet_optuna():
            storage.create_new_study([StudyDirection.MAXIMIZE], "mirror")
        super().__init__("mirror", storage)
        self.known: dict[int, FrozenTrial] = {}

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        """What every sampler asks for, in the order of the numbers; no sampler changes a trial."""
        return [trial for _, trial in sorted(self.known.items()) if states is None or trial.state in states]
