"""The live view of a search at every width, with its curves and times."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.ui.events import EVENTS
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.deliver.confirm import ConfirmStarted
from tuner.deliver.retraining import ConfirmProgress
from tuner.search.events import (
    EpochFinished,
    SearchStarted,
    TrialPreparing,
    TrialStarted,
)
from tuner.training.candidate import Candidate, Recipe
from tuner.training.results import EpochResult, Preparing
from tuner.ui.event_lines import line_of
from tuner.ui.search_view import SearchView, format_seconds, sparkline


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


def test_a_search_that_only_time_limits_shows_its_time_and_no_total() -> None:
    view = SearchView()
    view.take(SearchStarted("digits-cnn", None, 7, {}, None, 2, 4, budget_seconds=90.0))
    assert view.seconds_left == pytest.approx(90.0, abs=5.0)
    assert 0.0 <= view.share_done < 0.1
    text = shown(view)
    assert "7 trials" in text
    assert "about 1 min" in text
    view.budget_seconds = 1e-9
    assert (view.seconds_left, view.share_done) == (0.0, 1.0)


def test_the_time_left_is_that_of_the_budget_where_the_trials_would_take_longer() -> None:
    view = SearchView()
    for event in EVENTS:
        view.take(event)
    view.begun -= 100.0  # one of three trials is done
    assert view.seconds_left == pytest.approx(200.0, abs=5.0)
    view.budget_seconds = 130.0
    assert view.seconds_left == pytest.approx(30.0, abs=5.0)


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


def test_the_view_says_what_is_done_before_and_after_the_search() -> None:
    view = SearchView()
    assert "measuring this machine" in shown(view)
    for event in EVENTS:
        view.take(event)
    view.take(ConfirmStarted((0, 1), 3, ()))
    view.take(ConfirmProgress("trial 0, seed 1: 99.00%", 1, 6))
    assert "digits-cnn  confirming [1/6] trial 0, seed 1: 99.00%" in shown(view)


@pytest.mark.parametrize(
    ("is_fixed", "words"), [(False, "on fresh splits"), (True, "validated on the set's own validation part")]
)
def test_a_confirmation_says_what_it_validates_on(is_fixed: bool, words: str) -> None:
    event = ConfirmStarted((3, 0), 2, ("one note",), is_validation_fixed=is_fixed)
    assert line_of(event, SearchView()) == f"confirming: trials 3, 0 again, {words}, with 2 seeds\none note"


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


def test_features_of_a_trial_are_shown_while_they_are_computed_and_are_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = SearchView()
    for event in EVENTS[:4]:
        view.take(event)
    lines = []
    for done in (320, 640):
        event = TrialPreparing(1, Preparing("computing features", done, 1_797))
        view.take(event)
        lines.append(line_of(event, view))
    assert lines == ["trial 1: computing features 320/1,797", ""]
    assert "computing features 640/1,797" in shown(view)
    monkeypatch.setattr("tuner.ui.event_lines.PREPARING_SECONDS", 0.0)
    assert line_of(event, view) == "trial 1: computing features 640/1,797"
    view.take(EpochFinished(1, EpochResult(1, 0.5, 0.5, 0.5, 0.1)))
    assert "features" not in shown(view)
    view.take(TrialPreparing(7, Preparing("computing features", 320, 1_797)))  # of a trial that is trained again
    assert "confirming: trial 7: computing features 320/1,797" in shown(view)
