"""What doctor says of a measurement, in terminals of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tests.training.measurements import step_times
from tuner.training import engine_measurement
from tuner.training.engine import Engine
from tuner.training.engine_choices import ChoiceVerdict, Measurement, Runners
from tuner.ui.doctor import doctor_report

VERDICTS = (
    ChoiceVerdict("flush_denormals", False, True, 0.002, 0.0015, "", is_taken=True),
    ChoiceVerdict("channels_last", False, True, 0.001, 0.0012, "", is_taken=True, comes_with="blocks"),
    ChoiceVerdict("early_pooling", False, True, None, None, "needs blocks=fused", is_taken=False),
    ChoiceVerdict("precision", "fp32", "bf16", 0.001, 0.0011, "no faster", is_taken=False),
)
MEASURED = Measurement(Engine(), VERDICTS, Runners(1, 1, "one device"), "any")


def shown(measurement: Measurement, *, width: int, shape: tuple[int, int, int] = (1, 8, 8)) -> list[str]:
    """The lines of the report, with one space between words."""
    stream = io.StringIO()
    report = doctor_report(measurement, shape, kept="/cache/engine.json", width=width)
    Console(file=stream, width=width, force_terminal=False).print(report)
    return [" ".join(line.split()) for line in stream.getvalue().splitlines()]


def test_a_wide_terminal_has_a_row_for_each_choice_with_its_times_and_the_reason() -> None:
    assert shown(MEASURED, width=120)[-5:] == [
        "choice plain ms a step fast ms a step taken why",
        "flush_denormals False 2.00 True 1.50 True agrees with the plain step",
        "channels_last False 1.00 True 1.20 True comes with blocks",
        "early_pooling False - True - False needs blocks=fused",
        "precision fp32 1.00 bf16 1.10 fp32 no faster",
    ]


@pytest.mark.parametrize("width", [60, 80, 99])
def test_a_narrow_terminal_has_the_same_as_a_list(width: int) -> None:
    assert shown(MEASURED, width=width)[-8:] == [
        "flush_denormals: taken True (agrees with the plain step)",
        "ms a step: False 2.00, True 1.50",
        "channels_last: taken True (comes with blocks)",
        "ms a step: False 1.00, True 1.20",
        "early_pooling: taken False (needs blocks=fused)",
        "ms a step: False -, True -",
        "precision: taken fp32 (no faster)",
        "ms a step: fp32 1.00, bf16 1.10",
    ]


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 8, 8), "measured batches of 64 images of 1x8x8, 1 thread; times are means over 3 networks"),
        (
            (3, 224, 200),
            "measured batches of 64 images of 3x224x200, at the size of 3x64x64, 1 thread; "
            "times are means over 3 networks",
        ),
    ],
)
def test_it_is_said_what_was_measured_and_where_it_is_kept(shape: tuple[int, int, int], words: str) -> None:
    lines = shown(MEASURED, width=160, shape=shape)
    assert words in lines
    assert "kept /cache/engine.json" in lines
    assert not [line for line in lines if line.startswith("problem")]


def test_a_fall_back_to_the_plain_step_is_said() -> None:
    fallen_back = Measurement(Engine(), (), Runners(1, 1, "one device"), "any", problem="the ways together differ")
    lines = shown(fallen_back, width=120)
    assert "problem the plain step is used, as the ways together differ" in lines
    assert lines[-1] == "no choices on this device: the plain step"


@pytest.mark.parametrize(
    ("seconds", "why"),
    [
        ((0.002, 0.001), "4 threads make one runner 2.00 times faster"),
        ((0.001, 0.0033), "a step takes 3.3 times as long with 4 threads"),
    ],
)
def test_more_threads_are_said_to_be_faster_or_slower(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, float], why: str
) -> None:
    monkeypatch.setattr(engine_measurement, "num_cores", lambda: 4)
    monkeypatch.setattr(engine_measurement, "time_in_turn", lambda *_: step_times(*seconds))
    assert engine_measurement.measure_runners(Engine(), (1, 8, 8)).why == why
