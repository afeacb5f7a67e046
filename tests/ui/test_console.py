"""What a person sees of a search: the live view in a real terminal emulation, and lines elsewhere."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from rich.console import Console

from tests.ui.synthetic import CONFIRMED, NOT_COMPARED
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.deliver.confirm import ConfirmStarted
from tuner.deliver.retraining import ConfirmProgress
from tuner.pipeline import DataReady
from tuner.search.dashboard_entries import verdict_in_words
from tuner.search.events import (
    BestTrial,
    EpochFinished,
    SearchEnded,
    SearchEvent,
    SearchStarted,
    TrialEnded,
    TrialStarted,
)
from tuner.search.record import TrialRecord
from tuner.search.summary import StudySummary
from tuner.training.candidate import Candidate, Recipe
from tuner.training.results import EpochResult
from tuner.ui.console import SearchView, format_seconds, progress_reporter, sparkline, watch, winner_lines

CANDIDATE = Candidate(Architecture(InputSpec(1, 8, 8, 10), (PlainBlock(16, pooling="max"),), Head()), Recipe())
BEST = BestTrial(0, 0.9931, 3, 12_810)
EVENTS: list[DataReady | SearchEvent] = [
    DataReady(
        "digits-cnn", "digits", (1, 8, 8), 10, 1149, 288, "cpu", "91.9 KiB of images: held in memory", ("a note",)
    ),
    SearchStarted("digits-cnn", 3, 0, {}, None, 2, 4),
    TrialStarted(0, CANDIDATE, 12_810, 0),
    TrialStarted(1, CANDIDATE, 12_810, 1),
    *[EpochFinished(0, EpochResult(epoch, 0.5, 0.5, 0.9 + epoch / 33, 0.1)) for epoch in (1, 2, 3)],
    TrialEnded(0, "complete", "", 3, 0.9931, 4, 2.0, BEST),
    EpochFinished(1, EpochResult(1, 0.5, 0.5, 0.5, 0.1)),
]
REST: list[SearchEvent] = [
    TrialEnded(1, "pruned", "ranked 2 of 2; the best continues", 1, 0.5, 1, 1.0, BEST),
    TrialEnded(2, "failed", "RuntimeError: no luck", None, None, 0, 0.1, BEST),
    SearchEnded(2, "the time budget is used up"),
]


def shown(view: SearchView, *, width: int = 100) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(view)
    return stream.getvalue()


def test_the_view_has_progress_running_trials_the_best_and_the_counts() -> None:
    view = SearchView()
    for event in EVENTS:
        view.take(event)
    text = shown(view)
    assert "1/3 trials" in text
    assert "left" in text
    assert "1/4" in text
    assert "50.00%" in text
    assert "16 k3 relu max2" in text
    assert "best   trial 0: 99.31% at epoch 3, 12,810 parameters" in text
    assert "1 complete  0 pruned  0 failed" in text


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_the_view_fits_every_terminal(width: int) -> None:
    view = SearchView()
    for event in EVENTS:
        view.take(event)
    assert max(len(line) for line in shown(view, width=width).splitlines()) <= width


@pytest.mark.parametrize("width", [40, 60, 80, 100, 160])
def test_no_figure_of_a_running_trial_is_cut(width: int) -> None:
    blocks = (PlainBlock(64, activation="leaky_relu"),) * 8
    deep = Candidate(Architecture(InputSpec(3, 64, 64, 10), blocks, Head()), Recipe())
    view = SearchView()
    view.take(SearchStarted("digits-cnn", 5_000, 1_234, {}, None, 2, 20))
    for number in (4_001, 4_002):
        view.take(TrialStarted(number, deep, 12_810, 0))
        for epoch in range(1, 19):
            view.take(EpochFinished(number, EpochResult(epoch, 0.5, 0.5, 0.8 + epoch / 100, 0.1)))
    text = shown(view, width=width)
    assert "1234/5000 trials" in text
    for number in ("4001", "4002"):
        (line,) = [line for line in text.splitlines() if line.split()[:1] == [number]]
        assert {"18/20", "98.00%"} <= set(line.split())
    assert ("▁▁" in text) == (width >= 80)


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


def said_of_the_test(confirmed: dict[str, Any]) -> str:
    lines = winner_lines(replace(best_of(None), confirmed=confirmed), arguments=" --studies elsewhere")
    return "\n".join(line for line in lines if line.startswith("test  "))


def test_a_confirmation_that_knew_fewer_trials_says_so_with_the_command_that_looks_at_all() -> None:
    text = said_of_the_test(CONFIRMED)
    assert "the study had 2 trials; now it has 3" in text
    assert "`tuner confirm digits-cnn --studies elsewhere`" in text
    assert "not looked at" not in said_of_the_test(CONFIRMED | {"num_trials": 3})


def test_a_winner_is_compared_with_the_first_configuration_where_there_is_something_to_compare() -> None:
    assert "it beats the first configuration (trial 1, 95.00%): difference +2.12 points" in said_of_the_test(CONFIRMED)
    older = {key: value for key, value in CONFIRMED.items() if key != "baseline"}
    assert "it beats the first configuration that was tried (trial 1" in said_of_the_test(older)
    alone = said_of_the_test(CONFIRMED | NOT_COMPARED)
    assert "whether it beats the first configuration is undecided\n" in alone
    assert "trial 1, could not be trained again" in alone
    assert "difference" not in alone
    first = CONFIRMED | {"baseline_number": 0}
    assert "it is the first configuration; nothing else was trained again" in said_of_the_test(first)
    another = [*CONFIRMED["candidates"], {"number": 1, "validation_accuracies": [0.9], "dropped": "behind"}]
    assert "nothing else was found to be better" in said_of_the_test(first | {"candidates": another})


def test_the_note_of_a_study_says_the_same_of_its_confirmation() -> None:
    assert "(trial 1, 95.00%): +2.12 points" in verdict_in_words(CONFIRMED)
    assert "the study had 2 trials then" in verdict_in_words(CONFIRMED)
    assert verdict_in_words(CONFIRMED | NOT_COMPARED).endswith("beats the first configuration is undecided.")


def test_elsewhere_there_is_a_line_for_each_trial_and_the_reason_of_an_early_end() -> None:
    stream = io.StringIO()
    view = watch([*EVENTS, *REST], Console(file=stream, width=200))
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("digits: 1,149 images to train on, 288 to validate, 8x8, grey, 10 classes")
    assert lines[1] == "a note"
    assert lines[2] == "study digits-cnn: 3 trials, at most 4 epochs each"
    assert lines[3] == "[1/3] trial 0  complete  99.31% at epoch 3  2.0 s"
    assert lines[4] == "[2/3] trial 1  pruned  50.00% at epoch 1  1.0 s  (ranked 2 of 2; the best continues)"
    assert lines[5] == "[2/3] trial 2  failed  0.1 s  (RuntimeError: no luck)"
    assert lines[6] == "the search ends with 2 of 3 trials: the time budget is used up"
    assert view.outcomes == {"complete": 1, "pruned": 1, "failed": 1}


def test_a_search_that_gives_up_does_not_fill_the_log_first() -> None:
    stream = io.StringIO()
    turned_away: list[SearchEvent] = [
        TrialEnded(number, "rejected", "too large", None, None, 0, 0.0, BEST) for number in range(2, 1_002)
    ]
    watch([*EVENTS, *turned_away, SearchEnded(1, "gave up")], Console(file=stream, width=200))
    lines = stream.getvalue().splitlines()
    assert len([line for line in lines if "rejected" in line]) == 10
    assert lines[-1] == "the search ends with 1 of 3 trials: gave up"


def test_the_view_says_what_is_done_before_and_after_the_search() -> None:
    view = SearchView()
    assert "measuring this machine" in shown(view)
    for event in EVENTS:
        view.take(event)
    view.take(ConfirmStarted((0, 1), 3, ()))
    view.take(ConfirmProgress("trial 0, seed 1: 99.00%", 1, 6))
    assert "digits-cnn  confirming [1/6] trial 0, seed 1: 99.00%" in shown(view)


def test_quiet_prints_nothing() -> None:
    stream = io.StringIO()
    watch([*EVENTS, *REST], Console(file=stream), quiet=True)
    assert stream.getvalue() == ""


def test_a_terminal_is_redrawn_and_ends_with_the_last_state() -> None:
    stream = io.StringIO()
    watch([*EVENTS, *REST], Console(file=stream, force_terminal=True, width=100))
    assert "2/3 trials" in stream.getvalue()
    assert "1 complete  1 pruned  1 failed" in stream.getvalue()


def test_a_curve_is_drawn_from_its_lowest_to_its_highest() -> None:
    assert sparkline([]) == ""
    assert sparkline([0.1, 0.5, 0.9]) == "▁▄█"
    assert sparkline([0.5, 0.5]) == "▁▁"
    assert len(sparkline([0.1] * 500)) == 20


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (65, "1 min 05 s"), (3_599, "59 min 59 s"), (4_800, "1 h 20 min")],
)
def test_times_are_given_in_words(seconds: float, words: str) -> None:
    assert format_seconds(seconds) == words


def test_progress_of_downloads_ends_cleanly_and_is_none_when_quiet() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    with progress_reporter(console, quiet=False) as report:
        assert report is not None
        for done in (0, 50, 100):
            report("decoding", done, 100)
    assert "decoding" in stream.getvalue()
    for without in (console, Console(file=io.StringIO(), force_terminal=False)):
        with progress_reporter(without, quiet=without is console) as silent:
            assert silent is None
