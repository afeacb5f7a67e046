"""Rich in the terminal: the live view of a search, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from tuner.data.dataset import Report
from tuner.deliver.confirm import ConfirmStarted
from tuner.deliver.retraining import ConfirmProgress
from tuner.pipeline import RunEvent
from tuner.search.dashboard_entries import (
    beats_in_words,
    counted,
    difference_in_words,
    gap_in_words,
    interval_in_words,
    is_compared,
    later_trials,
)
from tuner.search.events import (
    BaselineChosen,
    BestTrial,
    DataReady,
    EpochFinished,
    SearchEnded,
    SearchStarted,
    TrialEnded,
    TrialLost,
    TrialStarted,
)
from tuner.search.summary import StudySummary

BARS = "▁▂▃▄▅▆▇█"
CURVE_WIDTH = 20
MAX_UNCOUNTED_TOLD = 10
"""Rejected, repeated and failed trials in a row that a log has a line for; the end says what came of them."""
WIDE = 80
"""Columns of a terminal from which on curves are shown."""
REFRESH_PER_SECOND = 4
ALWAYS_TOLD = DataReady | SearchStarted | BaselineChosen | SearchEnded | TrialLost | ConfirmStarted | ConfirmProgress
"""Events that leave a line above the live view."""


@dataclass
class _Trial:
    started: TrialStarted
    curve: list[float] = field(default_factory=list)


@dataclass
class SearchView:
    """What the live view shows, gathered from the events seen so far."""

    study: str = ""
    num_trials: int = 0
    num_counted: int = 0
    epochs: int = 0
    running: dict[int, _Trial] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    best: BestTrial | None = None
    num_before: int = 0
    begun: float = field(default_factory=time.monotonic)
    confirming: str = ""
    uncounted_in_a_row: int = 0
    not_shown: set[str] = field(default_factory=set)

    def take(self, event: RunEvent) -> None:
        """Bring the view up to date."""
        match event:
            case SearchStarted():
                self.study, self.num_trials, self.epochs = event.study, event.num_trials, event.epochs
                self.num_counted = self.num_before = event.num_counted
                self.outcomes, self.best = Counter(event.outcomes), event.best
                self.begun = time.monotonic()
            case TrialStarted():
                self.running[event.number] = _Trial(event)
            case EpochFinished():
                self.running[event.number].curve.append(event.result.validation_accuracy)
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
                self.confirming = line_of(event, self)

    @property
    def seconds_left(self) -> float | None:
        """At the pace of this run so far; None before its first trial has ended."""
        done = self.num_counted - self.num_before
        if not done:
            return None
        return (time.monotonic() - self.begun) / done * (self.num_trials - self.num_counted)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The search, or its confirmation; before them, that it is being prepared."""
        if self.confirming:
            yield Text(f"{self.study}  {self.confirming}")
        elif not self.study:
            yield Text("reading the images, measuring this machine ...", style="dim")
        else:
            yield from self._search(options)

    def _search(self, options: ConsoleOptions) -> RenderResult:
        """Numbers are shown whole at any width; a narrow terminal cuts networks, and shows no curves."""
        is_wide = options.max_width >= WIDE
        left = self.seconds_left
        study = Text(self.study, style="bold", no_wrap=True, overflow="ellipsis")
        bar = ProgressBar(total=max(self.num_trials, 1), completed=self.num_counted, width=30)
        progress = f"{self.num_counted}/{self.num_trials} trials"
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
            network = Text(str(trial.started.candidate.architecture), no_wrap=True, overflow="ellipsis")
            curve = [sparkline(trial.curve)] if is_wide else []
            table.add_row(str(number), network, f"{len(trial.curve)}/{self.epochs}", accuracy, *curve)
        best = Text("best   none yet", style="dim")
        if self.best is not None:
            best = Text(f"best   {describe_best(self.best)}", style="green")
        yield head
        yield table
        yield best
        yield Text(describe_outcomes(self.outcomes), style="dim")


