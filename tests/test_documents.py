"""The documents for people: links lead somewhere, names exist, drawings and pictures are those that commands make."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from PIL import Image

import tuner

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/*.md"))]
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
CHECKS = ["ruff check", "ruff format --check", "mypy", "lint-imports"]


def prose_of(path: Path) -> str:
    """A document without its blocks of code."""
    return CODE.sub("", path.read_text(encoding="utf-8"))


def anchors_of(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a Markdown file."""
    anchors: list[str] = []
    for heading in re.findall(r"^#+ +(.*)$", prose_of(path), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        anchors.append(f"{slug}-{anchors.count(slug)}" if slug in anchors else slug)
    return set(anchors)


def links_of(path: Path) -> list[str]:
    return re.findall(r"\]\(\s*([^)\s]+)\s*\)", prose_of(path))


def script(name: str) -> ModuleType:
    """A script of docs/, imported by its path."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def names_in_the_code() -> frozenset[str]:
    """Every word in a Python file of the package and its tests."""
    files = [*ROOT.glob("tuner/**/*.py"), *ROOT.glob("tests/**/*.py")]
    return frozenset(word for path in files for word in re.findall(r"\w+", path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_and_anchor_exists(path: Path) -> None:
    for link in links_of(path):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{path.name}: {link}"
        assert not anchor or anchor in anchors_of(target), f"{path.name}: {link}: {sorted(anchors_of(target))}"


def test_the_anchor_of_a_heading_is_the_one_that_github_gives_it(tmp_path: Path) -> None:
    path = tmp_path / "one.md"
    path.write_text("# The engine: measured, not `guessed`\n\n## What\n\n```sh\n# no heading\n```\n\n## What\n")
    assert anchors_of(path) == {"the-engine-measured-not-guessed", "what", "what-1"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_a_document_names_exists(path: Path) -> None:
    named = re.findall(r"`((?:tuner|tests|docs|benchmarks|examples|search_spaces|\.ci)/[\w./-]*)`", prose_of(path))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_name_in_the_architecture_exists_in_the_code() -> None:
    spans = re.findall(r"`([A-Za-z_][\w.]*)`", prose_of(ROOT / "docs" / "architecture.md"))
    names = {span.rsplit(".", 1)[-1] for span in spans if not span.endswith((".toml", ".py"))}
    assert len(names) > 40
    assert names - names_in_the_code() - {"export"} == set()


def test_the_drawing_of_the_layers_is_the_import_contract() -> None:
    layers = script("layers")
    contracts = layers.load_contracts(ROOT / "pyproject.toml")
    document = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert layers.replace_drawing(document, layers.draw(contracts)) == document, "run python docs/layers.py"
    for layer in layers.layers_of(contracts):
        for module in layer:
            assert f"| `{module}` |" in document


def test_a_layer_with_several_modules_is_one_box_and_a_forbidden_import_is_a_cross() -> None:
    contracts = [
        {"type": "layers", "layers": ["a.cli", "a.one | a.two : (a.three)"]},
        {"type": "forbidden", "source_modules": ["a.one"], "forbidden_modules": ["a.sealed"]},
    ]
    layers = script("layers")
    assert layers.layers_of(contracts) == [["a.cli"], ["a.one", "a.two", "a.three"]]
    lines = [line.strip() for line in layers.draw(contracts).splitlines()]
    assert lines.count("end") == 2
    assert "layer1 --> layer2" in lines
    assert "a_one --x a_sealed" in lines
    with pytest.raises(ValueError, match="needs the lines"):
        layers.replace_drawing("no marks", "flowchart TB")


def test_the_readme_is_short_and_begins_with_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    first, second = re.findall(r"^```sh\n(.*?)\n```", readme, re.DOTALL | re.MULTILINE)[:2]
    assert first == "pip install -e . && python -m tuner run --trials 50"
    assert second == "pip install -e '.[dev]' && pytest"


@pytest.mark.skipif(shutil.which("bash") is None, reason="the script needs bash")
def test_continuous_integration_runs_the_readmes_test_command_with_every_test() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (line,) = [line for line in script.splitlines() if line.startswith("test_command=")]
    printed = subprocess.run(
        ["bash", "-c", f'{line}; echo "$test_command"'], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert printed == "pytest\n"
    # The README's command runs the tests that are not slow, and this one the slow ones; either can fail the run.
    ends = re.findall(r'^(bash -c "\$test_command --cov"|wait "\$slow") \|\| status=1$', script, re.MULTILINE)
    assert (len(ends), script.count("pytest -m slow ")) == (2, 1)
    assert script.splitlines()[-1] == 'exit "$status"'
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "`pytest --all`" in (ROOT / name).read_text(encoding="utf-8")


def test_the_documents_list_every_command() -> None:
    names = subprocess.run(
        [sys.executable, "-m", "tuner", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    commands = re.findall(r"^  ([a-z]+)  ", names, re.MULTILINE)
    assert len(commands) > 10
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in commands if f"`tuner {name}" not in readme] == []


@pytest.mark.parametrize(("name", "most"), [("run.svg", 60_000), ("report.png", 150_000)])
def test_the_pictures_are_small(name: str, most: int) -> None:
    path = ROOT / "docs" / "pictures" / name
    assert path.stat().st_size <= most
    assert f"docs/pictures/{name}" in links_of(ROOT / "README.md")


def test_the_pictures_show_a_run_and_a_report_and_no_folder_of_a_machine() -> None:
    svg = (ROOT / "docs" / "pictures" / "run.svg").read_text(encoding="utf-8")
    words = " ".join(re.findall(r">([^<>]+)<", svg)).replace("&#160;", " ")
    assert "tuner run --trials" in words
    assert "winner" in words
    assert not re.search(r"(^|[\s:\"'(])(/\w+/|[A-Z]:\\)", words)
    assert "@font-face" not in svg
    with Image.open(ROOT / "docs" / "pictures" / "report.png") as picture:
        assert picture.width >= 800


def test_networks_are_values_that_open_no_files() -> None:
    for path in ROOT.glob("tuner/architecture/**/*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        imported = {name.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for name in node.names}
        imported |= {(node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom)}
        called = {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
        assert not imported & {"io", "os", "pathlib", "shutil", "tempfile", "importlib", "optuna"}, path
        assert "open" not in called, path


def test_pre_commit_runs_the_checks_of_the_contributing_document() -> None:
    configuration = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repository in configuration["repos"] for hook in repository["hooks"]]
    assert [hook["entry"] for hook in hooks] == CHECKS
    assert {hook["language"] for hook in hooks} == {"system"}
    assert " && ".join(CHECKS) in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_citation_and_changelog_agree_with_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == tuner.__version__
    assert citation["license"] == project["license"]
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[:2] == ["Unreleased", f"{tuner.__version__} - {citation['date-released']}"]
