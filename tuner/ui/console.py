"""Show a run in the terminal: a live view, or plain lines where there is no terminal, and progress bars."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from tuner.data.dataset import Report
from tuner.deliver.confirm import ConfirmStarted
from tuner.deliver.retraining import ConfirmProgress
from tuner.pipeline import RunEvent
from tuner.pretrained.downloads import DOWNLOADING
from tuner.search.events import (
    BaselineChosen,
    DataReady,
    GivenChanged,
    SearchEnded,
    SearchStarted,
    TrialEnded,
    TrialLost,
)
from tuner.ui.event_lines import line_of, new_problem
from tuner.ui.search_view import SearchView

REFRESH_PER_SECOND = 4
ALWAYS_TOLD = (
    DataReady
    | SearchStarted
    | BaselineChosen
    | GivenChanged
    | SearchEnded
    | TrialLost
    | ConfirmStarted
    | ConfirmProgress
)
"""Events that leave a line above the live view."""


def watch(events: Iterable[RunEvent], console: Console, *, quiet: bool = False) -> SearchView:
    """Show a search while it runs, and return its view: live in a terminal, otherwise as one line per trial."""
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
    """Yield a progress callback for downloads, decoding and features; None if quiet.

    It draws bars in a terminal. Elsewhere, it prints one line for each download of weights, which may take long.
    """
    if quiet:
        yield None
        return
    if not console.is_terminal:
        yield _line_reporter(console)
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn())
    progress = Progress(*columns, console=console, transient=True)
    tasks: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = progress.add_task(what, total=total)
            progress.start()
        progress.update(tasks[what], completed=done, total=total)
        if done >= total:  # the same may begin again, such as the features of another backbone
            progress.refresh()
            progress.remove_task(tasks.pop(what))
        if not tasks:
            progress.stop()

    try:
        yield report
    finally:
        progress.stop()


def _line_reporter(console: Console) -> Report:
    """Return a progress callback that prints a line when a download of weights begins."""
    begun: set[str] = set()

    def report(what: str, done: int, total: int) -> None:
        if what.startswith(DOWNLOADING) and what not in begun:
            begun.add(what)
            console.print(f"{what} ({total / 1e6:,.0f} MB)", highlight=False, soft_wrap=True)

    return report
