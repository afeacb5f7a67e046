"""Names that are no UTF-8: searched, shown, exported and predicted, in a UTF-8 locale and in an ASCII one."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.system.conftest import ROOT
from tuner.cli.options import folder_arguments
from tuner.data.dataset import DataSpec
from tuner.data.development_part import load_development
from tuner.errors import DataError
from tuner.names import SHOWN, shown_name
from tuner.search.settings import StudySettings
from tuner.search.sqlite import sqlite_file, sqlite_url
from tuner.search.storage import open_storage
from tuner.search.study_lookup import open_study
from tuner.training.engine import Engine

CAFE = os.fsdecode(b"caf\xe9")
ASCII = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
"""A locale in which Python has all letters beyond ASCII as surrogates."""
RUN = ("run", "--device", "cpu", "--workers", "1", "--trials", "2", "--epochs", "1")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain", "plain"),
        ("café 犬 😀", "café 犬 😀"),
        ("caf\udce9", r"caf\xe9"),
        ("caf\udcc3\udca9", "café"),  # as an ASCII locale has it
        ("\udcff\udcfe", r"\xff\xfe"),
        ("\ud800x", r"\ud800x"),  # as Windows may have it
        ("a\\xe9", "a\\xe9"),
        ("", ""),
    ],
)
def test_a_name_is_shown_with_escapes_for_what_cannot_be_encoded(name: str, shown: str) -> None:
    assert shown_name(name) == shown
    assert shown_name(shown) == shown


@given(st.binary(max_size=20))
def test_the_name_of_any_bytes_can_be_shown(name: bytes) -> None:
    shown_name(name.decode("utf-8", "surrogateescape")).encode()
    shown_name(name.decode("ascii", "surrogateescape")).encode()


@given(st.text())
def test_a_text_is_shown_as_it_is(text: str) -> None:
    assert shown_name(text) == text


@pytest.mark.parametrize(("encoding", "output"), [("utf-8", r"caf\xe9 é".encode()), ("ascii", rb"caf\xe9 \xe9")])
def test_an_output_has_escapes_for_what_it_cannot_encode(encoding: str, output: bytes) -> None:
    file = io.BytesIO()
    with io.TextIOWrapper(file, encoding=encoding, errors=SHOWN) as stream:
        stream.write("caf\udce9 é")
        stream.flush()
        assert file.getvalue() == output


def make_images(folder: Path, *classes: str) -> None:
    """A small class folder each; skipped where the system takes no such names."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(classes):
        try:
            (folder / name).mkdir(parents=True)
        except OSError:
            pytest.skip("this file system takes UTF-8 alone")
        for number in range(20):
            pixels = rng.integers(0, 100, (8, 8)) + 100 * label
            with (folder / name / f"{number}.png").open("wb") as file:
                Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")


