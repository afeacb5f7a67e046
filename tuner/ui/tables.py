"""Rich tables: the layers of a network, the trials of a study, the studies, and the search spaces."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from tuner.architecture.any_architecture import AnyArchitecture, cost_of
from tuner.architecture.cost import layer_cost
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.parts import Items, Part, steps_of
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace
from tuner.search.class_sentences import class_sentences
from tuner.search.confirmation_sentences import (
    beats_in_words,
    counted,
    interval_in_words,
    later_trials,
    scored_set_in_words,
)
from tuner.search.dashboard_entries import recipe_in_words
from tuner.search.objective import ranked
from tuner.search.study_deletion import disk_size_in_words
from tuner.search.summary import StudySummary
from tuner.search.trial_record import TrialRecord
from tuner.training.candidate import Candidate

if TYPE_CHECKING:
    from tuner.space.parameter import Parameter
    from tuner.space.schema import SearchSpace

NARROW = 110
"""Width in columns below which a layer and its arithmetic do not fit side by side."""


@dataclass(frozen=True)
class NetworkTable:
    """Every layer with its output shape, arithmetic, parameters and FLOPs, and the recipe below."""

    candidate: Candidate

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the table; in a narrow terminal, the arithmetic is below its layer."""
        is_narrow = options.max_width < NARROW
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
        table.add_column("part", no_wrap=True)
        table.add_column("layer", overflow="fold", min_width=12)
        table.add_column("output", no_wrap=True)
        if not is_narrow:
            table.add_column("arithmetic", no_wrap=True)
        table.add_column("parameters", justify="right", no_wrap=True)
        table.add_column("FLOPs", justify="right", no_wrap=True)
        *rows, total = layer_rows(self.candidate.architecture)
        for part, source, output, arithmetic, *costs in [*rows, total]:
            layer = _rounded(source)
            if (part, source) == (total[0], ""):
                table.add_section()
            if is_narrow:
                table.add_row(part, "\n".join(filter(None, [layer, arithmetic])), output, *costs)
            else:
                table.add_row(part, layer, output, arithmetic, *costs)
        yield table
        if not isinstance(self.candidate.architecture, Architecture):
            from tuner.ui.stage_rows import weights_in_words  # imports torch

            yield Text(f"weights  {weights_in_words(self.candidate.architecture)}")
        yield Text(f"recipe   {recipe_in_words(self.candidate.recipe)}")


def layer_rows(architecture: AnyArchitecture) -> list[tuple[str, ...]]:
    """Part, layer, output, arithmetic, parameters and FLOPs: of the input, of every layer and join, and in all.

    A backbone has a row for each of its stages; those that are not trained are called frozen.
    """
    parts: tuple[Part, ...]
    rows: list[tuple[str, ...]] = [("input", "", shape_in_words(architecture.input_shape), "", "", "")]
    if isinstance(architecture, Architecture):
        parts = trace(architecture)
    else:
        from tuner.architecture.backbone_modules import layers_of_head  # imports torch
        from tuner.ui.stage_rows import stage_rows

        parts = (Part("head", tuple(layers_of_head(architecture))),)
        rows += stage_rows(architecture)
    for part in parts:
        (_, *first), *others = _rows_of(part.main)
        rows += [(part.name, *first), *others]
    total = cost_of(architecture)
    return [*rows, ("total", "", "", "", f"{total.num_parameters:,}", f"{total.flops:,}")]


def _rows_of(items: Items) -> Iterator[tuple[str, ...]]:
    """The rows of a path. Those of a shortcut's layers follow those of its main path, and the join follows both.

    The input of an excitation is not that of its block, so that its rows are named.
    """
    for step in steps_of(items):
        if isinstance(step, Layer):
            cost = layer_cost(step)
            yield (
                "",
                step.source.removeprefix("nn."),
                shape_in_words(step.output_shape),
                step.arithmetic,
                f"{cost.num_parameters:,}" if cost.num_parameters else "",
                f"{cost.flops:,}" if cost.flops else "",
            )
            continue
        is_sum = step.join == "add"
        for part, *row in _rows_of(step.main):
            yield (part or ("" if is_sum else step.name), *row)
        for _, *row in _rows_of(step.shortcut):
            yield ("shortcut", *row)
        sign = "+" if is_sum else "*"
        other = "shortcut" if step.shortcut else "block input" if is_sum else "excitation input"
        shapes = shape_in_words(step.main[-1].output_shape), shape_in_words(step.shortcut_shape)
        yield (step.name, f"{sign} {other}", shape_in_words(step.output_shape), f" {sign} ".join(shapes), "", "")


def _rounded(source: str) -> str:
    """Return a layer's source with rounded numbers."""
    return re.sub(r"\d+\.\d{4,}", lambda number: f"{float(number[0]):.3g}", source)


