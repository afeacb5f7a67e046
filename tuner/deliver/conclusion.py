"""What a confirmation found: accuracies with their intervals, and whether the winner beats the first configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any, Literal

import torch

from tuner.deliver.intervals import Interval, accuracy_interval, difference_interval
from tuner.deliver.race import Contender
from tuner.deliver.scoring import Score

Verdict = Literal["yes", "no", "undecided"]


@dataclass(frozen=True)
class Confirmation:
    """What a confirmation found. Accuracies lie in 0..1, intervals are of 95 %; `number` is the winner's trial.

    validation_mean: of the winner over fresh splits. search_accuracy: what the search had seen of it; gap: that less
    test_accuracy. difference: winner less first configuration, on the test set; None, as its interval and
    baseline_test_accuracy, where that one could not be trained again. candidates: every one that was trained again,
    with its accuracy for each seed. num_trials: that the study had then. test_set_openings: how often the study has
    been scored on its test set, this time included. is_full: whether nothing was left out, for want of time or by
    choice.
    """

    number: int
    epochs: int
    seeds: list[int]
    test_accuracy: float
    interval: Interval
    validation_mean: float
    search_accuracy: float
    gap: float
    baseline_number: int
    baseline_test_accuracy: float | None
    difference: float | None
    difference_interval: Interval | None
    beats_baseline: Verdict
    delivered_test_accuracy: float
    num_test_images: int
    candidates: list[dict[str, Any]]
    num_trials: int
    test_set_openings: int
    is_full: bool
    seconds: float
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """A JSON object; kept in the study's attributes, and printed by `show --json` under `confirmed`."""
        return asdict(self)


def conclude(
    winner: Contender,
    baseline: Contender,
    contenders: Sequence[Contender],
    scores: Mapping[int, Sequence[Score]],
    *,
    seeds: list[int],
    num_trials: int,
    num_openings: int,
    is_full: bool,
    seconds: float,
    notes: Sequence[str],
) -> Confirmation:
    """What the scores on the test set, by trial and seed, say of the winner and of the first configuration.

    scores: without those of a first configuration that could not be trained again. num_openings: of the test set, this
    one included. notes: what was left out.
    """
    own = torch.stack([one.correct_N for one in scores[winner.trial.number]])
    accuracies = own.double().mean(1).tolist()
    num_images = own.shape[1]
    notes = list(notes)
    if len(seeds) == 1:
        notes.append("one seed: its interval is that of the test images alone")
    if num_openings > 1:
        notes.append(
            f"the test set has now been opened {num_openings} times for this study: whoever goes on because of what it "
            "said chooses by it, and then it is optimistic too"
        )
    on_splits = [list(one.accuracies.values()) for one in contenders]
    other: list[float] = []
    verdict: Verdict = "undecided"
    baseline_accuracy: float | None = None
    difference: float | None = None
    interval: Interval | None = None
    if winner is baseline:
        verdict, baseline_accuracy, difference, interval = "no", mean(accuracies), 0.0, (0.0, 0.0)
    elif baseline.trial.number in scores:
        others = torch.stack([one.correct_N for one in scores[baseline.trial.number]])
        other = others.double().mean(1).tolist()
        baseline_accuracy = float(others.double().mean())
        difference = float(own.double().mean() - others.double().mean())
        interval = difference_interval(own, others, on_splits=on_splits)
        verdict = "yes" if interval[0] > 0 else "no" if interval[1] < 0 else "undecided"
    else:
        notes.append(
            f"the first configuration, trial {baseline.trial.number}, could not be trained again "
            f"({baseline.dropped}), so the winner was compared with nothing"
        )
    search_accuracy = winner.trial.validation_accuracy or 0.0
    return Confirmation(
        number=winner.trial.number,
        epochs=winner.candidate.recipe.epochs,
        seeds=seeds,
        test_accuracy=mean(accuracies),
        interval=accuracy_interval(accuracies, num_images, other=other, on_splits=on_splits),
        validation_mean=winner.mean,
        search_accuracy=search_accuracy,
        gap=search_accuracy - mean(accuracies),
        baseline_number=baseline.trial.number,
        baseline_test_accuracy=baseline_accuracy,
        difference=difference,
        difference_interval=interval,
        beats_baseline=verdict,
        delivered_test_accuracy=accuracies[0],
        num_test_images=num_images,
        candidates=[
            {
                "number": one.trial.number,
                "validation_accuracies": [one.accuracies[number] for number in sorted(one.accuracies)],
                "dropped": one.dropped,
            }
            for one in contenders
        ],
        num_trials=num_trials,
        test_set_openings=num_openings,
        is_full=is_full,
        seconds=seconds,
        notes=notes,
    )
