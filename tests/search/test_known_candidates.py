"""The rules of what is known of a candidate: each case is a history of trials, then the trial that it would repeat."""

import pytest
from optuna.trial import TrialState

from tuner.search.known_candidates import KnownCandidates, KnownTrial

RUNNING = KnownTrial(1, {1: 0.5}, TrialState.RUNNING)
COMPLETE = KnownTrial(1, {1: 0.5, 2: 0.6}, TrialState.COMPLETE)
PRUNED = KnownTrial(1, {1: 0.5}, TrialState.PRUNED)
REJECTED = KnownTrial(1, {}, TrialState.PRUNED)
FAILED = KnownTrial(1, {1: 0.5}, TrialState.FAIL)
REPEATED = KnownTrial(2, {}, TrialState.PRUNED)
REJECTED_LATER = KnownTrial(3, {}, TrialState.PRUNED)


@pytest.mark.parametrize(
    ("ended", "known"),
    [
        ([], None),
        ([COMPLETE], COMPLETE),
        ([PRUNED], PRUNED),
        ([REJECTED], REJECTED),
        ([FAILED], None),
        ([FAILED, COMPLETE], COMPLETE),
        ([COMPLETE, REJECTED_LATER], REJECTED_LATER),
    ],
)
@pytest.mark.parametrize("is_begun", [False, True], ids=["read from the record", "trained in this run"])
def test_a_candidate_is_known_by_its_last_trial_unless_that_failed(
    ended: list[KnownTrial], known: KnownTrial | None, is_begun: bool
) -> None:
    candidates = KnownCandidates()
    for trial in ended:
        if is_begun:
            candidates.begin("a", RUNNING)
            assert candidates.find("a") is RUNNING
        assert candidates.end("a", trial) is trial
    assert candidates.find("a") is known
    assert candidates.find("b") is None


@pytest.mark.parametrize(
    ("first", "learned"),
    [(COMPLETE, COMPLETE), (PRUNED, PRUNED), (REJECTED, REJECTED), (FAILED, REPEATED), (None, REPEATED)],
)
def test_a_repeated_trial_teaches_what_the_first_came_to_if_that_is_known_and_takes_no_place_itself(
    first: KnownTrial | None, learned: KnownTrial
) -> None:
    candidates = KnownCandidates()
    if first is not None:
        candidates.end("a", first)
    before = candidates.find("a")
    assert candidates.end("a", REPEATED, is_repeated=True) is learned
    assert candidates.find("a") is before


def test_a_trial_that_repeats_a_running_one_teaches_the_epochs_that_the_other_has_by_then() -> None:
    candidates, curve = KnownCandidates(), {1: 0.5}
    candidates.begin("a", KnownTrial(1, curve, TrialState.RUNNING))
    curve[2] = 0.6
    assert candidates.end("a", REPEATED, is_repeated=True) == KnownTrial(1, {1: 0.5, 2: 0.6}, TrialState.RUNNING)
