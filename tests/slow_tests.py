"""Tests that are marked as slow: pytest does not run them by default, and its last lines give their number."""

from __future__ import annotations

import pytest

DESELECTED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="Run every test, including those marked as slow.")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes long; runs with --all, with -m, or when the test itself is named.")


@pytest.hookimpl(trylast=True)  # after -k, so that the end counts only what would have run
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the slow tests, unless the command line has --all, -m or the test's own name (`FILE::TEST`)."""
    if config.getoption("--all") or config.getoption("-m"):
        return
    named = [argument.partition("::") for argument in config.args]
    files = {(config.invocation_params.dir / file).resolve() for file, separator, _ in named if separator}
    slow = {item for item in items if item.get_closest_marker("slow") and item.path not in files}
    if slow:
        items[:] = [item for item in items if item not in slow]
        config.hook.pytest_deselected(items=list(slow))
        config.stash[DESELECTED] = len(slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say in one line what was skipped and how to run it."""
    if num_slow := config.stash.get(DESELECTED, 0):
        tests = "1 slow test was" if num_slow == 1 else f"{num_slow} slow tests were"
        terminalreporter.write_line(f"{tests} not run; `pytest --all` runs every test")
