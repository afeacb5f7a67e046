"""Tests that are marked as slow: when they run, and the line at the end if they did not."""

from __future__ import annotations

import pytest

from tests import slow_tests

pytest_plugins = ["pytester"]

FILE = """
import pytest

def test_fast():
    pass

@pytest.mark.slow
def test_slow():
    pass

@pytest.mark.slow
@pytest.mark.parametrize("value", [1, 2])
def test_table(value):
    pass
"""
MODULE = """
import pytest

pytestmark = pytest.mark.slow

def test_whole_file():
    pass
"""
FAST = ["test_fast"]
ALL = ["test_fast", "test_slow", "test_table[1]", "test_table[2]", "test_whole_file"]


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with one fast test and four slow ones."""
    pytester.makepyfile(test_some=FILE, test_whole=MODULE)
    return pytester


def run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return suite.runpytest_inprocess("--strict-markers", *arguments, plugins=[slow_tests])


def passed_in(result: pytest.RunResult) -> list[str]:
    """The names of the tests that passed. No test failed, was skipped or gave a warning."""
    assert set(result.parseoutcomes()) <= {"passed", "deselected"}
    return [line.split("::")[1].split()[0] for line in result.outlines if " PASSED" in line]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], FAST),
        (["test_some.py"], FAST),
        (["-k", "fast or slow"], FAST),
        (["--all"], ALL),
        (["--all", "-k", "table"], ["test_table[1]", "test_table[2]"]),
        (["-m", "slow"], ALL[1:]),
        (["-m", "not slow"], FAST),
        (["test_some.py::test_slow"], ["test_slow"]),
        (["test_some.py::test_table"], ["test_table[1]", "test_table[2]"]),
        (["./test_some.py::test_table[2]"], ["test_table[2]"]),
        (["test_some.py::test_fast", "test_whole.py"], FAST),
    ],
)
def test_a_slow_test_runs_only_if_it_is_asked_for(
    suite: pytest.Pytester, arguments: list[str], expected: list[str]
) -> None:
    assert passed_in(run(suite, "-v", *arguments)) == expected


def test_the_end_names_the_number_of_slow_tests_and_the_command_that_runs_them(suite: pytest.Pytester) -> None:
    result = run(suite, "-q")
    assert result.outlines[-2] == "4 slow tests were not run; `pytest --all` runs every test"
    result.assert_outcomes(passed=1, deselected=4)
    assert run(suite, "-q", "-k", "whole").outlines[-2].startswith("1 slow test was not run; ")


@pytest.mark.parametrize("arguments", [["--all"], ["test_some.py::test_slow"]])
def test_the_end_says_nothing_if_every_test_asked_for_has_run(suite: pytest.Pytester, arguments: list[str]) -> None:
    assert "not run" not in run(suite, "-q", *arguments).stdout.str()
