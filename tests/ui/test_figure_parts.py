"""The vertical axis of a report's figures: its labels are accuracies, and some of them are among the values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.ui.report.figure_parts import Scale


@pytest.mark.parametrize(
    ("errors", "labels"),
    [
        ([0.9, 0.1, 0.02], ["0%", "50%", "80%", "90%", "95%", "98%", "99%"]),
        ([0.90, 0.76], ["20%", "15%", "10%"]),
        ([0.902, 0.8801, None], ["11.5%", "11%", "10.5%", "10%"]),
        ([0.312, 0.298], ["70%", "69.5%", "69%"]),
        ([0.75], ["25%"]),
        ([], ["0%", "50%", "80%", "90%", "95%", "98%", "99%"]),
    ],
)
def test_an_axis_has_round_accuracies_among_its_values(errors: list[float | None], labels: list[str]) -> None:
    axis = Scale(0.01).axis([{"y": errors}, {"y": []}])
    assert axis["ticktext"] == labels


@given(st.lists(st.integers(1, 10_000), min_size=1))
def test_an_axis_always_has_a_label_among_its_values(errors: list[int]) -> None:
    values = [error / 10_000 for error in errors]
    marks = Scale(0.5 / 10_000).axis([{"y": values}])["tickvals"]
    in_range = [mark for mark in marks if min(values) - 1e-9 <= mark <= max(values) + 1e-9]
    assert len(in_range) >= min(len(set(values)), 3)
    assert len(marks) <= 20
