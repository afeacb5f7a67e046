"""Figures of a search: history, learning curves, accuracy against size and latency, timeline, confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tuner.search.objective import is_better, rank_key
from tuner.search.trial_record import TrialRecord
from tuner.training.results import Confusion
from tuner.ui.report.figure_parts import MANY, Figure, lines, log_ticks, parted, plain, points, scale_of, scored

MAX_COUNTED_CLASSES = 20
"""Largest number of classes for which a confusion matrix shows its counts."""


def history(trials: Sequence[TrialRecord]) -> Figure:
    """Draw every score by trial number, and the best complete one so far."""
    shown = scored(trials)
    if not shown:
        return Figure("history", "History", absent="No trial has a score yet.")
    scale = scale_of(shown)
    best: float | None = None
    steps: list[tuple[int, float | None]] = []
    for trial in shown:
        if trial.outcome == "complete":
            best = trial.validation_accuracy if is_better(trial.validation_accuracy, best) else best
            steps.append((trial.number, best))
    if steps:
        steps.append((shown[-1].number, best))
    pruned, complete = parted(shown)
    data = [
        points("pruned", pruned, lambda trial: trial.number, "$pruned", scale),
        points("complete", complete, lambda trial: trial.number, "$accent", scale),
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far",
            "x": [number for number, _ in steps],
            "y": [scale.y(accuracy) for _, accuracy in steps],
            "customdata": [accuracy for _, accuracy in steps],
            "line": {"shape": "hv", "width": 2, "color": "$ink"},
            "hovertemplate": "best so far %{customdata:.2%}<extra></extra>",
        },
    ]
    layout = {"xaxis": {"title": {"text": "trial"}}, "yaxis": scale.axis(data)}
    caption = (
        "The score of a trial is that of its best epoch. The vertical axis shows the error on a logarithmic scale."
    )
    return Figure("history", "History", caption, data, layout)


def curves(trials: Sequence[TrialRecord], winner: int | None) -> Figure:
    """Draw validation accuracy by epoch: pruned and complete trials in different colours, and the winner on top."""
    shown = scored(trials)
    if not shown:
        return Figure("curves", "Learning curves", absent="No trial has finished an epoch yet.")
    scale = scale_of(shown)
    opacity = 0.7 if len(shown) < MANY else 0.3
    pruned, complete = parted(shown)
    chosen = [trial for trial in shown if trial.number == winner]
    data = [
        lines("pruned", pruned, scale, opacity=opacity, color="$pruned", width=1, dash="dot"),
        lines("complete", complete, scale, opacity=opacity, color="$accent", width=1.2),
        lines("winner", chosen, scale, opacity=1.0, color="$ink", width=2.5),
    ]
    tick = max(1, round(max(max(trial.curve) for trial in shown) / 8))
    layout = {"xaxis": {"title": {"text": "epoch"}, "dtick": tick}, "yaxis": scale.axis(data)}
    caption = "Dotted curves end where the trial was stopped."
    return Figure("curves", "Learning curves", caption, data, layout)


def against_parameters(trials: Sequence[TrialRecord], winner: int | None) -> Figure:
    """Draw accuracy against the number of parameters, with the best trial for every size."""
    caption = "The line connects the trials that are better than every smaller one."
    return _trade_off("accuracy-parameters", "Size", "parameters", trials, winner, lambda t: t.num_parameters, caption)


def against_latency(trials: Sequence[TrialRecord], winner: int | None) -> Figure:
    """Draw accuracy against the time for one image."""
    timed = [trial for trial in trials if trial.latency_ms is not None]
    if not timed:
        absent = "No trial of this study has a latency: it is measured after the last epoch of a complete trial."
        return Figure("accuracy-latency", "Latency", absent=absent)
    caption = "Median time for one image, fp32, measured by the runner while other runners were training."
    return _trade_off(
        "accuracy-latency", "Latency", "milliseconds an image", timed, winner, lambda t: t.latency_ms, caption
    )


def _trade_off(
    identifier: str,
    title: str,
    cost: str,
    trials: Sequence[TrialRecord],
    winner: int | None,
    of: Callable[[TrialRecord], Any],
    caption: str,
) -> Figure:
    shown = scored(trials)
    if not shown:
        return Figure(identifier, title, absent="No trial has a score yet.")
    scale = scale_of(shown)
    pruned, complete = parted(shown)
    front: list[TrialRecord] = []
    for trial in sorted(complete, key=lambda trial: (of(trial), *rank_key(trial.validation_accuracy, trial.number))):
        if not front or is_better(trial.validation_accuracy, front[-1].validation_accuracy):
            front.append(trial)
    data = [
        points("pruned", pruned, of, "$pruned", scale),
        points("complete", complete, of, "$accent", scale),
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best of its size",
            "x": [of(trial) for trial in front],
            "y": [scale.y(trial.validation_accuracy) for trial in front],
            "customdata": [[trial.number, trial.validation_accuracy] for trial in front],
            "line": {"shape": "hv", "width": 1.5, "color": "$ink"},
            "hoverinfo": "skip",
        },
    ]
    chosen = [trial for trial in shown if trial.number == winner]
    if chosen:
        ring = points("winner", chosen, of, "$ink", scale)
        ring["marker"] = {"size": 13, "symbol": "circle-open", "color": "$ink", "line": {"width": 2}}
        data.append(ring)
    axis = {**log_ticks([of(trial) for trial in shown], _thousands), "title": {"text": cost}}
    return Figure(identifier, title, caption, data, {"xaxis": axis, "yaxis": scale.axis(data)})


def timeline(trials: Sequence[TrialRecord]) -> Figure:
    """Draw when each runner trained which trial."""
    title = "Timeline"
    shown = [trial for trial in trials if trial.runner is not None and trial.started and trial.ended and trial.curve]
    if not shown:
        return Figure(
            "timeline", title, absent="The trials of this study do not say which runner trained them, or when."
        )
    data = []
    for outcome, color in (("complete", "$accent"), ("pruned", "$pruned"), ("diverged", "$bad"), ("failed", "$bad")):
        own = [trial for trial in shown if trial.outcome == outcome]
        if not own:
            continue
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": outcome,
                "y": [f"runner {trial.runner}" for trial in own],
                "base": [trial.started.isoformat(timespec="milliseconds") for trial in own if trial.started],
                "x": [_milliseconds(trial) for trial in own],
                "customdata": [trial.number for trial in own],
                "marker": {"color": color, "line": {"color": "$surface", "width": 0.5 if len(shown) < MANY else 0}},
                "hovertemplate": "trial %{customdata}<extra>%{fullData.name}</extra>",
            }
        )
    runners = sorted({trial.runner or 0 for trial in shown})
    layout = {
        "barmode": "overlay",
        "xaxis": {"type": "date"},
        "yaxis": {
            "categoryorder": "array",
            "categoryarray": [f"runner {runner}" for runner in reversed(runners)],
            "showgrid": False,
        },
        "height": 130 + 30 * len(runners),
    }
    return Figure("timeline", title, "A bar is a trial, on the runner that trained it.", data, layout)


def confusion_matrix(confusion: Confusion | None, class_names: Sequence[str]) -> Figure:
    """Draw a confusion matrix: rows are true classes, columns predicted ones; errors have another colour."""
    title = "Confusion matrix"
    if confusion is None:
        return Figure("confusion", title, absent=f"There are too many classes ({len(class_names):,}) for a matrix.")
    num_classes = len(confusion)
    names = [plain(name if len(name) <= 16 else f"{name[:15]}…") for name in class_names]
    hover = "%{customdata}<extra></extra>"
    described = [
        [
            f"{plain(class_names[row])} taken for {plain(class_names[column])}: {count}"
            if row != column
            else f"{plain(class_names[row])}: {count} right"
            for column, count in enumerate(counts)
        ]
        for row, counts in enumerate(confusion)
    ]
    layers: list[tuple[str, str, Callable[[int, int], bool]]] = [
        ("right", "$accent", lambda row, column: row == column),
        ("wrong", "$bad", lambda row, column: row != column),
    ]
    data = [
        {
            "type": "heatmap",
            "name": name,
            "z": [
                [count if count and is_own(row, column) else None for column, count in enumerate(counts)]
                for row, counts in enumerate(confusion)
            ],
            "customdata": described,
            "colorscale": [[0, f"{color}-faint"], [1, f"{color}-cell"]],
            "zmin": 0,
            "zmax": max(max(counts) for counts in confusion),
            "showscale": False,
            "xgap": 1,
            "ygap": 1,
            "hovertemplate": hover,
            "hoverongaps": False,
            # Without a colour plotly takes white or grey, by a rule that leaves cells in between hard to read.
            **({"texttemplate": "%{z}", "textfont": {"color": "$ink"}} if num_classes <= MAX_COUNTED_CLASSES else {}),
        }
        for name, color, is_own in layers
    ]
    ticks = {"tickvals": list(range(num_classes)), "ticktext": names, "showgrid": False, "zeroline": False}
    if num_classes > 60:
        ticks = {"showticklabels": False, "showgrid": False, "zeroline": False}
    layout = {
        "xaxis": {**ticks, "title": {"text": "said"}, "constrain": "domain"},
        "yaxis": {**ticks, "title": {"text": "is"}, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain"},
        "height": min(900, 170 + max(220, 30 * num_classes)),
        "showlegend": False,
    }
    return Figure("confusion", title, "", data, layout)


def _milliseconds(trial: TrialRecord) -> float:
    assert trial.started is not None
    assert trial.ended is not None
    return round(1e3 * (trial.ended - trial.started).total_seconds(), 3)


def _thousands(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
