"""The live view of a search: progress, running trials with their curves, the best trial, and counts by outcome."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from tuner.deliver.confirm import ConfirmStarted
from tuner.deliver.retraining import ConfirmProgress
from tuner.pipeline import RunEvent
from tuner.search.events import (
    BestTrial,
    EpochFinished,
    SearchStarted,
    TrialEnded,
    TrialLost,
    TrialPreparing,
    TrialStarted,
)
from tuner.search.objective import value_of
from tuner.training.results import Preparing

BARS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 20
WIDE = 80
"""Minimum width in columns of a terminal that shows curves."""


@dataclass
class _Trial:
    started: TrialStarted
    curve: list[float] = field(default_factory=list)
    preparing: str = ""


@dataclass
class SearchView:
    """The content of the live view, gathered from the events seen so far."""

    study: str = ""
    num_trials: int | None = 0
    num_counted: int = 0
    epochs: int = 0
    running: dict[int, _Trial] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    best: BestTrial | None = None
    num_before: int = 0
    begun: float = field(default_factory=time.monotonic)
    budget_seconds: float = float("inf")
    confirming: str = ""
    uncounted_in_a_row: int = 0
    not_shown: set[str] = field(default_factory=set)
    told_preparing: dict[int, float] = field(default_factory=dict)

    def take(self, event: RunEvent) -> None:
        """Update the view with an event."""
        match event:
            case SearchStarted():
                self.study, self.num_trials, self.epochs = event.study, event.num_trials, event.epochs
                self.num_counted = self.num_before = event.num_counted
                self.outcomes, self.best = Counter(event.outcomes), event.best
                self.begun, self.budget_seconds = time.monotonic(), event.budget_seconds
            case TrialStarted():
                self.running[event.number] = _Trial(event)
            case TrialPreparing() if event.number in self.running:
                self.running[event.number].preparing = describe_preparing(event.progress)
            case EpochFinished():
                self.running[event.number].preparing = ""
                self.running[event.number].curve.append(value_of(event.result))
            case TrialEnded():
                self.running.pop(event.number, None)
                self.outcomes[event.outcome] += 1
                self.num_counted += event.counts
                self.uncounted_in_a_row = 0 if event.counts else self.uncounted_in_a_row + 1
                self.best = event.best
            case TrialLost():
                self.running.pop(event.number, None)
            case ConfirmStarted():
                self.confirming = "confirming the winner"
            case ConfirmProgress():
                self.confirming = describe_progress(event)
            case TrialPreparing():
                self.confirming = f"confirming: trial {event.number}: {describe_preparing(event.progress)}"

    @property
    def seconds_left(self) -> float | None:
        """Estimate the seconds until the search ends; None if no trial has ended and there is no budget.

        The search ends when its budget is used up, or earlier, at the pace of this run, when it has its trials.
        """
        passed = time.monotonic() - self.begun
        ends = [] if self.budget_seconds == float("inf") else [max(0.0, self.budget_seconds - passed)]
        done = self.num_counted - self.num_before
        if done and self.num_trials is not None:
            ends.append(passed / done * (self.num_trials - self.num_counted))
        return min(ends, default=None)

    @property
    def share_done(self) -> float:
        """Share of the search that is done, by its number of trials or else by its time, between 0 and 1."""
        if self.num_trials is not None:
            return self.num_counted / max(self.num_trials, 1)
        return min(1.0, (time.monotonic() - self.begun) / self.budget_seconds)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show the search or its confirmation, or at first that it is being prepared."""
        if self.confirming:
            yield Text(f"{self.study}  {self.confirming}")
        elif not self.study:
            yield Text("reading the images, measuring this machine ...", style="dim")
        else:
            yield from self._search(options)

    def _search(self, options: ConsoleOptions) -> RenderResult:
        """Show the search. Numbers are complete at any width; a narrow terminal cuts networks and shows no curves."""
        is_wide = options.max_width >= WIDE
        left = self.seconds_left
        study = Text(self.study, style="bold", no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(total=1.0, completed=self.share_done, width=30)
        of_total = "" if self.num_trials is None else f"/{self.num_trials}"
        progress = f"{self.num_counted}{of_total} trials"
        time_left = "" if left is None else f"about {format_seconds(left)} left"
        head = Table.grid(
            Column(), Column(no_wrap=True), Column(no_wrap=True), Column(no_wrap=True), padding=(0, 2, 0, 0)
        )
        head.add_row(study, bar if is_wide else "", progress, time_left)
        table = Table(box=None, padding=(0, 1), header_style="dim", expand=False)
        table.add_column("trial", justify="right", no_wrap=True)
        table.add_column("network")
        table.add_column("epoch", justify="right", no_wrap=True)
        table.add_column("accuracy", justify="right", no_wrap=True)
        if is_wide:
            table.add_column("", width=CURVE_WIDTH, no_wrap=True)
        for number, trial in sorted(self.running.items()):
            accuracy = f"{trial.curve[-1]:.2%}" if trial.curve else ""
            words = [trial.preparing] * bool(trial.preparing) + [str(trial.started.candidate.architecture)]
            network = Text(": ".join(words), no_wrap=True, overflow="ellipsis")
            curve = [sparkline(trial.curve)] if is_wide else []
            table.add_row(str(number), network, f"{len(trial.curve)}/{self.epochs}", accuracy, *curve)
        best = Text("best   none yet", style="dim")
        if self.best is not None:
            best = Text(f"best   {describe_best(self.best)}", style="green")
        yield head
        yield table
        yield best
        yield Text(describe_outcomes(self.outcomes), style="dim")


def describe_best(best: BestTrial) -> str:
    """Describe the best trial in a few words."""
    return (
        f"trial {best.number}: {best.validation_accuracy:.2%} at epoch {best.epoch}, {best.num_parameters:,} parameters"
    )


def describe_outcomes(outcomes: Mapping[str, int]) -> str:
    """List counts by outcome; rare outcomes appear only if there are any."""
    counts = {"complete": outcomes["complete"], "pruned": outcomes["pruned"] + outcomes["diverged"]}
    counts["failed"] = outcomes["failed"]
    counts |= {name: outcomes[name] for name in ("rejected", "repeated") if outcomes[name]}
    return "  ".join(f"{number} {name}" for name, number in counts.items())


def describe_progress(event: ConfirmProgress) -> str:
    """Describe the progress of a confirmation in a line."""
    return f"confirming [{event.done}/{event.total}] {event.what}"


def describe_preparing(progress: Preparing) -> str:
    """Describe what a trial computes before its first epoch, as in `computing features 320/1,797`."""
    return f"{progress.what} {progress.done:,}/{progress.total:,}"


def sparkline(curve: list[float]) -> str:
    """Draw the last values of a curve as bars, between its minimum and its maximum."""
    shown = curve[-CURVE_WIDTH:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0
    return "".join(BARS[int((value - low) / span * (len(BARS) - 1))] for value in shown)


def format_seconds(seconds: float) -> str:
    """Format a duration, as in `42 s`, `3 min 05 s` or `1 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
