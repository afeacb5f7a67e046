"""Figures of the parameters: their importance, each one against accuracy, and all of them together."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from math import log
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from tuner.search.objective import ranked
from tuner.search.storage import quiet_optuna
from tuner.search.trial_record import TrialRecord
from tuner.ui.report.figure_parts import Figure, log_ticks, parted, plain, points, scale_of, scored

NUM_IMPORTANCES, NUM_SLICES = 12, 6
MAX_BEST = 40
"""Number of lines that are highlighted in parallel coordinates; more would merge into a band."""
MIN_FOR_IMPORTANCES = 10
"""Minimum number of complete trials; with fewer, the best tenth is a single trial."""


def importances(stored: Sequence[FrozenTrial]) -> dict[str, float]:
    """Optuna's importances (PED-ANOVA: how the best tenth differs), the largest first; empty if there are none."""
    complete = [trial for trial in stored if trial.state is TrialState.COMPLETE]
    if len(complete) < MIN_FOR_IMPORTANCES or len({trial.value for trial in complete}) < 2:
        return {}
    with quiet_optuna(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that they are equal, which is then seen
        study = optuna.create_study(direction="maximize")  # in memory: no need to read them again
        study.add_trials(complete)
        found = get_param_importances(study)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def distributions_of(stored: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Distributions of every parameter that is not fixed."""
    found: dict[str, BaseDistribution] = {}
    for trial in stored:
        found |= trial.distributions
    return {name: distribution for name, distribution in found.items() if not distribution.single()}


def importance_bars(found: Mapping[str, float]) -> Figure:
    """Draw the most important parameters."""
    title = "What mattered"
    if not found:
        absent = f"Importances need {MIN_FOR_IMPORTANCES} complete trials whose scores differ."
        return Figure("importances", title, absent=absent)
    names = list(found)[:NUM_IMPORTANCES]
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "y": [plain(name) for name in reversed(names)],
            "x": [found[name] for name in reversed(names)],
            "marker": {"color": "$accent"},
            "hovertemplate": "%{y}: %{x:.1%}<extra></extra>",
        }
    ]
    layout = {
        "xaxis": {"title": {"text": "share of the importance"}, "tickformat": ".0%"},
        "height": 60 + 26 * len(names),
        "showlegend": False,
    }
    caption = (
        f"Which parameters set the best tenth of the complete trials apart (PED-ANOVA): the first {len(names)} of "
        f"{len(found)}. With few trials, this is only a hint."
    )
    return Figure("importances", title, caption, data, layout)


def slices(
    trials: Sequence[TrialRecord], names: Sequence[str], distributions: Mapping[str, BaseDistribution]
) -> list[Figure]:
    """Draw accuracy against each of these parameters, in one figure each."""
    shown = scored(trials)
    scale = scale_of(shown)
    figures = []
    for index, name in enumerate(names):
        own = [trial for trial in shown if name in trial.params]

        def value(trial: TrialRecord, name: str = name) -> Any:
            return _value(trial.params[name], distributions[name])

        pruned, complete = parted(own)
        data = [
            points("pruned", pruned, value, "$pruned", scale),
            points("complete", complete, value, "$accent", scale),
        ]
        marks = {**scale.axis(data), "title": {"text": ""}}
        layout = {"xaxis": _axis(distributions[name]), "yaxis": marks, "height": 230, "showlegend": False}
        figures.append(Figure(f"slice-{index}", name, "", data, layout))
    return figures


def parallel(
    trials: Sequence[TrialRecord], names: Sequence[str], distributions: Mapping[str, BaseDistribution]
) -> Figure:
    """Draw one line per trial through its values of these parameters and its accuracy; the best trials stand out.

    The lines are drawn over axes from 0 to 1, since Plotly's own parallel coordinates need WebGL.
    """
    title = "Together"
    shown = [trial for trial in scored(trials) if all(name in trial.params for name in names)]
    if len(shown) < 2 or not names:
        return Figure("parallel", title, absent="Parallel coordinates need two trials with a score.")
    best_first = ranked(shown)
    num_best = max(1, min(MAX_BEST, len(best_first) // 10))
    best = f"best {num_best}" if num_best > 1 else "the best"
    groups = [("others", best_first[num_best:], "$muted", 1.0), (best, best_first[:num_best], "$accent", 1.5)]
    low, high = best_first[-1].validation_accuracy or 0.0, best_first[0].validation_accuracy or 0.0
    columns = [*names, "accuracy"]
    data = []
    for group, members, color, width in groups:
        x: list[int | None] = []
        y: list[float | None] = []
        texts: list[str | None] = []
        for trial in members:
            accuracy = trial.validation_accuracy or 0.0
            heights = [_height(trial.params[name], distributions[name]) for name in names]
            x += [*range(len(columns)), None]
            y += [*heights, (accuracy - low) / (high - low) if high > low else 0.5, None]
            values = [f"{plain(name)} {plain(_short(trial.params[name]))}" for name in names]
            texts += [*(f"trial {trial.number}<br>{text}" for text in (*values, f"accuracy {accuracy:.2%}")), None]
        line = {"color": color, "width": width}
        opacity = 0.3 if group == "others" else 0.8
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": group,
                "x": x,
                "y": y,
                "text": texts,
                "line": line,
                "opacity": opacity,
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    ends = [_ends(distributions[name]) for name in names] + [(f"{low:.1%}", f"{high:.1%}")]
    marks = [
        {"x": index, "y": y, "text": plain(text), "showarrow": False, "yshift": shift, "font": {"size": 11}}
        for index, pair in enumerate(ends)
        for text, y, shift in ((pair[0], 0, -11), (pair[1], 1, 11))
    ]
    axis = {
        "tickvals": list(range(len(columns))),
        "ticktext": ["<br>".join(plain(word) for word in name.split("_")) for name in columns],
        "range": [-0.35, len(columns) - 0.65],
        "showgrid": True,
        "showline": False,
        "tickangle": 0,
        "tickfont": {"size": 10},
    }
    layout = {"xaxis": axis, "yaxis": {"visible": False, "range": [-0.12, 1.12]}, "annotations": marks}
    caption = "Each line is a trial: its values of the most important parameters, and its score."
    return Figure("parallel", title, caption, data, layout)


def _value(value: Any, distribution: BaseDistribution) -> Any:
    return plain(value) if isinstance(distribution, CategoricalDistribution) else value


def _axis(distribution: BaseDistribution) -> dict[str, Any]:
    if isinstance(distribution, CategoricalDistribution):
        choices = [plain(choice) for choice in distribution.choices]
        return {"type": "category", "categoryorder": "array", "categoryarray": choices}
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.log:
        return log_ticks([distribution.low, distribution.high], lambda value: f"{value:.3g}", steps=(1, 3))
    return {"nticks": 6}


def _height(value: Any, distribution: BaseDistribution) -> float:
    """Position of a value on an axis from 0 to 1: logarithmic if the range is, and choices in their order."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices.index(value) / max(1, len(distribution.choices) - 1)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, at = float(distribution.low), float(distribution.high), float(value)
    if distribution.log:
        low, high, at = log(low), log(high), log(at)
    return (at - low) / (high - low) if high > low else 0.5


def _ends(distribution: BaseDistribution) -> tuple[str, str]:
    if isinstance(distribution, CategoricalDistribution):
        return _short(distribution.choices[0]), _short(distribution.choices[-1])
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return _short(distribution.low), _short(distribution.high)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
