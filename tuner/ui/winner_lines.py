"""Last lines of a run: the winner, its score, its checkpoint path, and the next commands."""

from __future__ import annotations

from tuner.search.class_sentences import class_sentences
from tuner.search.confirmation_sentences import later_trials, verdict_lines
from tuner.search.summary import StudySummary


def winner_lines(summary: StudySummary, *, arguments: str = "") -> list[str]:
    """Return lines with the winner, its score, its checkpoint path, and the next commands."""
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
        lines += [
            f"         {sentence}" for sentence in class_sentences(summary.best_class_scores, "validation images")
        ]
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
