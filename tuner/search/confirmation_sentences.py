"""Sentences about a confirmation: the winner's score, whether it beats the baseline, and its score in the search."""

from __future__ import annotations

from tuner.search.confirmation import Confirmation

BEATS_BASELINE = {
    "yes": "it beats {baseline}",
    "no": "it does not beat {baseline}",
    "undecided": "whether it beats {baseline} is undecided",
}


def counted(number: int, what: str) -> str:
    """Format a number with its noun, as in `1 seed` or `3 seeds`."""
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def verdict_lines(confirmation: Confirmation) -> list[str]:
    """Result for a terminal: the test accuracy, whether the winner beats the baseline, and the notes."""
    return [
        f"{confirmation.test_accuracy:.2%} on {confirmation.num_test_images:,} sealed images, "
        f"mean of {counted(len(confirmation.seeds), 'seed')}, {interval_in_words(confirmation)}; "
        f"the file's own {confirmation.delivered_test_accuracy:.2%}",
        beats_in_words(confirmation) + _compared(confirmation, "difference "),
        f"the search's own figure, {confirmation.search_accuracy:.2%}, was {gap_in_words(confirmation)}",
        *confirmation.notes,
    ]


def verdict_in_words(confirmation: Confirmation) -> str:
    """Result for a note in Markdown, in two sentences."""
    return (
        f"**Confirmed**: trial {confirmation.number} has {confirmation.test_accuracy:.2%} on the sealed test set "
        f"({interval_in_words(confirmation)}; the study had {counted(confirmation.num_trials, 'trial')} then). "
        f"{beats_in_words(confirmation).capitalize()}{_compared(confirmation)}."
    )


def _compared(confirmation: Confirmation, name: str = "") -> str:
    """Describe the baseline's trial and score, then `name` and the difference. Empty if nothing was compared."""
    if not confirmation.is_compared:
        return ""
    baseline = f"trial {confirmation.baseline_number}, {confirmation.baseline_test_accuracy:.2%}"
    return f" ({baseline}): {name}{difference_in_words(confirmation)}"


def baseline_in_words(confirmation: Confirmation) -> str:
    """Describe what the winner is compared with: `the first configuration`, and what was changed so that it fits.

    Confirmations from before this was stored used the first trial that was trained, whatever the space begins with.
    """
    return confirmation.baseline or "the first configuration that was tried"


def beats_in_words(confirmation: Confirmation) -> str:
    """State whether the winner beats the baseline, as a clause."""
    baseline = baseline_in_words(confirmation)
    if confirmation.baseline_number is None:
        return "there is no baseline to compare it with"
    if confirmation.is_of_baseline:
        others = [one for one in confirmation.candidates if one.number != confirmation.number]
        if any(one.validation_accuracies for one in others):
            return f"it is {baseline}: nothing else was found to be better"
        return f"it is {baseline}; nothing else was trained again"
    return BEATS_BASELINE[confirmation.beats_baseline].format(baseline=baseline)


def interval_in_words(confirmation: Confirmation) -> str:
    """Format the interval as in `95 % interval 97.10% to 98.20%`, or say that there is none."""
    if confirmation.interval is None:
        return "no interval"
    low, high = confirmation.interval
    return f"95 % interval {low:.2%} to {high:.2%}"


def difference_in_words(confirmation: Confirmation) -> str:
    """Format the difference from the baseline with its interval: `+1.25 points, +0.30 to +2.20`; empty if unknown."""
    if confirmation.difference is None:
        return ""
    points = f"{100 * confirmation.difference:+.2f} points"
    if confirmation.difference_interval is None:
        return f"{points}, no interval"
    less, more = confirmation.difference_interval
    return f"{points}, {100 * less:+.2f} to {100 * more:+.2f}"


def gap_in_words(confirmation: Confirmation) -> str:
    """State how far the search's own accuracy was off: `1.18 points higher`."""
    points = 100 * confirmation.gap
    if abs(points) < 0.005:
        return "the same"
    return f"{abs(points):.2f} points {'higher' if points > 0 else 'lower'}"


def later_trials(confirmation: Confirmation, num_counted: int, *, name: str) -> str:
    """State that a study has more trials than when it was confirmed, as a clause; empty if it has not.

    name: name of the study, as the user would type it.
    """
    known = confirmation.num_trials
    if num_counted <= known:
        return ""
    return (
        f"the study had {counted(known, 'trial')} then and has {num_counted:,} now; "
        f"run `tuner confirm {name}` to consider the later ones too"
    )
