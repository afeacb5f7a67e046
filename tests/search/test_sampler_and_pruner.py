import random
from collections.abc import Mapping
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from tests.strategies import BUNDLED, WIDE
from tuner.search.optuna_tpe import NUM_RANDOM, NUM_THRIFTY, Cost
from tuner.search.sampler_and_pruner import KEPT_BEST, KEPT_LATEST, MAX_SEEN, MIN_COMPARED, Strategy, rungs
from tuner.space.sampling import Params, distributions, first_params

CNN = BUNDLED["cnn"]


def score_of(params: Mapping[str, Any]) -> float:
    """Any smooth function of the parameters will do."""
    numbers = [float(value) for value in params.values() if isinstance(value, int | float)]
    return 1 / (1 + abs(sum(numbers)) / 100)


class Calls:
    """Every parameter that the real TPE samples, by how it samples it, for each trial of the mirror."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.relative: dict[int, set[str]] = {}
        self.independent: dict[int, set[str]] = {}
        relative, independent = TPESampler._sample_relative, TPESampler.sample_independent

        def sample_relative(sampler: Any, study: Any, trial: Any, space: dict[str, BaseDistribution]) -> Any:
            sampled = relative(sampler, study, trial, space)
            self.relative[trial.number] = set(sampled)
            return sampled

        def sample_independent(sampler: Any, study: Any, trial: Any, name: str, distribution: BaseDistribution) -> Any:
            self.independent.setdefault(trial.number, set()).add(name)
            return independent(sampler, study, trial, name, distribution)

        monkeypatch.setattr(TPESampler, "_sample_relative", sample_relative)
        monkeypatch.setattr(TPESampler, "sample_independent", sample_independent)


@pytest.mark.parametrize("space", [CNN, WIDE], ids=["cnn", "wide"])
def test_after_its_start_the_sampler_draws_every_parameter_jointly(monkeypatch: pytest.MonkeyPatch, space: Any) -> None:
    calls = Calls(monkeypatch)
    names = set(distributions(space))
    strategy = Strategy(distributions(space), seed=0, epochs=5)
    for number in range(30):
        params = strategy.propose(number)
        assert params.keys() == names
        # What was stopped or turned away must not break the joint space either.
        states = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
        state = states[number % 4]
        curve = {} if number % 7 == 3 and state is not TrialState.COMPLETE else {1: 0.1, 2: score_of(params)}
        strategy.learn(number, params, curve, state=state)
    joint = range(NUM_RANDOM + NUM_RANDOM // 2, 30)  # failed trials do not count towards the start
    assert all(calls.relative[number] == names for number in joint)
    assert all(number not in calls.independent for number in joint)
    assert calls.independent[0] == names


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_optunas_own_sampler_would_not_draw_a_space_that_changes_with_the_depth_jointly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Why every parameter is asked for in every trial: what TPE does when the deeper blocks are not."""
    calls = Calls(monkeypatch)
    study = optuna.create_study(direction="maximize", sampler=TPESampler(multivariate=True, seed=0))
    for _ in range(30):
        trial = study.ask()
        for block in range(1, trial.suggest_int("num_blocks", 1, 5) + 1):
            trial.suggest_int(f"block{block}_out_channels", 8, 64, step=8)
        study.tell(trial, score_of(trial.params))
    assert calls.relative[29] == {"num_blocks", "block1_out_channels"}


def curves(number: int) -> tuple[dict[int, float], TrialState]:
    """Any mixture of endings, some without an epoch, some best before their last one."""
    generator = random.Random(number)
    curve = {epoch: generator.random() for epoch in range(1, generator.randint(1, 5))}
    state = generator.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED, TrialState.FAIL])
    return curve, (state if curve else TrialState.PRUNED)