def tuner(*arguments: str, cwd: Path, **environment: str) -> str:
    """Standard output of a command that succeeds."""
    done = subprocess.run(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"Traceback" not in done.stdout + done.stderr
    return done.stdout.decode("utf-8")


def states(folder: Path) -> list[str]:
    shown = json.loads(tuner("show", "--json", cwd=folder))
    return [name for name, number in shown["trials"].items() if number and name != "counted"]


@pytest.mark.slow
def test_a_class_whose_name_is_no_utf_8_is_searched_shown_exported_and_predicted(tmp_path: Path) -> None:
    make_images(tmp_path / "set", "plain", CAFE)
    tuner(*RUN, "--dataset", "set", cwd=tmp_path)
    assert states(tmp_path) == ["complete"]
    tuner(*RUN, "--dataset", "set", cwd=tmp_path)  # the same again: nothing is left to do
    tuner("report", cwd=tmp_path)
    assert r"caf\\xe9" in (tmp_path / "report.html").read_text(encoding="utf-8")  # within JSON
    pictures = [path.read_bytes() for path in (tmp_path / "studies" / ".artifacts").iterdir()]
    assert any(rb">caf\xe9<" in picture for picture in pictures)
    tuner("export", "--format", "all", "-o", "all", cwd=tmp_path)
    for name in ("best.pt", "best.safetensors", "best.onnx"):
        said = tuner("predict", f"all/{name}", f"set/{CAFE}", cwd=tmp_path)
        assert said.splitlines()[0].startswith(r"set/caf\xe9/0.png: ")
        (first, *_) = json.loads(tuner("predict", f"all/{name}", f"set/{CAFE}", "--json", cwd=tmp_path))
        assert sorted(first["classes"]) == [r"caf\xe9", "plain"]
        assert Path(tmp_path, first["image"]).is_file()  # a path stays one that can be opened
        assert r"caf\xe9: " in tuner("evaluate", f"all/{name}", "--dataset", "set", cwd=tmp_path)


@pytest.mark.slow
def test_a_data_set_and_a_folder_of_studies_whose_paths_are_no_utf_8_can_be_used_again(tmp_path: Path) -> None:
    data = f"set-{CAFE}"
    make_images(tmp_path / data, "a", "b")
    there = ("--studies", CAFE)
    said = tuner(*RUN, "--dataset", data, *there, cwd=tmp_path)
    assert r"set-caf\xe9: " in said
    assert r"--studies $'caf\xe9'" in said
    tuner("report", *there, "-o", f"{CAFE}.html", cwd=tmp_path)
    page = (tmp_path / f"{CAFE}.html").read_text(encoding="utf-8")
    assert r"set-caf\xe9" in page
    assert "There is no confusion matrix" not in page  # the images were found again
    tuner("confirm", *there, "--candidates", "1", "--seeds", "1", cwd=tmp_path)
    for name in (f"{CAFE}.pt", f"{CAFE}.safetensors", f"{CAFE}.onnx"):
        tuner("export", *there, "--format", name.rpartition(".")[2], "-o", name, cwd=tmp_path)
        tuner("predict", name, data, cwd=tmp_path)


@pytest.mark.slow
def test_letters_beyond_ascii_are_searched_and_shown_in_an_ascii_locale(tmp_path: Path) -> None:
    make_images(tmp_path / "set", "plain", "é")
    tuner(*RUN, "--dataset", "set", "--no-confirm", cwd=tmp_path, **ASCII)
    assert states(tmp_path) == ["complete"]
    tuner("report", cwd=tmp_path, **ASCII)
    said = tuner("predict", "studies/set-auto/trial-00000.pt", "set/é", cwd=tmp_path, **ASCII)
    assert said.isascii()
    assert said.startswith(r"set/\xc3\xa9/0.png: ")
    (first, *_) = json.loads(tuner("predict", "studies/set-auto/trial-00000.pt", "set/é", "--json", cwd=tmp_path))
    assert sorted(first["classes"]) == ["plain", "é"]


def test_where_the_images_are_survives_the_record_with_every_byte(tmp_path: Path) -> None:
    make_images(tmp_path / CAFE, "a", "b")
    spec = DataSpec(str(tmp_path / CAFE), tmp_path / CAFE, tmp_path / "cache")
    dataset = load_development(spec)
    assert dataset.name == r"caf\xe9"
    folder = tmp_path / f"studies-{CAFE}"
    folder.mkdir()
    settings = StudySettings(dataset.name, dataset.digest, space_name="cnn", space={}, seed=0, epochs=1)
    record = open_study(open_storage(sqlite_url(folder / "tuner.db")), "a", settings, engine=Engine("cpu"))
    record.save_data_spec(spec)
    again = record.data_spec(tmp_path / "cache")
    assert (again.dataset, again.data_dir) == (str(tmp_path / CAFE), tmp_path / CAFE)
    assert load_development(again).digest == dataset.digest
    record.write_note("done")
    assert r"caf\xe9" in record.storage.get_study_system_attrs(record.study_id)["dashboard:note_str:0"]
    assert sqlite_file(record.storage.url) == folder / "tuner.db"


def test_two_classes_that_are_shown_alike_are_refused(tmp_path: Path) -> None:
    make_images(tmp_path / "set", CAFE, r"caf\xe9")
    with pytest.raises(DataError, match="every class must have a name of its own"):
        load_development(DataSpec(str(tmp_path / "set"), tmp_path, tmp_path / "cache"))


def test_the_next_commands_name_a_folder_as_a_shell_reads_it(tmp_path: Path) -> None:
    for folder in (CAFE, f"it's {CAFE}\\n", "plain", "with space"):
        arguments = folder_arguments(Path(folder), None).encode("utf-8", SHOWN)
        done = subprocess.run(["bash", "-c", b"printf %s" + arguments], capture_output=True, check=True)
        assert done.stdout == b"--studies" + os.fsencode(folder)
