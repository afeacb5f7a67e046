"""The HTML page, which contains everything that it needs; a content security policy keeps it from loading more."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from optuna.trial import FrozenTrial

from tuner.__about__ import __version__
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace
from tuner.errors import StudyError, TunerError, reason_of
from tuner.names import shown_name
from tuner.search.dashboard_entries import augmentation_in_words, recipe_in_words
from tuner.search.record import StudyRecord
from tuner.search.stored_options import load_allowed
from tuner.search.summary import StudySummary, summarise
from tuner.search.trial_record import TrialRecord
from tuner.temporary import temporary_beside
from tuner.ui.check_lines import check_lines
from tuner.ui.report import parameter_figures, search_figures
from tuner.ui.report.augmented_images import contact_sheet_uri
from tuner.ui.report.figure_parts import Figure, scored
from tuner.ui.report.mistakes import Judged, Mistake, judge
from tuner.ui.report.network_drawing import network_drawing
from tuner.ui.report.verdict import facts, verdict
from tuner.ui.tables import layer_rows

HERE = Path(__file__).parent
DEFAULT_HEIGHT = 380


def write_report(record: StudyRecord, *, studies: Path, output: Path) -> None:
    """Write a study's page to a file atomically. Raises StudyError if it cannot be written."""
    if output.is_dir():
        raise StudyError(f"-o {output} is a folder; give the name of a file in it")
    page = shown_name(report_page(record, studies=studies))
    try:
        if output.exists() and not output.is_file():  # such as /dev/stdout
            output.write_text(page, encoding="utf-8")
            return
        target = output.resolve()
        temporary = temporary_beside(target)
        try:
            temporary.write_text(page, encoding="utf-8")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StudyError(f"-o {output}: cannot be written: {reason_of(error)}") from error


