"""Common parts of all figures of a report: plain Plotly JSON, with names of colours that the page replaces.

Plotly interprets a few HTML tags in texts, so every text from a user goes through `plain` first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from math import ceil, floor, log10
from typing import Any

from tuner.search.objective import OBJECTIVE
from tuner.search.trial_record import TrialRecord

ERRORS = [step * 10.0**decade for decade in range(0, -6, -1) for step in (1, 0.5, 0.2)]
"""Tick marks of an accuracy axis: 0, 50, 80, 90, 95, 98, 99 %, ..."""
ROUND_STEPS = [step * 10.0**decade for decade in range(-1, -6, -1) for step in (5, 2, 1)]
"""Distances between tick marks, from 50 % to 0.001 %, from which the first is chosen that gives enough of them."""
MIN_MARKS = 3
"""Fewest tick marks among the values."""
MANY = 300
"""If there are at least this many points, they are drawn small and faint."""
Trace = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure: Plotly's traces and layout. `absent`: why there is no figure; it then has no traces."""

    id: str
    title: str
    caption: str = ""
    data: list[Trace] = field(default_factory=list)
    layout: dict[str, Any] = field(default_factory=dict)
    absent: str = ""


def plain(text: object) -> str:
    """Escape a text so that Plotly finds no markup in it."""
    return escape(str(text), quote=False)


def scored(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that figures show: those with a score, except repeated ones."""
    return [trial for trial in trials if trial.validation_accuracy is not None and trial.outcome != "repeated"]


def parted(trials: Iterable[TrialRecord]) -> tuple[list[TrialRecord], list[TrialRecord]]:
    """Divide trials into those that were stopped or have not ended, and the complete ones."""
    parts: tuple[list[TrialRecord], list[TrialRecord]] = ([], [])
    for trial in trials:
        parts[trial.outcome == "complete"].append(trial)
    return parts


@dataclass(frozen=True)
class Scale:
    """Draws accuracies by their error on a logarithmic axis, so that 98 % and 99 % can be distinguished beside 10 %.

    `floor` is used for an error of 0, which has no logarithm.
    """

    floor: float

    def y(self, accuracy: float | None) -> float:
        """Position of an accuracy on the axis."""
        return max(1.0 - (accuracy or 0.0), self.floor)

    def axis(self, data: Iterable[Trace]) -> dict[str, Any]:
        """The axis of these traces, labelled with accuracies."""
        marks = _marks_over([error for trace in data for error in trace["y"] if error is not None], self.floor)
        return {
            "type": "log",
            "autorange": "reversed",
            "tickvals": marks,
            "ticktext": [f"{100 * (1 - error):.6g}%" for error in marks],
            "title": {"text": OBJECTIVE},
        }


def _marks_over(errors: Sequence[float], floor_of_errors: float) -> list[float]:
    """Tick marks of an accuracy axis; round accuracies, in equal steps, where few of the usual marks are in range."""
    low, high = min(errors, default=0.0), max(errors, default=1.0)
    if sum(low <= error <= high for error in ERRORS) >= MIN_MARKS:
        return [error for error in ERRORS if error >= floor_of_errors]
    for step in ROUND_STEPS:
        steps = range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)
        if len(steps) >= MIN_MARKS:
            return [step * number for number in steps if number > 0]
    return [high]


def scale_of(trials: Iterable[TrialRecord]) -> Scale:
    """Return the scale for these trials; its floor is half of the smallest error that is not 0."""
    errors = {1.0 - accuracy for trial in trials for accuracy in trial.curve.values() if accuracy < 1.0}
    return Scale(min(errors, default=0.01) / 2)


def log_ticks(
    values: Sequence[float], words: Callable[[float], str], *, steps: tuple[int, ...] = (1, 2, 5)
) -> dict[str, Any]:
    """Return a logarithmic axis with few ticks: these steps of every decade, or only powers of ten if there are many.

    words: function that labels a value.
    """
    low, high = min(values), max(values)
    decades = range(floor(log10(low)) - 1, ceil(log10(high)) + 1)
    steps = steps if high / low < 300 else (1,)
    marks = [step * 10.0**decade for decade in decades for step in steps]
    marks = [mark for mark in marks if low / 1.6 <= mark <= high * 1.6]
    return {"type": "log", "tickvals": marks, "ticktext": [words(mark) for mark in marks]}


def points(
    name: str, trials: Sequence[TrialRecord], x: Callable[[TrialRecord], Any], color: str, scale: Scale
) -> Trace:
    """Draw one point per trial; number and accuracy are its `customdata`."""
    many = len(trials) > MANY
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [x(trial) for trial in trials],
        "y": [scale.y(trial.validation_accuracy) for trial in trials],
        "customdata": [[trial.number, trial.validation_accuracy] for trial in trials],
        "marker": {"color": color, "size": 4 if many else 7, "opacity": 0.5 if many else 0.8},
        "hovertemplate": "trial %{customdata[0]}<br>%{customdata[1]:.2%}<extra>%{fullData.name}</extra>",
    }


def lines(name: str, trials: Sequence[TrialRecord], scale: Scale, *, opacity: float, **line: Any) -> Trace:
    """Draw the curves of many trials as one trace, with a gap after each."""
    x: list[int | None] = []
    y: list[float | None] = []
    known: list[tuple[int, float] | None] = []
    for trial in trials:
        x += [*trial.curve, None]
        y += [*map(scale.y, trial.curve.values()), None]
        known += [*((trial.number, accuracy) for accuracy in trial.curve.values()), None]
    return {
        "type": "scatter",
        "mode": "lines" if any(len(trial.curve) > 1 for trial in trials) else "markers",
        "name": name,
        "x": x,
        "y": y,
        "customdata": known,
        "line": line,
        "marker": {"color": line["color"]},
        "opacity": opacity,
        "hovertemplate": "trial %{customdata[0]}, epoch %{x}<br>%{customdata[1]:.2%}<extra>%{fullData.name}</extra>",
    }