def study_table(summary: StudySummary, trials: Sequence[TrialRecord], *, num_shown: int = 10) -> RenderableType:
    """A study's counts and its best trials."""
    table = Table(box=None, padding=(0, 1), header_style="dim")
    is_balanced_shown = summary.checks is not None and summary.checks.are_classes_uneven
    balanced = ["balanced"] if is_balanced_shown else []
    for name in ("trial", "outcome", "accuracy", *balanced, "epoch", "parameters"):
        table.add_column(name, justify="left" if name == "outcome" else "right", no_wrap=True)
    table.add_column("network", overflow="fold")
    best_first = sorted(ranked(trials), key=lambda trial: trial.outcome != "complete")
    for trial in best_first[:num_shown]:
        table.add_row(
            str(trial.number),
            trial.outcome or trial.state.name.lower(),
            "" if trial.validation_accuracy is None else f"{trial.validation_accuracy:.2%}",
            *([_balanced(trial)] if is_balanced_shown else []),
            "" if trial.best_epoch is None else str(trial.best_epoch),
            f"{trial.num_parameters:,}",
            str(trial.candidate.architecture),
        )
    counts = ", ".join(f"{number} {name}" for name, number in summary.counts.items() if number)
    heading = Text.assemble(
        (summary.study, "bold"), f"  {summary.dataset}, space {summary.space}: {counts or 'no trials'}"
    )
    return Group(heading, table, *map(Text, delivery_lines(summary)))


def _balanced(trial: TrialRecord) -> str:
    return "" if trial.class_scores is None else f"{trial.class_scores.balanced_accuracy:.2%}"


def how_to_confirm(summary: StudySummary) -> str:
    """State how to get an unbiased score of a study that is not confirmed, as a clause."""
    if summary.is_older:
        return "a study of an earlier version of tuner cannot be confirmed with this one"
    return f"run `tuner confirm {summary.study}` for an unbiased one"


def delivery_lines(summary: StudySummary) -> list[str]:
    """Describe what a study delivers: its winner's score on the sealed test set, if there is one, and the file."""
    if summary.best is None:
        return []
    confirmed = summary.confirmed
    if confirmed is None:
        path = summary.checkpoint
        words = f"not confirmed, so the score is optimistic; {how_to_confirm(summary)}"
        by_class = class_sentences(summary.best_class_scores, f"validation images of trial {summary.best.number}")
    else:
        path = summary.delivered
        later = "" if summary.is_older else later_trials(confirmed, summary.num_counted, name=summary.study)
        words = (
            f"confirmed: trial {confirmed.number}, {confirmed.test_accuracy:.2%} on {scored_set_in_words(confirmed)}, "
            f"{interval_in_words(confirmed)}; {beats_in_words(confirmed)}" + (f"; {later}" if later else "")
        )
        by_class = class_sentences(confirmed.class_scores, "test images")
    return [words, *by_class, f"file       {path or 'gone'}"]


def studies_table(summaries: Sequence[StudySummary], sizes: Sequence[int]) -> Table:
    """Return a table with one row per study. `sizes`: bytes of each study's files.

    best: the highest validation accuracy, which is optimistic. confirmed: accuracy of the winner on the sealed test
    set, and the number of trials at that time if there have been more since.
    """
    table = Table(box=None, padding=(0, 1), header_style="dim")
    for name in ("study", "dataset", "space", "trials", "best", "confirmed", "disk", "checkpoint"):
        is_number = name in ("trials", "best", "confirmed", "disk")
        table.add_column(name, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    for summary, size in zip(summaries, sizes, strict=True):
        accuracy = summary.best.validation_accuracy if summary.best else None
        table.add_row(
            summary.study,
            summary.dataset,
            summary.space,
            str(summary.num_counted),
            "" if accuracy is None else f"{accuracy:.2%}",
            _confirmed_score(summary),
            disk_size_in_words(size),
            str((summary.checkpoint if summary.confirmed is None else summary.delivered) or ""),
        )
    return table


def _confirmed_score(summary: StudySummary) -> str:
    if summary.confirmed is None:
        return ""
    later = later_trials(summary.confirmed, summary.num_counted, name=summary.study)
    known = f"\nof {counted(summary.confirmed.num_trials, 'trial')}" if later else ""
    return f"{summary.confirmed.test_accuracy:.2%}{known}"


def space_table(space: SearchSpace) -> RenderableType:
    """List what a space samples, parameter by parameter, and what is fixed."""
    table = Table(box=None, padding=(0, 1), header_style="dim", show_header=False)
    table.add_column("parameter", no_wrap=True)
    table.add_column("values", overflow="fold")
    for section, model in space.sections.items():
        for name, parameter in model:
            if parameter is None or (space.backbone is not None and (section, name) == ("head", "pooling")):
                continue  # a backbone has a pooling of its own
            own = getattr(parameter, "by_optimizer", {})
            for optimizer, one in own.items():
                table.add_row(f"  {section}.{name}.{optimizer}", str(one))
            if not own:
                table.add_row(f"  {section}.{name}", _parameter_in_words(parameter, section))
    if space.max_parameters is not None:
        table.add_row("  max_parameters", f"{space.max_parameters:,}")
    first = (
        Text(f"  tries {counted(len(space.first), 'configuration')} first", style="dim") if space.first else Text("")
    )
    return Group(Text(space.name, style="bold"), Text(f"  {' '.join(space.description.split())}"), table, first)


def _parameter_in_words(parameter: Parameter[Any], section: str) -> str:
    """The values of a parameter, and what shares one of them."""
    sharing = "blocks" if section == "block" else "stages"
    return f"{parameter}, one for all {sharing}" if parameter.shared else str(parameter)


def shape_in_words(shape: Sequence[int]) -> str:
    """Format a shape, as in `32x13x13`."""
    return "x".join(map(str, shape))