def report_page(record: StudyRecord, *, studies: Path) -> str:
    """Return the HTML of a study's page. If something is missing, such as the images, the page says so."""
    from plotly.offline import get_plotlyjs

    stored = record.stored_trials()
    trials = record.trials(stored)
    summary = summarise(record, studies=studies, trials=trials)
    winner = summary.winner or summary.best
    judged: Judged | str
    try:
        judged = judge(record, summary, studies=studies)
    except TunerError as error:
        judged = str(error)
    scripts = [get_plotlyjs(), (HERE / "page.js").read_text(encoding="utf-8")]
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(_hash_of, scripts))}",
            "style-src 'unsafe-inline'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    body = "\n".join(
        [
            verdict(record, summary, trials),
            _data_section(record, summary),
            *_search_sections(record, trials, stored, winner),
            *([_winner_section(winner), *_augmentation_section(record, winner, studies)] if winner else []),
            _mistakes_section(judged),
            f"<footer>tuner {escape(__version__)}. This page holds all that it shows and fetches nothing.</footer>",
        ]
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
<title>{escape(record.name)} · tuner report</title>
<style>{(HERE / "page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
{body}
</main>
<script>{scripts[0]}</script>
<script>{scripts[1]}</script>
</body>
</html>
"""


def _data_section(record: StudyRecord, summary: StudySummary) -> str:
    """Describe what was found in the images; empty for an older study, which does not know it."""
    if summary.checks is None:
        return ""
    lines = check_lines(summary.checks, summary.dataset, allowed=load_allowed(record))
    return _section("The data", f"<ul id='checks'>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>")


def _search_sections(
    record: StudyRecord, trials: list[TrialRecord], stored: list[FrozenTrial], winner: TrialRecord | None
) -> Iterator[str]:
    number = winner.number if winner else None
    found = parameter_figures.importances(stored)
    spaces = parameter_figures.distributions_of(stored)
    names = [name for name in (list(found) or list(spaces)) if name in spaces][: parameter_figures.NUM_SLICES]
    yield _section(
        "The search",
        facts(record, trials),
        _figure(search_figures.history(trials)),
        _figure(search_figures.curves(trials, number)),
    )
    cards = "".join(_figure(figure, level=4) for figure in parameter_figures.slices(trials, names, spaces))
    yield _section(
        "The parameters",
        _figure(parameter_figures.importance_bars(found)),
        f'<h3>One by one</h3><p class="caption">Accuracy against {"the most important" if found else "the first"} '
        f'parameters.</p><div class="grid">{cards}</div>'
        if scored(trials)
        else "",
        _figure(parameter_figures.parallel(trials, names, spaces)),
    )
    costs = search_figures.against_parameters(trials, number), search_figures.against_latency(trials, number)
    pair = "".join(map(_figure, costs))
    yield _section("The cost", f'<div class="pair">{pair}</div>', _figure(search_figures.timeline(trials)))


def _winner_section(winner: TrialRecord) -> str:
    architecture = winner.candidate.architecture
    drawing = (
        f'<div class="scroll card" tabindex="0">{network_drawing(trace(architecture))}</div>'
        if isinstance(architecture, Architecture)
        else ""  # a backbone has more layers than a drawing can show
    )
    *rows, total = (_row("td", row) for row in layer_rows(architecture))
    head = _row("th", ["part", "layer", "output", "arithmetic", "parameters", "FLOPs"])
    table = f"<table class='layers'><thead>{head}</thead><tbody>{''.join(rows)}</tbody><tfoot>{total}</tfoot></table>"
    return _section(
        f"The winner: trial {winner.number}",
        f'<p class="caption"><code>{escape(str(architecture))}</code></p>',
        f'<p class="caption">Trained with {escape(recipe_in_words(winner.candidate.recipe))}.</p>',
        drawing,
        f'<div class="scroll card" tabindex="0">{table}</div>',
    )


def _augmentation_section(record: StudyRecord, winner: TrialRecord, studies: Path) -> Iterator[str]:
    """Show training images as the winner's recipe augments them; nothing if it does not."""
    words = ", ".join(augmentation_in_words(winner.candidate.recipe))
    if not words:
        return
    caption = f'<p class="caption">Training images of the first epochs, with {escape(words)}.</p>'
    try:
        uri = contact_sheet_uri(record, winner.candidate, studies=studies)
    except TunerError as error:
        why = f"There are no images here: {error}."
        yield _section("What it is trained on", caption, f'<p class="absent" id="augmented-absent">{escape(why)}</p>')
        return
    image = f'<img src="{uri}" alt="training images and their augmented versions, with {escape(words)}">'
    yield _section("What it is trained on", caption, f'<div class="scroll card sheet" tabindex="0">{image}</div>')


def _mistakes_section(judged: Judged | str) -> str:
    title = "What it gets wrong"
    if isinstance(judged, str):
        why = f"There is no confusion matrix and there are no images here: {judged}."
        return _section(title, f'<p class="absent" id="confusion-absent">{escape(why)}</p>')
    right = judged.num_images - judged.num_wrong
    words = (
        f"On {judged.where}: {right:,} of {judged.num_images:,} correct ({right / judged.num_images:.2%}), "
        f"{judged.num_wrong:,} wrong." + "".join(f" Note: {repair}." for repair in judged.repairs)
    )
    gallery = "".join(map(_mistake, judged.worst))
    images = (
        f"<h3>The worst of them</h3><p class='caption'>The images on which it gave the least to what is true.</p>"
        f"<div class='gallery'>{gallery}</div>"
        if gallery
        else ""
    )
    return _section(
        title,
        f"<p id='judged'>{escape(words)}</p>",
        _figure(search_figures.confusion_matrix(judged.confusion, judged.class_names)),
        images,
    )


def _mistake(mistake: Mistake) -> str:
    said, truth = escape(mistake.said), escape(mistake.truth)
    return (
        f'<figure class="mistake"><img src="{mistake.image}" alt="an image of {truth}">'
        f'<figcaption><span class="said">says {said} <small>{mistake.said_probability:.0%}</small></span>'
        f'<span class="truth">is {truth} <small>{mistake.truth_probability:.1%}</small></span></figcaption></figure>'
    )


def _figure(figure: Figure, *, level: int = 3) -> str:
    """Return a figure and its data as JSON in which no HTML tag can end."""
    heading = f"<h{level}>{escape(figure.title)}</h{level}>" if figure.title else ""
    if figure.absent:
        why = f'<p class="absent" id="{figure.id}-absent">{escape(figure.absent)}</p>'
        return f'<section class="card">{heading}{why}</section>'
    layout = {"height": DEFAULT_HEIGHT, **figure.layout}
    numbers = json.dumps({"data": figure.data, "layout": layout}, separators=(",", ":"), allow_nan=False)
    numbers = numbers.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    caption = f'<p class="caption">{escape(figure.caption)}</p>' if figure.caption else ""
    return (
        f'<section class="card">{heading}{caption}'
        f'<div class="plot" id="{figure.id}" style="height:{layout["height"]}px"></div>'
        f'<script type="application/json" data-figure="{figure.id}">{numbers}</script></section>'
    )


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def _row(cell: str, texts: Iterable[str]) -> str:
    return f"<tr>{''.join(f'<{cell}>{escape(text)}</{cell}>' for text in texts)}</tr>"


def _hash_of(script: str) -> str:
    """Hash a script for a content security policy."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