def watch(events: Iterable[RunEvent], console: Console, *, quiet: bool = False) -> SearchView:
    """Show a search while it runs, and give what was seen: live in a terminal, else a line for each trial."""
    view = SearchView()
    if quiet:
        for event in events:
            view.take(event)
    elif not console.is_terminal:
        for event in events:
            view.take(event)
            for line in (line_of(event, view), new_problem(event, view)):
                if line:
                    console.print(line, highlight=False, soft_wrap=True)
    else:
        with Live(view, console=console, refresh_per_second=REFRESH_PER_SECOND) as live:
            for event in events:
                view.take(event)
                if isinstance(event, ALWAYS_TOLD) and line_of(event, view):
                    live.console.print(line_of(event, view), highlight=False)
                elif isinstance(event, TrialEnded) and event.outcome == "failed":
                    live.console.print(line_of(event, view), style="red", highlight=False)
                if problem := new_problem(event, view):
                    live.console.print(problem, style="red", highlight=False)
    return view


@contextmanager
def progress_reporter(console: Console, *, quiet: bool) -> Iterator[Report | None]:
    """A progress bar for downloads and decoding, while there is something to show; None when quiet or no terminal."""
    if quiet or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    progress = Progress(*columns, console=console, transient=True)
    tasks: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if not tasks:
            progress.start()
        if what not in tasks:
            tasks[what] = progress.add_task(what, total=total)
        progress.update(tasks[what], completed=done, total=total)
        if all(task.finished for task in progress.tasks):
            progress.stop()

    try:
        yield report
    finally:
        if tasks:
            progress.stop()


def winner_lines(summary: StudySummary, *, arguments: str = "") -> list[str]:
    """The winner, its score, its checkpoint path, and the next commands."""
    best = summary.best
    if best is None:
        return [f"study {summary.study}: no complete trial yet, so no winner"]
    name = f"{summary.study}{arguments}"
    confirmed = summary.confirmed
    winner = best if summary.winner is None else summary.winner
    lines = [
        "",
        f"winner   trial {winner.number} of {summary.num_counted}: {winner.candidate.architecture}",
        f"score    {winner.validation_accuracy:.2%} validation accuracy at epoch {winner.best_epoch}, "
        f"{winner.num_parameters:,} parameters",
    ]
    if confirmed is None:
        unbiased = f"run `tuner confirm {name}` for an unbiased one"
        lines.append(f"         not confirmed, so the score is optimistic; {unbiased}")
    else:
        later = later_trials(confirmed, summary.num_counted, name=name)
        sentences = [*verdict_lines(confirmed), *([later] if later else [])]
        lines += [f"test     {sentence}" for sentence in sentences]
    path = summary.checkpoint if confirmed is None else summary.delivered
    if path is not None:
        lines.append(f"file     {path}")
        following = [f"tuner export {name} -o best.pt", "tuner predict best.pt IMAGE..."]
    else:
        again = "" if confirmed is None else f", or make it again with `tuner confirm {name}`"
        lines.append(
            f"file     gone: it is not in the folder of this study; give the --studies that it was run with{again}"
        )
        following = []
    following += [f"tuner inspect {name} --trial {winner.number}", f"tuner dashboard {name}"]
    return [*lines, "next", *(f"  {command}" for command in following)]


def verdict_lines(confirmed: Mapping[str, Any]) -> list[str]:
    """What a confirmation found, in words: the test accuracy, whether the winner beats the baseline."""
    against = beats_in_words(confirmed)
    if is_compared(confirmed):
        against += (
            f" (trial {confirmed['baseline_number']}, {confirmed['baseline_test_accuracy']:.2%}): "
            f"difference {difference_in_words(confirmed)}"
        )
    return [
        f"{confirmed['test_accuracy']:.2%} on {confirmed['num_test_images']:,} sealed images, "
        f"mean of {counted(len(confirmed['seeds']), 'seed')}, {interval_in_words(confirmed)}; "
        f"the file's own {confirmed['delivered_test_accuracy']:.2%}",
        against,
        f"the search's own figure, {confirmed['search_accuracy']:.2%}, was {gap_in_words(confirmed)}",
        *confirmed["notes"],
    ]


