"""The commands that only read answer at once: none of them imports torch, on a study with a folder of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.start import COMMANDS, make_study

HEAVY = {"torch", "torchvision", "sklearn", "scipy", "plotly", "PIL"}
"""Packages that take long to import, and that no command needs which trains nothing and draws nothing."""


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study whose folder has its id and a file for each checkpoint that is kept."""
    folder = tmp_path_factory.mktemp("studies")
    make_study(folder)
    return folder


@pytest.mark.parametrize("arguments", [*COMMANDS.values(), ("list", "--json"), ("show", "--json")], ids=" ".join)
def test_a_command_that_only_reads_imports_neither_torch_nor_another_heavy_package(
    studies: Path, arguments: tuple[str, ...]
) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "tuner", *arguments]
    if arguments[0] in ("list", "show") or "--trial" in arguments:
        command += ["--studies", str(studies)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "tuner.cli" in imported
    assert not HEAVY & imported
