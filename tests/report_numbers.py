"""The numbers of a report's figures, held against the database as Optuna itself reads it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from functools import partial
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from tuner.ui.report.parameter_figures import NUM_IMPORTANCES, NUM_SLICES

ALWAYS = ("history", "curves", "accuracy-parameters", "accuracy-latency", "timeline")


def figures_of(page: str) -> dict[str, Any]:
    """Every figure that a page embeds, by its id."""
    found = re.findall(r'<script type="application/json" data-figure="([^"]+)">(.*?)</script>', page, re.DOTALL)
    assert len({identifier for identifier, _ in found}) == len(found)
    return {identifier: json.loads(text) for identifier, text in found}


def check_figures(page: str, study: optuna.Study, *, winner: int) -> None:
    """Compare every figure of a page with the study."""
    figures = figures_of(page)
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False) if accuracy_of(trial) is not None}
    trials = {number: trial for number, trial in trials.items() if trial.user_attrs.get("outcome") != "repeated"}
    assert set(figures) >= set(ALWAYS)
    _check_history(figures["history"], trials)
    _check_curves(figures["curves"], trials, winner=winner)
    _check_costs(figures["accuracy-parameters"], trials, "num_parameters", winner=winner)
    timed = {number: trial for number, trial in trials.items() if "latency_ms" in trial.user_attrs}
    _check_costs(figures["accuracy-latency"], timed, "latency_ms", winner=winner)
    _check_timeline(figures["timeline"], trials)
    names = list(trials[winner].params)
    names = [name for name in names if not trials[winner].distributions[name].single()]
    if "importances" in figures:
        expected = optuna.importance.get_param_importances(study)
        (bars,) = figures["importances"]["data"]
        shown = dict(zip(reversed(bars["y"]), reversed(bars["x"]), strict=True))
        names = list(dict(sorted(expected.items(), key=lambda item: -item[1])))
        assert shown == pytest.approx({name: expected[name] for name in names[:NUM_IMPORTANCES]})
    for index, name in enumerate(names[:NUM_SLICES]):
        _check_points(figures[f"slice-{index}"], trials, partial(_shown_value, name=name))
    _check_parallel(figures["parallel"], trials, names[:NUM_SLICES])


def accuracy_of(trial: FrozenTrial) -> float | None:
    """Of the best epoch, as it was reported."""
    num_epochs = trial.user_attrs.get("num_epochs", float("inf"))
    return max((value for epoch, value in trial.intermediate_values.items() if epoch <= num_epochs), default=None)


def _shown_value(trial: FrozenTrial, name: str) -> Any:
    """The place of a parameter's value on its axis: choices are words there, numbers too."""
    value = trial.params[name]
    return str(value) if isinstance(trial.distributions[name], CategoricalDistribution) else value


def _check_points(figure: Any, trials: dict[int, FrozenTrial], x: Any) -> None:
    """Each trial is one point, in the trace of its kind, at its place."""
    seen = {}
    for trace in figure["data"]:
        if trace["name"] in ("pruned", "complete"):
            rows = zip(trace["x"], trace["y"], trace["customdata"], strict=True)
            seen |= {number: (trace["name"], at, y, accuracy) for at, y, (number, accuracy) in rows}
    assert set(seen) == set(trials)
    for number, (kind, at, y, accuracy) in seen.items():
        trial = trials[number]
        assert (kind == "complete") == (trial.state is TrialState.COMPLETE)
        assert at == x(trial)
        assert accuracy == accuracy_of(trial)
        assert y == pytest.approx(1 - accuracy) or accuracy == 1.0


def _check_history(figure: Any, trials: dict[int, FrozenTrial]) -> None:
    _check_points(figure, trials, lambda trial: trial.number)
    best = figure["data"][2]
    expected, so_far = [], 0.0
    for number, trial in sorted(trials.items()):
        if trial.state is TrialState.COMPLETE:
            so_far = max(so_far, trial.value or 0.0)
            expected.append((number, so_far))
    expected.append((max(trials), so_far))
    assert list(zip(best["x"], best["customdata"], strict=True)) == expected


