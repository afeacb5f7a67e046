import random

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.trial import TrialState, create_trial

from tests.strategies import ALL_SPACES, make_space
from tuner.search.optuna_tpe import JointSpace, JointTPESampler
from tuner.search.parzen import JointParzenEstimator
from tuner.space.sampling import Params, distributions, draw

CHOICES = make_space(name="choices", block={"out_channels": [4, 8], "kernel_size": [1, 3, 5]})
NUMBERS = make_space(
    name="numbers", block={"out_channels": {"low": 1, "high": 9}, "dropout": {"low": 0.0, "high": 0.5}}
)
SPACES = {**ALL_SPACES, CHOICES.name: CHOICES, NUMBERS.name: NUMBERS}
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def columns(params: list[Params], space: dict[str, BaseDistribution]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array([one.to_internal_repr(each[name]) for each in params], float) for name, one in space.items()}


@given(st.sampled_from(sorted(SPACES)), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_draws_and_densities_are_those_of_optunas_own_estimator(name: str, num_seen: int, seed: int) -> None:
    generator = random.Random(seed)
    space = dict(sorted(distributions(SPACES[name]).items()))
    seen, anywhere = ([draw(space, generator) for _ in range(count)] for count in (num_seen, 24))
    parameters = TPESampler(multivariate=True)._parzen_estimator_parameters
    theirs, ours = (one(columns(seen, space), space, parameters) for one in (_ParzenEstimator, JointParzenEstimator))
    drawn, drawn_too = (one.sample(np.random.RandomState(seed), 24) for one in (theirs, ours))
    for key, one in space.items():
        assert drawn_too[key] == pytest.approx(drawn[key], rel=1e-6, abs=1e-9)
        assert all(one._contains(value) for value in drawn_too[key])
    # Also at points that another estimator drew, far from this one's kernels.
    for samples in (drawn, columns(anywhere, space)):
        assert ours.log_pdf(samples) == pytest.approx(theirs.log_pdf(samples), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_without_a_cost_the_sampler_proposes_what_optunas_own_proposes(name: str) -> None:
    space = distributions(SPACES[name])
    generator = random.Random(0)
    seen = []
    for _ in range(60):
        state = generator.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING])
        is_complete, accuracy = state is TrialState.COMPLETE, generator.random()
        ending = {"value": accuracy} if is_complete else {"intermediate_values": {1: accuracy}}
        seen.append(create_trial(state=state, params=draw(space, generator), distributions=space, **ending))
    for seed in range(5):
        proposed = []
        for sampler in (TPESampler(multivariate=True, seed=seed), JointTPESampler(JointSpace(space), seed=seed)):
            study = optuna.create_study(direction="maximize", sampler=sampler)
            study.add_trials(seen)
            params = study.ask(space).params
            proposed.append({key: one.to_internal_repr(params[key]) for key, one in space.items()})
        theirs, ours = proposed
        assert ours == pytest.approx(theirs, rel=1e-6)