@pytest.mark.parametrize("num_before", [0, 1, 5, 12, 25])
def test_a_strategy_that_remembers_proposes_what_one_that_saw_it_all_proposes(num_before: int) -> None:
    seen = Strategy(distributions(CNN), seed=3, epochs=5)
    told = Strategy(distributions(CNN), seed=3, epochs=5)
    first: list[Params | None] = [*first_params(CNN)]
    for number in range(num_before):
        params = seen.propose(number, first[number] if number < len(first) else None)
        curve, state = curves(number)
        seen.learn(number, params, curve, state=state)
        told.learn(number, params, curve, state=state)
    proposed = []
    for strategy in (seen, told):
        for number in range(num_before, num_before + 3):
            proposed.append(strategy.propose(number))
            strategy.learn(number, proposed[-1], {1: 0.5}, state=TrialState.COMPLETE)
            assert strategy.reason_to_stop(99, {2: 0.0}) == seen.reason_to_stop(99, {2: 0.0})
    assert proposed[:3] == proposed[3:]


def test_what_runs_bears_on_the_next_proposal() -> None:
    """TPE takes a running trial for a poor one, so that runners do not crowd in one place."""
    space = {"x": FloatDistribution(0.0, 1.0)}
    alone, beside = (Strategy(space, seed=3, epochs=5) for _ in range(2))
    for number in range(NUM_THRIFTY):
        params = alone.propose(number)
        for strategy in (alone, beside):
            strategy.learn(number, params, {1: params["x"]}, state=TrialState.COMPLETE)
    for number in range(NUM_THRIFTY, 2 * NUM_THRIFTY):
        params = beside.propose(number)
        alone.learn(number, params, {}, state=TrialState.FAIL)
    following = range(2 * NUM_THRIFTY, 3 * NUM_THRIFTY)
    assert [beside.propose(number) for number in following] != [alone.propose(number) for number in following]


def params_of_trial(seed: int, number: int) -> Params:
    return Strategy(distributions(CNN), seed=seed, epochs=5).propose(number)


def test_a_proposal_depends_on_the_studys_seed_and_the_trials_number() -> None:
    assert params_of_trial(0, 4) == params_of_trial(0, 4)
    assert params_of_trial(0, 4) != params_of_trial(1, 4)
    assert params_of_trial(0, 4) != params_of_trial(0, 5)


def test_a_proposal_can_be_fixed() -> None:
    (params,) = first_params(CNN)
    strategy = Strategy(distributions(CNN), seed=0, epochs=5)
    fixed, free = strategy.propose(0, params), strategy.propose(1)
    assert fixed == params
    assert free != params


def proposals(num_trials: int, *, cost: Cost | None = None) -> list[Params]:
    """What a strategy proposes when the score is what the head does not drop."""
    strategy = Strategy(distributions(CNN), seed=0, epochs=5, cost=cost)
    proposed = []
    for number in range(num_trials):
        params = strategy.propose(number)
        proposed.append(params)
        strategy.learn(number, params, {1: 1 - params["head_dropout"]}, state=TrialState.COMPLETE)
    return proposed


@pytest.mark.parametrize(
    ("cost", "share"),
    [(None, 0.5), (lambda params: 1 - params["head_dropout"], 0.7)],
    ids=["at any cost", "where what scores well is dear"],
)
def test_the_sampler_learns_to_propose_what_scores_well(cost: Cost | None, share: float) -> None:
    rates = [params["head_dropout"] for params in proposals(60, cost=cost)]
    assert sum(rates[-20:]) / 20 < share * sum(rates[:NUM_RANDOM]) / NUM_RANDOM


def dearness(params: Mapping[str, Any]) -> float:
    """A cost that has nothing to do with the score."""
    return float(params["block1_out_channels"] * params["num_blocks"])


@pytest.mark.parametrize("numbers", [range(NUM_RANDOM), range(NUM_RANDOM, NUM_THRIFTY)], ids=["random draws", "TPE"])
def test_what_is_cheap_is_proposed_before_what_is_dear(numbers: range) -> None:
    thrifty, plain = ([*map(dearness, proposals(numbers.stop, cost=cost))] for cost in (dearness, None))
    assert sum(thrifty[numbers.start :]) < 0.7 * sum(plain[numbers.start :])