def _check_curves(figure: Any, trials: dict[int, FrozenTrial], *, winner: int) -> None:
    pruned, complete, chosen = figure["data"]
    curves: dict[str, dict[int, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for trace in (pruned, complete, chosen):
        for epoch, known in zip(trace["x"], trace["customdata"], strict=True):
            if known is not None:
                curves[trace["name"]][known[0]][epoch] = known[1]
    expected = {number: trial.intermediate_values for number, trial in trials.items()}
    assert curves["pruned"] | curves["complete"] == expected
    assert all(trials[number].state is TrialState.COMPLETE for number in curves["complete"])
    assert all(trials[number].state is not TrialState.COMPLETE for number in curves["pruned"])
    assert curves["winner"] == {winner: expected[winner]}


def _check_costs(figure: Any, trials: dict[int, FrozenTrial], attribute: str, *, winner: int) -> None:
    _check_points(figure, trials, lambda trial: trial.user_attrs[attribute])
    traces = {trace["name"]: trace for trace in figure["data"]}
    complete = [trial for trial in trials.values() if trial.state is TrialState.COMPLETE]
    front = traces["best of its size"]
    for cost, (_, accuracy) in zip(front["x"], front["customdata"], strict=True):
        assert accuracy == max(accuracy_of(t) or 0.0 for t in complete if t.user_attrs[attribute] <= cost)
    assert traces["winner"]["customdata"] == [[winner, accuracy_of(trials[winner])]]


def _check_timeline(figure: Any, trials: dict[int, FrozenTrial]) -> None:
    seen = {}
    for trace in figure["data"]:
        rows = zip(trace["customdata"], trace["y"], trace["base"], trace["x"], strict=True)
        seen |= {number: (trace["name"], runner, base, length) for number, runner, base, length in rows}
    assert set(seen) == {number for number, trial in trials.items() if trial.state.is_finished()}
    for number, (outcome, runner, base, length) in seen.items():
        trial = trials[number]
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        assert outcome == trial.user_attrs["outcome"]
        assert runner == f"runner {trial.user_attrs['runner']}"
        assert base == trial.datetime_start.isoformat(timespec="milliseconds")
        took = 1e3 * (trial.datetime_complete - trial.datetime_start).total_seconds()
        assert length == pytest.approx(took, abs=0.001)


def _check_parallel(figure: Any, trials: dict[int, FrozenTrial], names: list[str]) -> None:
    """Every line passes each axis where its trial's value lies between the ends."""
    num_axes, seen = len(names) + 1, set()
    accuracies = [accuracy_of(trial) or 0.0 for trial in trials.values()]
    for trace in figure["data"]:
        for start in range(0, len(trace["x"]), num_axes + 1):
            *heights, height = trace["y"][start : start + num_axes]
            text = trace["text"][start]
            trial = trials[int(re.match(r"trial (\d+)<br>", text).group(1))]  # type: ignore[union-attr]
            seen.add(trial.number)
            for name, at in zip(names, heights, strict=True):
                distribution, value = trial.distributions[name], trial.params[name]
                if isinstance(distribution, CategoricalDistribution):
                    assert distribution.choices[round(at * (len(distribution.choices) - 1))] == value
                elif distribution.log:  # type: ignore[attr-defined]
                    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
                    assert low * (high / low) ** at == pytest.approx(value)
                else:
                    low, high = distribution.low, distribution.high  # type: ignore[attr-defined]
                    assert low + at * (high - low) == pytest.approx(value, abs=1e-9)
            spread = max(accuracies) - min(accuracies)
            assert min(accuracies) + height * spread == pytest.approx(accuracy_of(trial)) or not spread
    assert seen == set(trials)
