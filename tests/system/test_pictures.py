"""The pictures of the README, made by the documented command on a small search."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "pictures.py"


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_pictures", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_documented_command_makes_both_pictures_without_a_path_of_the_machine(
    chromium: str, tmp_path: Path
) -> None:
    command = [sys.executable, str(SCRIPT), "--output", "made", "--trials", "2", "--epochs", "2", "--workers", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    svg = (tmp_path / "made" / "run.svg").read_text(encoding="utf-8")
    assert "winner" in svg
    assert "studies/digits-auto/confirmed.pt" in svg
    assert str(tmp_path) not in svg
    with Image.open(tmp_path / "made" / "report.png") as picture:
        assert picture.format == "PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]


@pytest.mark.slow
def test_a_page_is_drawn_in_few_colours(chromium: str, pictures: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<body style='background: linear-gradient(red, blue)'><h1>A page</h1></body>")
    pictures.draw_page(page, tmp_path / "page.png", browser=chromium)
    with Image.open(tmp_path / "page.png") as picture:
        assert picture.size == (pictures.WIDTH, pictures.HEIGHT)
        assert len(picture.convert("RGB").getcolors(2**24) or ()) <= pictures.NUM_COLOURS


def test_without_chromium_the_pictures_end_with_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path / "pictures")]
    environment = {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("the report's picture needs Chromium")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "pictures").exists()


def test_a_browser_that_draws_nothing_is_reported_with_its_last_line(pictures: ModuleType, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text("#!/bin/sh\necho first >&2\necho no display >&2\nexit 7\n")
    browser.chmod(0o755)
    with pytest.raises(pictures.PictureError, match="exit code 7 and drew nothing: no display"):
        pictures.draw_page(tmp_path / "page.html", tmp_path / "page.png", browser=str(browser))
