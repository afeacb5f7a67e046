"""The end of a run: the winner, what its confirmation found, and the next commands."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from optuna.trial import TrialState

from tests.ui.events import CANDIDATE
from tests.ui.synthetic import CONFIRMED, NOT_COMPARED, confirmation
from tuner.search.confirmation import Confirmation, RetrainedTrial
from tuner.search.summary import StudySummary
from tuner.search.trial_record import TrialRecord
from tuner.ui.winner_lines import winner_lines


def best_of(checkpoint: Path | None) -> StudySummary:
    best = TrialRecord(
        number=0,
        state=TrialState.COMPLETE,
        outcome="complete",
        reason="",
        candidate=CANDIDATE,
        params={},
        curve={1: 0.9931},
        num_parameters=12_810,
        flops=1,
        seconds=1.0,
        started=None,
        ended=None,
    )
    return StudySummary("digits-cnn", "digits", "cnn", 3, {}, best, checkpoint)


def test_a_winner_whose_file_is_gone_is_said_to_be_so_and_no_command_that_needs_it_is_named() -> None:
    there = winner_lines(best_of(Path("studies/digits-cnn/trial-00000.pt")))
    assert f"file     {Path('studies/digits-cnn/trial-00000.pt')}" in there
    assert "  tuner export digits-cnn -o best.pt" in there
    gone = winner_lines(best_of(None), arguments=" --studies elsewhere")
    assert [line for line in gone if line.startswith("file     gone: ")]
    assert not [line for line in gone if "export" in line or "predict" in line]
    assert "  tuner inspect digits-cnn --studies elsewhere --trial 0" in gone


def said_of_the_test(confirmed: Confirmation) -> str:
    lines = winner_lines(replace(best_of(None), confirmed=confirmed), arguments=" --studies elsewhere")
    return "\n".join(line for line in lines if line.startswith("test  "))


def test_a_confirmation_that_knew_fewer_trials_says_so_with_the_command_that_looks_at_all() -> None:
    text = said_of_the_test(confirmation())
    assert "the study had 2 trials then and has 3 now" in text
    assert "`tuner confirm digits-cnn --studies elsewhere`" in text
    assert "later ones" not in said_of_the_test(confirmation(num_trials=3))


def test_a_winner_is_compared_with_the_first_configuration_where_there_is_something_to_compare() -> None:
    compared = said_of_the_test(confirmation())
    assert "it beats the first configuration (trial 1, 95.00%): difference +2.12 points" in compared
    older = {key: value for key, value in CONFIRMED.items() if key != "baseline"}
    assert "it beats the first configuration that was tried (trial 1" in said_of_the_test(Confirmation.from_json(older))
    alone = said_of_the_test(confirmation(**NOT_COMPARED))
    assert "whether it beats the first configuration is undecided\n" in alone
    assert "trial 1, could not be trained again" in alone
    assert "difference" not in alone
    first = confirmation(baseline_number=0)
    assert "it is the first configuration; nothing else was trained again" in said_of_the_test(first)
    another = (*first.candidates, RetrainedTrial(1, (0.9,), "behind"))
    assert "nothing else was found to be better" in said_of_the_test(replace(first, candidates=another))