def proposals_after(correlation: float, *, cost: Cost | None) -> list[Params]:
    """What is proposed after trials whose accuracy grew with their cost by this much."""
    strategy = Strategy(distributions(CNN), seed=0, epochs=5, cost=cost)
    for number in range(MIN_COMPARED):
        params = strategy.propose(number)
        accuracy = 0.5 + correlation * dearness(params) / 1_000
        strategy.learn(number, params, {2: accuracy}, state=TrialState.PRUNED)
    return [strategy.propose(number) for number in range(MIN_COMPARED, NUM_RANDOM)]


def test_what_is_cheap_is_not_preferred_where_what_is_dear_was_better() -> None:
    at_any_cost = proposals_after(1.0, cost=None)
    assert proposals_after(1.0, cost=dearness) == at_any_cost
    for correlation in (-1.0, 0.0):  # all equal tells nothing
        assert proposals_after(correlation, cost=dearness) != at_any_cost


def after(*curves: Mapping[int, float], epochs: int = 20) -> Strategy:
    """A strategy that remembers trials with these curves."""
    strategy = Strategy({}, seed=0, epochs=epochs)
    for number, curve in enumerate(curves):
        strategy.learn(number, {}, curve, state=TrialState.COMPLETE)
    return strategy


SIX = [{1: 0.5, 2: level, 3: level + 0.05} for level in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)]


@pytest.mark.parametrize(
    ("epochs", "expected"), [(1, ()), (2, (1,)), (3, (1,)), (5, (2,)), (9, (1, 3)), (20, (2, 7)), (30, (1, 3, 10))]
)
def test_rungs_lie_a_factor_of_three_apart_and_never_at_the_end(epochs: int, expected: tuple[int, ...]) -> None:
    assert rungs(epochs) == expected


@pytest.mark.parametrize(
    ("others", "curve", "stops"),
    [
        # Epoch 2 of 20 is a rung. Seven have got there, so that three go on; by then the others had 0.5 and 0.6.
        (SIX, {1: 0.1, 2: 0.39}, True),
        (SIX, {1: 0.1, 2: 0.5}, False),
        (SIX, {1: 0.1, 2: 0.51}, False),
        # Best so far counts, not the last; of the others too: theirs by epoch 2 is at least 0.5.
        (SIX, {1: 0.55, 2: 0.1}, False),
        # Epochs 1 and 3 are no rungs.
        (SIX, {1: 0.0}, False),
        (SIX, {1: 0.0, 2: 0.9, 3: 0.0}, False),
        # The first one to get to a rung goes on; of two, the better one.
        ([], {1: 0.0, 2: 0.0}, False),
        ([{1: 0.0, 2: 0.2}], {1: 0.0, 2: 0.1}, True),
        ([{1: 0.0, 2: 0.2}], {1: 0.0, 2: 0.3}, False),
        # Equals go on together.
        ([{1: 0.0, 2: 0.2}], {1: 0.0, 2: 0.2}, False),
        # One that did not reach the rung says nothing about it.
        ([{1: 0.9}], {1: 0.0, 2: 0.0}, False),
    ],
)
def test_a_trial_stops_at_a_rung_unless_it_is_of_the_best_third_there(
    others: list[Mapping[int, float]], curve: Mapping[int, float], stops: bool
) -> None:
    assert bool(after(*others, epochs=20).reason_to_stop(len(others), curve)) == stops


def test_the_reason_to_stop_names_the_values() -> None:
    reason = after({2: 0.5}, {2: 0.4}, epochs=20).reason_to_stop(2, {1: 0.1, 2: 0.25})
    assert reason == "best accuracy 25.00% after epoch 2: ranked 3 of 3; the best continues"


