"""Format the events of a run as lines of a log."""

from __future__ import annotations

import time

from tuner.deliver.confirm import ConfirmStarted
from tuner.deliver.retraining import ConfirmProgress
from tuner.pipeline import RunEvent
from tuner.search.confirmation_sentences import counted
from tuner.search.events import (
    BaselineChosen,
    DataReady,
    GivenChanged,
    SearchEnded,
    SearchStarted,
    TrialEnded,
    TrialLost,
    TrialPreparing,
)
from tuner.ui.check_lines import found_lines
from tuner.ui.search_view import SearchView, describe_preparing, describe_progress, format_seconds

MAX_UNCOUNTED_TOLD = 10
"""Number of rejected, repeated and failed trials in a row that are logged one by one; more are only counted."""
PREPARING_SECONDS = 10.0
"""Least time between two lines about what a trial computes before its first epoch."""


def line_of(event: RunEvent, view: SearchView) -> str:
    """Format an event as a line of a log; empty for an event that is not logged."""
    match event:
        case DataReady():
            channels, *size = event.shape
            sizes = " and ".join("{}x{}".format(*one) for one in (size, *event.other_sizes))
            found = [] if event.checks is None else found_lines(event.checks)
            notes = "".join(f"\n{note}" for note in (*event.notes, *found))
            return (
                f"{event.dataset}: {event.num_train:,} images to train on, {event.num_validation:,} to validate, "
                f"{sizes}, {'grey' if channels == 1 else 'RGB'}, {event.num_classes} classes; "
                f"{event.held}; device {event.device}{notes}"
            )
        case SearchStarted():
            if event.num_trials is not None and event.num_counted >= event.num_trials:
                more = "give a larger --trials to add more"
                return f"study {event.study} is complete: it has {counted(event.num_counted, 'trial')}; {more}"
            done = f", {event.num_counted} of them done" if event.num_counted else ""
            trials = "trials" if event.num_trials is None else counted(event.num_trials, "trial")
            seconds = event.budget_seconds
            within = f" for {format_seconds(seconds)}" if event.num_trials is None else ""
            return f"study {event.study}: {trials}{within}{done}, at most {counted(event.epochs, 'epoch')} each"
        case BaselineChosen():
            return f"trial {event.number} is the baseline: {event.description}"
        case GivenChanged():
            return f"trial {event.number} is a configuration that the space gives, with {event.changes}"
        case TrialEnded() if view.uncounted_in_a_row > MAX_UNCOUNTED_TOLD:
            return ""
        case TrialEnded():
            accuracy = "" if event.validation_accuracy is None else f"  {event.validation_accuracy:.2%}"
            at = "" if event.best_epoch is None else f" at epoch {event.best_epoch}"
            reason = f"  ({event.reason})" if event.reason else ""
            progress = f"[{view.num_counted}]" if view.num_trials is None else f"[{view.num_counted}/{view.num_trials}]"
            return f"{progress} trial {event.number}  {event.outcome}{accuracy}{at}  {event.seconds:.1f} s{reason}"
        case TrialPreparing() if _is_due(event, view):
            return f"trial {event.number}: {describe_preparing(event.progress)}"
        case TrialLost():
            return f"trial {event.number} is restarted: {event.reason}"
        case SearchEnded() if event.reason:
            of_total = "" if view.num_trials is None else f" of {view.num_trials}"
            return f"the search ends with {event.num_counted}{of_total} trials: {event.reason}"
        case ConfirmStarted():
            numbers = ("trials " if len(event.numbers) > 1 else "trial ") + ", ".join(map(str, event.numbers))
            notes = "".join(f"\n{note}" for note in event.notes)
            split = "validated on the set's own validation part" if event.is_validation_fixed else "on fresh splits"
            return f"confirming: {numbers} again, {split}, with {counted(event.num_seeds, 'seed')}{notes}"
        case ConfirmProgress():
            return describe_progress(event)
    return ""


def _is_due(event: TrialPreparing, view: SearchView) -> bool:
    """Whether there was no line about the preparation of this trial for a while."""
    now = time.monotonic()
    if now - view.told_preparing.get(event.number, -PREPARING_SECONDS) < PREPARING_SECONDS:
        return False
    view.told_preparing[event.number] = now
    return True


def new_problem(event: RunEvent, view: SearchView) -> str:
    """Report why optuna-dashboard will not show everything of a trial. Empty if it will, or if this was reported."""
    if not isinstance(event, TrialEnded) or not event.not_shown or event.not_shown in view.not_shown:
        return ""
    view.not_shown.add(event.not_shown)
    return f"trial {event.number} has no note and no pictures in optuna-dashboard: {event.not_shown}"
