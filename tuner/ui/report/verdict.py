"""The head of a report: what was found, in a sentence, and how certain it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape

from tuner.search.class_scores import ClassScores
from tuner.search.class_sentences import class_sentences, largest_class_in_words
from tuner.search.confirmation import Confirmation
from tuner.search.confirmation_sentences import (
    baseline_in_words,
    beats_in_words,
    counted,
    gap_in_words,
    interval_in_words,
    later_trials,
    scored_images_in_words,
)
from tuner.search.record import StudyRecord
from tuner.search.summary import StudySummary
from tuner.search.trial_record import TrialRecord
from tuner.training.engine import tail_engine


def verdict(record: StudyRecord, summary: StudySummary, trials: Sequence[TrialRecord]) -> str:
    """The header of the page."""
    of = f"{escape(summary.dataset)}, space {escape(summary.space)}"
    head = f'<p class="name">{escape(record.name)} <span>{of}</span></p>'
    unfinished = sum(not trial.state.is_finished() for trial in trials)
    going = (
        f'<p class="note">The search is not over: {counted(unfinished, "trial")} still to end.</p>'
        if unfinished
        else ""
    )
    if summary.confirmed is not None:
        return f'<header id="verdict" class="confirmed">{head}{_confirmed(summary.confirmed, summary)}{going}</header>'
    best = summary.best
    if best is None:
        words = "<h1>No trial is complete yet, so there is no winner.</h1>"
        return f'<header id="verdict" class="open">{head}{words}{going}</header>'
    num_trials = f"{summary.num_counted:,}"
    how = f"Run <code>tuner confirm {escape(record.name)}</code> for an unbiased score."
    if summary.is_older:
        how = "A study of an earlier version of tuner cannot be confirmed with this one."
    words = (
        f"<h1>Trial {best.number} has the best validation accuracy of {num_trials} trials: "
        f"<strong>{best.validation_accuracy:.2%}</strong>.</h1>"
        f'<p class="lead">This score is optimistic: it is the best of {num_trials}, on the same images that '
        f"chose it. {how}</p>"
    )
    tiles = _tiles(
        {
            "validation accuracy": (f"{best.validation_accuracy:.2%}", f"epoch {best.best_epoch}, not confirmed"),
            **_balanced_tile(summary.best_class_scores, "validation images"),
            "parameters": (f"{best.num_parameters:,}", f"{best.flops:,} FLOPs"),
            "trials": (num_trials, f"{summary.counts['complete']:,} complete, {summary.counts['pruned']:,} pruned"),
        }
    )
    by_class = _unrecognised(summary.best_class_scores, "validation images")
    return f'<header id="verdict" class="open">{head}{words}{by_class}{tiles}{going}</header>'


def facts(record: StudyRecord, trials: Sequence[TrialRecord]) -> str:
    """Describe the search in a sentence or two."""
    settings, engine = record.settings, record.engine
    if settings.space.get("backbone"):
        engine = tail_engine(engine)
    outcomes: dict[str, int] = {}
    for trial in trials:
        outcome = trial.outcome or trial.state.name.lower()
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    counts = ", ".join(
        f"{number:,} {outcome}" for outcome, number in sorted(outcomes.items(), key=lambda item: -item[1])
    )
    seconds = sum(trial.seconds for trial in trials)
    words = (
        f"{counted(len(trials), 'candidate')} ({counts or 'none yet'}), "
        f"at most {counted(settings.epochs, 'epoch')} each, "
        f"seed {settings.seed}; {_duration(seconds)} of training on {engine.device}, in {engine.precision}."
    )
    return f'<p class="caption">{escape(words)}</p>'


def _confirmed(found: Confirmation, summary: StudySummary) -> str:
    winner = summary.winner
    interval, against = "", {}
    if found.difference is not None and found.is_compared:
        between = "no interval"
        if found.difference_interval is not None:
            less, more = found.difference_interval
            interval = _interval(found.difference, less, more)
            between = f"{_points(less)} to {_points(more)}"
        against["over the baseline"] = (
            f"{_points(found.difference)} points",
            f"{between}; trial {found.baseline_number}, {baseline_in_words(found)}, has "
            f"{found.baseline_test_accuracy:.2%}",
        )
    tiles = {
        "test accuracy": (
            f"{found.test_accuracy:.2%}",
            f"{interval_in_words(found)}, {counted(len(found.seeds), 'seed')}",
        ),
        **_balanced_tile(found.class_scores, "test images"),
        **against,
        "the search had promised": (
            f"{found.search_accuracy:.2%}",
            gap_in_words(found)
            + ("" if found.validation_mean is None else f"; {found.validation_mean:.2%} when trained again"),
        ),
        "of the delivered file": (
            f"{found.delivered_test_accuracy:.2%}",
            f"{winner.num_parameters:,} parameters" if winner else "the first seed",
        ),
    }
    lead = "first" if found.is_of_baseline else found.beats_baseline
    later = later_trials(found, summary.num_counted, name=summary.study)
    going_on = f'<p class="note">{_with_code(later[0].upper() + later[1:])}.</p>' if later else ""
    notes = "".join(f"<li>{_with_code(note)}</li>" for note in found.notes)
    return (
        f"<h1>Trial {found.number} scores <strong>{found.test_accuracy:.2%}</strong> on {escape(_images(found))}.</h1>"
        f'<p class="lead {escape(lead)}">{beats_in_words(found).capitalize()}.</p>'
        f"{_unrecognised(found.class_scores, 'test images')}{going_on}"
        f"{_tiles(tiles)}{interval}{_candidates(found)}" + (f'<ul class="notes">{notes}</ul>' if notes else "")
    )


def _balanced_tile(scores: ClassScores | None, images: str) -> dict[str, tuple[str, str]]:
    """A tile beside the accuracy, where classes differ much in size."""
    if scores is None or not scores.are_uneven:
        return {}
    return {"balanced accuracy": (f"{scores.balanced_accuracy:.2%}", largest_class_in_words(scores, images))}


def _unrecognised(scores: ClassScores | None, images: str) -> str:
    """A sentence on classes that are never recognised; empty if there are none."""
    if scores is None:
        return ""
    sentences = class_sentences(replace(scores, are_uneven=False), images)
    return "".join(f'<p class="note">{escape(words[0].upper() + words[1:])}.</p>' for words in sentences)


def _images(found: Confirmation) -> str:
    if not found.num_shared_test_images:
        return "images that no part of the search has seen"
    return scored_images_in_words(found)


def _tiles(values: Mapping[str, tuple[str, str]]) -> str:
    tiles = "".join(
        f'<div class="tile"><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(words)}</small></dd></div>'
        for name, (value, words) in values.items()
    )
    return f'<dl class="tiles">{tiles}</dl>'


def _interval(difference: float, less: float, more: float) -> str:
    """Draw the difference from the baseline with its interval, around the line of no difference."""
    reach = max(abs(less), abs(more), abs(difference), 1e-4) * 1.15

    def x(value: float) -> float:
        return 50 + 50 * value / reach

    return (
        '<figure class="interval"><svg viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<path class="zero" d="M50 0V8"/>'
        f'<path class="range" d="M{x(less):.2f} 4H{x(more):.2f}"/></svg>'
        f'<span class="dot" style="left:{x(difference):.2f}%"></span>'
        "<figcaption><span>baseline better</span><span>difference with its 95 % interval</span>"
        "<span>winner better</span></figcaption></figure>"
    )


def _candidates(found: Confirmation) -> str:
    rows = []
    for one in found.candidates:
        scores = ", ".join(f"{accuracy:.2%}" for accuracy in one.validation_accuracies) or "none"
        roles = [
            word
            for word, number in (("winner", found.number), ("baseline", found.baseline_number))
            if number == one.number
        ]
        cells = [f"trial {one.number}", ", ".join(roles), scores, one.dropped]
        rows.append(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>")
    return (
        f"<details><summary>How it was confirmed: {counted(len(rows), 'candidate')} trained again in "
        f"{escape(_duration(found.seconds))}</summary><div class='scroll'><table><thead><tr><th>candidate</th>"
        f"<th></th><th>validation accuracy, seed by seed</th><th>dropped</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )


def _with_code(text: str) -> str:
    """Format the text between backticks as code."""
    return re.sub("`(.+?)`", r"<code>\1</code>", escape(text))


def _points(share: float) -> str:
    return f"{100 * share:+.2f}".replace("-", "−")


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "less than a second"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
