"""What a person sees of a training: one live line, or a line for each epoch."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.deliver.train_trial import Trained, TrainingEvent, TrainingStarted
from tuner.search.events import EpochFinished, TrialPreparing
from tuner.training.candidate import Candidate, Recipe
from tuner.training.results import EpochResult, Preparing
from tuner.ui.training_view import TrainingView, trained_lines, watch_training

CANDIDATE = Candidate(Architecture(InputSpec(1, 8, 8, 10), (PlainBlock(16),), Head()), Recipe(epochs=4))
STARTED = TrainingStarted("digits-cnn", 7, CANDIDATE, "digits", 1149, 288, "cpu")
EPOCHS = [EpochFinished(7, EpochResult(epoch, 0.5, 0.25, 1 - 0.3 / epoch, 20.0)) for epoch in (1, 2, 3)]
TRAINED = Trained("digits-cnn", 7, Path("trained-00007.pt"), 4, 3, 0.9, 0.8)
EVENTS: list[TrainingEvent] = [STARTED, *EPOCHS, TRAINED]


def test_without_a_terminal_there_is_a_line_for_each_epoch() -> None:
    stream = io.StringIO()
    assert watch_training(EVENTS, Console(file=stream, width=60)) == TRAINED
    lines = stream.getvalue().splitlines()
    assert lines[0] == "digits: 1,149 images to train on, 288 to validate; device cpu"
    assert lines[1].startswith("study digits-cnn: trial 7 for 4 epochs: 16 k3 relu")
    assert lines[2] == "[1/4] 70.00% validation accuracy, losses 0.5000 (train) and 0.2500 (validation), 20.0 s"
    assert [line.split()[0] for line in lines[2:]] == ["[1/4]", "[2/4]", "[3/4]"]


def test_quiet_there_is_nothing() -> None:
    stream = io.StringIO()
    for is_terminal in (False, True):
        console = Console(file=stream, force_terminal=is_terminal)
        assert watch_training(EVENTS, console, quiet=True) == TRAINED
    assert not stream.getvalue()


@pytest.mark.parametrize(("width", "has_bar", "has_curve"), [(60, False, False), (90, True, False), (120, True, True)])
def test_the_live_line_has_its_numbers_whole_and_more_where_there_is_room(
    width: int, has_bar: bool, has_curve: bool
) -> None:
    view = TrainingView()
    for event in EVENTS[:3]:
        view.take(event)
    stream = io.StringIO()
    Console(file=stream, width=width).print(view)
    (line,) = stream.getvalue().splitlines()
    assert "trial 7" in line
    assert "2/4 epochs  85.00%, best 85.00%  about 40 s left" in line
    assert ("━" in line) == has_bar
    assert ("█" in line) == has_curve


def test_in_a_terminal_the_line_is_drawn_over_and_the_start_stays_above() -> None:
    stream = io.StringIO()
    assert watch_training(EVENTS, Console(file=stream, force_terminal=True, width=100)) == TRAINED
    assert stream.getvalue().count("images to train on") == 1
    assert "[1/4]" not in stream.getvalue()
    assert "3/4 epochs" in stream.getvalue()


def test_the_last_lines_say_that_the_score_is_of_validation_images_and_the_test_set_sealed() -> None:
    lines = trained_lines(TRAINED)
    assert "90.00% validation accuracy at epoch 3, the best of 4, and so optimistic; 80.00% in the search" in lines[1]
    assert "stays sealed" in lines[2]
    assert lines[3] == "file     trained-00007.pt"


def test_features_are_shown_in_the_live_line_while_they_are_computed() -> None:
    view = TrainingView()
    stream = io.StringIO()
    console = Console(file=stream, width=60)
    for event in (STARTED, TrialPreparing(7, Preparing("computing features", 320, 1_437)), EPOCHS[0]):
        view.take(event)
        console.print(view)
    assert [("computing features 320/1,437" in line) for line in stream.getvalue().splitlines()] == [False, True, False]
