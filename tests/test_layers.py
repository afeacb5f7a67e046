"""The import contract of pyproject.toml: it covers each module of the package, and no modules import in a circle."""

import os
import shutil
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]


def import_cycle(graph: grimp.ImportGraph) -> list[str]:
    """Modules of which each imports the next one and the last is the first again; empty where there are none."""
    sorter = TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules})
    try:
        sorter.prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle[::-1]
    return []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = grimp.build_graph("tuner", exclude_type_checking_imports=False, cache_dir=None)
    assert len(graph.modules) > 100
    assert import_cycle(graph) == []


@pytest.mark.parametrize("circle", [["a.one", "a.two"], ["a", "a.one"], ["a.one", "b", "a.two"]])
def test_a_circle_is_found_inside_a_folder_too(circle: list[str]) -> None:
    graph = grimp.ImportGraph()
    for importer, imported in zip(circle, [*circle[1:], circle[0]], strict=True):
        graph.add_import(importer=importer, imported=imported)
    graph.add_import(importer="c", imported=circle[0])
    found = import_cycle(graph)
    assert set(found) == set(circle)
    assert all(one in graph.find_modules_directly_imported_by(importer) for importer, one in pairwise(found))


def lint_imports_with(tmp_path: Path, module: str, text: str) -> subprocess.CompletedProcess[str]:
    """What lint-imports prints for a copy of the package in which a module has this text."""
    shutil.copytree(ROOT / "tuner", tmp_path / "tuner", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "tuner" / module
    path.write_text(text, encoding="utf-8")
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


def test_a_module_without_a_layer_breaks_the_contract(tmp_path: Path) -> None:
    done = lint_imports_with(tmp_path, "stray.py", '"""In no layer."""\n')
    assert done.returncode == 1
    assert "stray" in done.stdout


def test_an_import_for_annotations_alone_is_held_to_the_contract(tmp_path: Path) -> None:
    text = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from tuner.pipeline import RunEvent\n"
    done = lint_imports_with(tmp_path, "data/threads.py", text)
    assert done.returncode == 1
    assert "tuner.data.threads -> tuner.pipeline" in done.stdout


def test_each_module_has_a_layer() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = (one for one in settings["contracts"] if one["type"] == "layers")
    in_layers = [f"tuner.{name.strip()}" for layer in contract["layers"] for name in layer.split("|")]
    assert sorted(in_layers) == sorted(grimp.build_graph("tuner", cache_dir=None).find_children("tuner"))
