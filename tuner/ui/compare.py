"""Compare two studies side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tuner.search.confirmation import Confirmation
from tuner.search.confirmation_sentences import difference_in_words, interval_in_words
from tuner.search.older_studies import is_of_older_version
from tuner.search.record import StudyRecord
from tuner.search.settings import settings_in_full
from tuner.search.study_deletion import disk_size_in_words, disk_use
from tuner.search.summary import StudySummary, summarise
from tuner.search.trial_record import TrialRecord

Row = tuple[str, str, str]


def comparison_table(first: StudyRecord, second: StudyRecord, *, studies: Path) -> RenderableType:
    """Return a table with the results of two studies, and the differences between their settings and winners.

    Confirmed scores are on sealed test images, so they can be compared if both studies use the same data set. The best
    score of a search is optimistic.
    """
    summaries = summarise(first, studies=studies), summarise(second, studies=studies)
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for name in ("", first.name, second.name):
        table.add_column(name, overflow="fold", style="dim" if not name else None)
    sizes = [disk_use(record, studies=studies) for record in (first, second)]
    for row in (*_rows(*summaries), ("disk", *map(disk_size_in_words, sizes))):
        table.add_row(*row)
    _add_differences(table, "settings", settings_in_full(first.settings), settings_in_full(second.settings))
    _add_differences(table, "engine", first.engine.to_json(), second.engine.to_json())
    winners = [_winner(summary) for summary in summaries]
    if winners[0] is not None and winners[1] is not None:
        _add_differences(table, "winner", _winner_values(winners[0]), _winner_values(winners[1]))
    return Group(table, *map(Text, _warnings(*summaries, first, second)))


def _rows(*summaries: StudySummary) -> Iterator[Row]:
    yield _row("data set", [summary.dataset for summary in summaries])
    yield _row("space", [summary.space for summary in summaries])
    yield _row("trials", [str(summary.num_counted) for summary in summaries])
    for outcome in summaries[0].counts:
        numbers = [summary.counts[outcome] for summary in summaries]
        if any(numbers):
            yield _row(f"  {outcome}", [str(number) for number in numbers])
    yield _row("best of the search", [_best(summary) for summary in summaries])
    found = [summary.confirmed for summary in summaries]
    if any(found):
        for name, words in CONFIRMED.items():
            yield _row(name, ["not confirmed" if one is None else words(one) for one in found])
    winners = [_winner(summary) for summary in summaries]
    for name, of in WINNER.items():
        yield _row(name, ["" if winner is None else of(winner) for winner in winners])


def _row(name: str, values: list[str]) -> Row:
    return name, values[0], values[1]


def _best(summary: StudySummary) -> str:
    best = summary.best
    return "none complete" if best is None else f"trial {best.number}: {best.validation_accuracy:.2%} validation"


def _winner(summary: StudySummary) -> TrialRecord | None:
    return summary.winner or summary.best


def _winner_values(trial: TrialRecord) -> dict[str, Any]:
    candidate = trial.candidate.to_json()
    return {**candidate["recipe"], **candidate["architecture"]}


CONFIRMED: dict[str, Callable[[Confirmation], str]] = {
    "confirmed": lambda found: f"trial {found.number}: {found.test_accuracy:.2%} test, {interval_in_words(found)}",
    "  beats baseline": lambda found: "it is the baseline" if found.is_of_baseline else found.beats_baseline,
    "  difference": lambda found: difference_in_words(found) if found.is_compared else "",
    "  of the file": lambda found: f"{found.delivered_test_accuracy:.2%}",
}
WINNER: dict[str, Callable[[TrialRecord], str]] = {
    "winner": lambda trial: str(trial.candidate.architecture),
    "  parameters": lambda trial: f"{trial.num_parameters:,}",
    "  FLOPs": lambda trial: f"{trial.flops:,}",
    "  latency": lambda trial: "" if trial.latency_ms is None else f"{trial.latency_ms:.2f} ms",
}
"""Rows of the table for a winner: a function from its trial to text, by the row's name."""


def _add_differences(table: Table, heading: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> None:
    """Add rows for the values that differ; none if all are the same."""
    differing = list(_differences(first, second))
    if not differing:
        return
    table.add_section()
    table.add_row(Text(f"{heading} that differ" if heading == "settings" else f"{heading}, where it differs", "bold"))
    for key, *values in differing:
        table.add_row(f"  {key}", *values)


_MISSING = object()


def _differences(first: Any, second: Any, key: str = "") -> Iterator[Row]:
    """Compare nested values, and yield dotted keys with both texts; list items have their positions from 1.

    What only one of the two has is one row, however much is in it.
    """
    if first == second:
        return
    items_of_each = _items(first), _items(second)
    if all(items_of_each):
        for name in dict.fromkeys(name for items in items_of_each for name in items):
            one, other = (items.get(name, _MISSING) for items in items_of_each)
            yield from _differences(one, other, f"{key}.{name}" if key else name)
    else:
        yield key, _in_words(first), _in_words(second)


def _items(value: Any) -> dict[str, Any]:
    """The values in a mapping or in a list of nested values by their keys; nothing for a plain value."""
    if isinstance(value, Mapping):
        return {str(name): one for name, one in value.items()}
    if isinstance(value, list) and any(isinstance(one, Mapping | list) for one in value):
        return {str(position): one for position, one in enumerate(value, start=1)}
    return {}


def _in_words(value: Any) -> str:
    """A value as text: nothing if it is missing, and only "given" for nested values, which could be very many."""
    if value is _MISSING:
        return ""
    items = _items(value)
    if any(isinstance(one, Mapping | list) for one in items.values()):
        return "given"
    return ", ".join(f"{name} {one}" for name, one in items.items()) if items else str(value)


def _warnings(one: StudySummary, other: StudySummary, first: StudyRecord, second: StudyRecord) -> Iterator[str]:
    if is_of_older_version(first) != is_of_older_version(second):
        yield " One study was made by an earlier version of tuner, so whether the images are the same is unknown."
    elif first.settings.dataset_digest != second.settings.dataset_digest:
        yield " The images are not the same, so the scores cannot be compared."
    elif first.sealed is not None and second.sealed is not None and first.sealed != second.sealed:
        yield " The test images are not the same, so the confirmed scores cannot be compared."
    elif one.confirmed is None or other.confirmed is None:
        yield " The best score of a search is optimistic; compare confirmed scores (`tuner confirm STUDY`)."
