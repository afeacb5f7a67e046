"""Compute the result of a confirmation: accuracies with intervals, and whether the winner beats the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean

import numpy as np

from tuner.deliver.contenders import Contender, Splits, spread_of
from tuner.deliver.intervals import Correct, Interval, accuracy_interval, difference_interval, pool, spread_of_seeds
from tuner.deliver.scoring import Score
from tuner.search.confirmation import BeatsBaseline, Confirmation, RetrainedTrial
from tuner.space.baseline import describe_baseline


def conclude(
    winner: Contender,
    baseline: Contender | None,
    contenders: Sequence[Contender],
    scores: Mapping[int, Sequence[Score]],
    *,
    epochs: int,
    splits: Splits,
    seeds: Sequence[int],
    num_trials: int,
    num_openings: int,
    is_full: bool,
    seconds: float,
    notes: Sequence[str],
) -> Confirmation:
    """Compute the result of a confirmation from the scores on the test set, by trial and seed.

    epochs: number of epochs for which the winner was trained at the end. scores: has no entry for a baseline that could
    not be trained again. num_openings: number of times the test set was opened, including this one. notes: what was
    skipped or changed.
    """
    own_SN = _correct(scores[winner.trial.number])
    other_SN = None
    if baseline is not None and baseline is not winner and baseline.trial.number in scores:
        other_SN = _correct(scores[baseline.trial.number])
    on_test = [spread_of_seeds(one_SN) for one_SN in (own_SN, other_SN) if one_SN is not None]
    spread = pool([*on_test, spread_of(contenders, splits)])
    accuracies: list[float] = own_SN.mean(1).tolist()
    verdict: BeatsBaseline = "undecided"
    baseline_accuracy: float | None = None
    difference: float | None = None
    between: Interval | None = None
    if winner is baseline:
        verdict, baseline_accuracy, difference, between = "no", mean(accuracies), 0.0, (0.0, 0.0)
    elif other_SN is not None:
        baseline_accuracy = float(other_SN.mean())
        difference = float(own_SN.mean()) - baseline_accuracy
        between = difference_interval(own_SN, other_SN, spread)
        if between is not None:
            verdict = "yes" if between[0] > 0 else "no" if between[1] < 0 else "undecided"
    interval = accuracy_interval(own_SN, spread)
    search_accuracy = winner.trial.validation_accuracy or 0.0
    mark = None if baseline is None else baseline.trial.baseline
    return Confirmation(
        number=winner.trial.number,
        epochs=epochs,
        seeds=tuple(seeds),
        test_accuracy=mean(accuracies),
        interval=interval,
        validation_mean=winner.mean if winner.accuracies else None,
        search_accuracy=search_accuracy,
        gap=search_accuracy - mean(accuracies),
        baseline_number=None if baseline is None else baseline.trial.number,
        baseline=None if mark is None else describe_baseline(mark),
        baseline_test_accuracy=baseline_accuracy,
        difference=difference,
        difference_interval=between,
        beats_baseline=verdict,
        delivered_test_accuracy=accuracies[0],
        num_test_images=own_SN.shape[1],
        candidates=tuple(
            RetrainedTrial(
                one.trial.number,
                tuple(one.accuracies[number] for number in sorted(one.accuracies)),
                one.dropped,
            )
            for one in contenders
        ),
        num_trials=num_trials,
        test_set_openings=num_openings,
        is_full=is_full,
        seconds=seconds,
        notes=(*notes, *_notes(winner, baseline, scores, interval=interval, num_openings=num_openings)),
    )


def _correct(scores: Sequence[Score]) -> Correct:
    """Whether each image is classified correctly, for each seed."""
    return np.stack([one.correct_N.numpy() for one in scores])


def _notes(
    winner: Contender,
    baseline: Contender | None,
    scores: Mapping[int, Sequence[Score]],
    *,
    interval: Interval | None,
    num_openings: int,
) -> Iterator[str]:
    """Yield notes that a reader needs to interpret the figures."""
    if interval is None:
        yield (
            "no network was trained with two seeds, so the spread between seeds is unknown, and there is no interval "
            "and no verdict; `tuner confirm --full` trains with more seeds"
        )
    elif len(scores[winner.trial.number]) == 1:
        yield "one seed was scored on the test set; how much seeds differ was estimated from the race"
    if num_openings > 1:
        yield (
            f"the test set has now been opened {num_openings} times for this study; once you act on its score, it is "
            "no longer held out, and later scores on it are optimistic"
        )
    if baseline is None:
        yield "the study has no trained baseline, so the winner was compared with nothing"
    elif baseline is not winner and baseline.trial.number not in scores:
        yield (
            f"the baseline, trial {baseline.trial.number}, could not be trained again ({baseline.dropped}), so the "
            "winner was compared with nothing"
        )