def line_of(event: RunEvent, view: SearchView) -> str:
    """An event as a line of a log; empty for what a log need not have."""
    match event:
        case DataReady():
            channels, height, width = event.shape
            notes = "".join(f"\n{note}" for note in event.notes)
            return (
                f"{event.dataset}: {event.num_train:,} images to train on, {event.num_validation:,} to validate, "
                f"{height}x{width}, {'grey' if channels == 1 else 'RGB'}, {event.num_classes} classes; "
                f"{event.held}; device {event.device}{notes}"
            )
        case SearchStarted():
            if event.num_counted >= event.num_trials:
                return f"study {event.study} is complete: it has {event.num_counted} trials; --trials asks for more"
            done = f", {event.num_counted} of them done" if event.num_counted else ""
            return f"study {event.study}: {event.num_trials} trials{done}, at most {event.epochs} epochs each"
        case BaselineChosen():
            return f"trial {event.number} is the baseline: {event.description}"
        case TrialEnded() if view.uncounted_in_a_row > MAX_UNCOUNTED_TOLD:
            return ""
        case TrialEnded():
            accuracy = "" if event.validation_accuracy is None else f"  {event.validation_accuracy:.2%}"
            at = "" if event.best_epoch is None else f" at epoch {event.best_epoch}"
            reason = f"  ({event.reason})" if event.reason else ""
            progress = f"[{view.num_counted}/{view.num_trials}]"
            return f"{progress} trial {event.number}  {event.outcome}{accuracy}{at}  {event.seconds:.1f} s{reason}"
        case TrialLost():
            return f"trial {event.number} is restarted: {event.reason}"
        case SearchEnded() if event.reason:
            return f"the search ends with {event.num_counted} of {view.num_trials} trials: {event.reason}"
        case ConfirmStarted():
            numbers = ("trials " if len(event.numbers) > 1 else "trial ") + ", ".join(map(str, event.numbers))
            notes = "".join(f"\n{note}" for note in event.notes)
            return f"confirming: {numbers} again, on fresh splits, with {counted(event.num_seeds, 'seed')}{notes}"
        case ConfirmProgress():
            return f"confirming [{event.done}/{event.total}] {event.what}"
    return ""


def new_problem(event: RunEvent, view: SearchView) -> str:
    """That optuna-dashboard will not show all of a trial, as a line; empty where it will, or has been reported."""
    if not isinstance(event, TrialEnded) or not event.not_shown or event.not_shown in view.not_shown:
        return ""
    view.not_shown.add(event.not_shown)
    return f"trial {event.number} has no note and no pictures in optuna-dashboard: {event.not_shown}"


def describe_best(best: BestTrial) -> str:
    """The best trial in a few words."""
    return (
        f"trial {best.number}: {best.validation_accuracy:.2%} at epoch {best.epoch}, {best.num_parameters:,} parameters"
    )


def describe_outcomes(outcomes: Mapping[str, int]) -> str:
    """Counts by outcome; those that are rare only when there are any."""
    counts = {"complete": outcomes["complete"], "pruned": outcomes["pruned"] + outcomes["diverged"]}
    counts["failed"] = outcomes["failed"]
    counts |= {name: outcomes[name] for name in ("rejected", "repeated") if outcomes[name]}
    return "  ".join(f"{number} {name}" for name, number in counts.items())


def sparkline(curve: list[float]) -> str:
    """The last values of a curve as bars, from its lowest to its highest."""
    shown = curve[-CURVE_WIDTH:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    span = (high - low) or 1.0
    return "".join(BARS[int((value - low) / span * (len(BARS) - 1))] for value in shown)


def format_seconds(seconds: float) -> str:
    """`42 s`, `3 min 05 s`, `1 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
