"""What a person sees of a search in the terminal: a view that is redrawn, and lines elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from tests.ui.events import BEST, EVENTS, REST
from tuner.search.events import (
    SearchEnded,
    SearchEvent,
    SearchStarted,
    TrialEnded,
)
from tuner.ui.console import progress_reporter, watch


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


def test_one_trial_of_one_epoch_is_in_the_singular() -> None:
    stream = io.StringIO()
    watch([SearchStarted("digits-cnn", 1, 0, {}, None, 2, 1)], Console(file=stream, width=200))
    watch([SearchStarted("digits-cnn", 1, 1, {}, BEST, 2, 1)], Console(file=stream, width=200))
    assert stream.getvalue().splitlines() == [
        "study digits-cnn: 1 trial, at most 1 epoch each",
        "study digits-cnn is complete: it has 1 trial; give a larger --trials to add more",
    ]


def test_a_search_that_gives_up_does_not_fill_the_log_first() -> None:
    stream = io.StringIO()
    turned_away: list[SearchEvent] = [
        TrialEnded(number, "rejected", "too large", None, None, 0, 0.0, BEST) for number in range(2, 1_002)
    ]
    watch([*EVENTS, *turned_away, SearchEnded(1, "gave up")], Console(file=stream, width=200))
    lines = stream.getvalue().splitlines()
    assert len([line for line in lines if "rejected" in line]) == 10
    assert lines[-1] == "the search ends with 1 of 3 trials: gave up"


def test_quiet_prints_nothing() -> None:
    stream = io.StringIO()
    watch([*EVENTS, *REST], Console(file=stream), quiet=True)
    assert stream.getvalue() == ""


def test_a_terminal_is_redrawn_and_ends_with_the_last_state() -> None:
    stream = io.StringIO()
    watch([*EVENTS, *REST], Console(file=stream, force_terminal=True, width=100))
    assert "2/3 trials" in stream.getvalue()
    assert "1 complete  1 pruned  1 failed" in stream.getvalue()


def test_progress_ends_cleanly_and_is_none_when_quiet() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80)
    with progress_reporter(console, quiet=False) as report:
        assert report is not None
        for done in (0, 50, 100):
            report("decoding", done, 100)
    assert "decoding" in stream.getvalue()
    for without in (console, Console(file=io.StringIO(), force_terminal=False)):
        with progress_reporter(without, quiet=True) as silent:
            assert silent is None


def test_what_begins_after_something_has_ended_is_drawn_too() -> None:
    stream = io.StringIO()
    with progress_reporter(Console(file=stream, force_terminal=True, width=80), quiet=False) as report:
        assert report is not None
        for what in ("downloading the weights of resnet18", "decoding", "computing features", "computing features"):
            before = len(stream.getvalue())
            report(what, 10, 100)
            report(what, 100, 100)
            assert what in stream.getvalue()[before:]


def test_elsewhere_the_progress_of_a_download_of_weights_is_one_line() -> None:
    stream = io.StringIO()
    with progress_reporter(Console(file=stream, force_terminal=False, width=200), quiet=False) as report:
        assert report is not None
        for done in range(0, 46_827_520, 2**20):
            report("downloading the weights of resnet18", done, 46_827_520)
            report("decoding", done, 46_827_520)
    assert stream.getvalue() == "downloading the weights of resnet18 (47 MB)\n"