def test_a_trial_is_not_held_against_itself_and_running_ones_count() -> None:
    strategy = Strategy({}, seed=0, epochs=20)
    for number in range(4):
        assert strategy.reason_to_stop(number, {1: 0.5, 2: 0.5}) == ""
    assert strategy.reason_to_stop(3, {1: 0.5, 2: 0.5}) == ""
    assert strategy.reason_to_stop(4, {1: 0.1, 2: 0.1}) != ""


def test_a_repeated_trial_takes_no_place_at_the_rungs_and_is_seen_by_the_sampler() -> None:
    """Of the three that were trained, one continues at the rung; of five, two would."""
    strategy = Strategy({"x": FloatDistribution(0.0, 1.0)}, seed=0, epochs=20)
    for number, (accuracy, is_repeated) in enumerate([(0.6, False), (0.4, False), (0.4, True), (0.4, True)]):
        curve = {1: 0.1, 2: accuracy}
        strategy.learn(number, {"x": accuracy}, curve, state=TrialState.COMPLETE, is_repeated=is_repeated)
    assert [trial.value for trial in strategy._mirror.trials] == [0.6, 0.4, 0.4, 0.4]
    reason = strategy.reason_to_stop(4, {1: 0.1, 2: 0.5})
    assert reason == "best accuracy 50.00% after epoch 2: ranked 2 of 3; the best continues"


def test_trials_are_compared_at_a_rung_with_networks_of_their_kind() -> None:
    strategy = Strategy({}, seed=0, epochs=20)
    for number in range(3):
        strategy.learn(number, {}, {2: 0.9}, state=TrialState.COMPLETE, kind="frozen networks")
    assert strategy.reason_to_stop(3, {2: 0.6}, kind="networks trained as a whole") == ""
    reason = strategy.reason_to_stop(4, {2: 0.5}, kind="networks trained as a whole")
    assert reason.endswith("ranked 2 of 2 networks trained as a whole; the best continues")
    assert "ranked 4 of 4 frozen" in strategy.reason_to_stop(5, {2: 0.6}, kind="frozen networks")


def best_known(strategy: Strategy) -> float:
    return max(trial.value for trial in strategy._mirror.trials if trial.value is not None)


def test_the_sampler_forgets_all_but_the_best_and_the_latest_and_resumes_to_the_same() -> None:
    space = {"x": FloatDistribution(0.0, 1.0), "y": IntDistribution(1, 9)}
    saw, remembers = (Strategy(space, seed=3, epochs=5) for _ in range(2))
    told = []
    for number in range(MAX_SEEN + 20):
        params = saw.propose(number)
        # The best ones are early, and so would be forgotten if only the latest were kept.
        curve = {1: 1.0 - number / 1_000 - params["x"] / 10_000}
        saw.learn(number, params, curve, state=TrialState.COMPLETE)
        told.append((params, curve))
    for number, (params, curve) in enumerate(told):
        remembers.learn(number, params, curve, state=TrialState.COMPLETE)
    for strategy in (saw, remembers):
        assert len(strategy._mirror.trials) == KEPT_BEST + KEPT_LATEST + 20
        assert best_known(strategy) == max(curve[1] for _, curve in told)
    assert saw.propose(999) == remembers.propose(999)


def test_a_running_trial_is_still_known_after_the_sampler_has_forgotten() -> None:
    strategy = Strategy({"x": FloatDistribution(0.0, 1.0)}, seed=0, epochs=5)
    params = strategy.propose(0)
    for number in range(1, MAX_SEEN + 1):
        strategy.learn(number, {"x": 0.5}, {1: 0.5}, state=TrialState.COMPLETE)
    (running,) = (trial for trial in strategy._mirror.trials if not trial.state.is_finished())
    assert running.params == params
    strategy.learn(0, params, {1: 0.9}, state=TrialState.COMPLETE)
    assert best_known(strategy) == 0.9
