"""A function that reports its progress and can be stopped at each report."""

from __future__ import annotations

import math
import os
import signal
import threading
import time

import pytest

from tuner.data.dataset import Report
from tuner.search.turns import in_turns
from tuner.training.results import Preparing


class Counting:
    """Counts to three and reports each number. is_cleaned_up: whether it has ended in order."""

    def __init__(self) -> None:
        self.reached = 0
        self.is_cleaned_up = False

    def __call__(self, report: Report) -> str:
        try:
            for number in (1, 2, 3):
                self.reached = number
                report("counting", number, 3)
        finally:
            self.is_cleaned_up = True
        return "done"


def test_each_report_is_yielded_and_the_function_waits_for_its_turn() -> None:
    counting = Counting()
    turns = in_turns(counting, seconds=0.0)
    for number in (1, 2, 3):
        assert next(turns) == Preparing("counting", number, 3)
        assert counting.reached == number
        assert not counting.is_cleaned_up
    with pytest.raises(StopIteration) as ended:
        next(turns)
    assert ended.value.value == "done"


def test_reports_within_the_time_are_not_yielded() -> None:
    with pytest.raises(StopIteration) as ended:
        next(in_turns(Counting(), seconds=math.inf))
    assert ended.value.value == "done"


def test_closing_stops_the_function_which_cleans_up() -> None:
    counting = Counting()
    turns = in_turns(counting, seconds=0.0)
    next(turns)
    turns.close()
    assert counting.reached == 1
    assert counting.is_cleaned_up
    assert "in turns" not in {thread.name for thread in threading.enumerate()}


def test_an_error_of_the_function_is_raised() -> None:
    def fail(report: Report) -> None:
        report("failing", 1, 2)
        raise OSError("the disk is full")

    turns = in_turns(fail, seconds=0.0)
    assert next(turns) == Preparing("failing", 1, 2)
    with pytest.raises(OSError, match="the disk is full"):
        next(turns)


def test_an_interrupt_stops_the_function_which_cleans_up() -> None:
    ended = threading.Event()

    def interrupted(report: Report) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            while True:
                report("computing", 1, 2)
                time.sleep(0.01)
        finally:
            ended.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            next(in_turns(interrupted, seconds=math.inf))
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.is_set()
