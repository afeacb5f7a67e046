"""The public names of tuner: a program that runs and a type checker see the same objects."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import tuner

ROOT = Path(__file__).resolve().parents[1]


def names_for_type_checkers() -> dict[str, str]:
    """Each name that is imported under TYPE_CHECKING, and its module."""
    tree = ast.parse(Path(tuner.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    homes = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom), ast.unparse(node)
        for alias in node.names:
            assert alias.asname == alias.name, f"{alias.name}: a strict type checker needs `import NAME as NAME`"
            assert alias.name not in homes, f"{alias.name} is imported twice"
            homes[alias.name] = node.module or ""
    return homes


HOMES = names_for_type_checkers()


def test_a_type_checker_and_a_program_know_the_same_names_from_the_same_modules() -> None:
    assert {name: f"tuner.{module}" for name, module in tuner._HOMES.items()} == HOMES
    assert len(HOMES) > 30


@pytest.mark.parametrize("name", HOMES)
def test_a_public_name_is_the_object_that_a_type_checker_sees(name: str) -> None:
    assert getattr(tuner, name) is getattr(import_module(HOMES[name]), name)


def test_the_public_names_are_listed_and_no_other_name_is_found() -> None:
    assert set(HOMES) <= set(dir(tuner))
    assert "__version__" in dir(tuner)
    with pytest.raises(AttributeError, match="module 'tuner' has no attribute 'runs'"):
        getattr(tuner, "runs")  # noqa: B009


def test_the_first_use_of_a_name_imports_its_module_and_not_before(tmp_path: Path) -> None:
    code = "import sys, tuner\nassert 'tuner.errors' not in sys.modules\ntuner.TunerError\n"
    code += "assert 'tuner.errors' in sys.modules\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


@pytest.mark.slow
def test_mypy_gives_each_public_name_the_type_that_it_has_in_its_module(tmp_path: Path) -> None:
    lines = ["import tuner", *(f"import {module}" for module in sorted(set(HOMES.values())))]
    lines += [f"reveal_type({owner}.{name})" for name, module in HOMES.items() for owner in ("tuner", module)]
    (tmp_path / "names.py").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", str(tmp_path / "names.py")]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    types = re.findall(r'note: Revealed type is "(.*)"$', printed, re.MULTILINE)
    assert types[::2] == types[1::2]
    assert len(types) == 2 * len(HOMES)
    assert "Any" not in types


def test_the_documents_and_examples_use_public_names() -> None:
    """Every `tuner.NAME` in a Python block of the documents and in the examples is a public name or a module."""
    documents = [ROOT / "README.md", *ROOT.glob("docs/*.md")]
    blocks = [
        block
        for path in documents
        for block in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    ]
    blocks += [path.read_text(encoding="utf-8") for path in ROOT.glob("examples/*.py")]
    used = {
        node.attr
        for block in blocks
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tuner"
    }
    assert len(used) >= 3
    assert used <= set(HOMES)
