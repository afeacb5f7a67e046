"""`tuner report` on real studies: its numbers, and what a real browser makes of it."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from PIL import Image

import tuner
from tests.report_numbers import check_figures, figures_of
from tests.system.browser import browser
from tests.system.conftest import Tuner, run_tuner
from tuner.data.development_part import load_development
from tuner.data.sealed import load_test_set
from tuner.data.splits import split_development
from tuner.deliver.classifier import normalise
from tuner.search.record import StudyRecord
from tuner.search.storage import open_storage
from tuner.search.study_lookup import load_study
from tuner.training.checkpoint import model_from
from tuner.ui.report import report_page

PHONE: dict[str, Any] = {"width": 390, "height": 844, "phone": True}
LOOKS = {
    "desktop, light": {},
    "desktop, dark": {"dark": True},
    "phone, light": PHONE,
    "phone, dark": PHONE | {"dark": True},
}
DRAWN = "document.documentElement.dataset.drawn !== undefined"


@pytest.fixture(scope="module")
def report(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the finished, confirmed study."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    done = run_tuner("report", "-o", path, cwd=workplace)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture
def unconfirmed(workplace: Path, tmp_path: Path) -> Path:
    """The same study as it was before its confirmation."""
    shutil.copytree(workplace / "studies", tmp_path / "studies", ignore=shutil.ignore_patterns(".lock"))
    record_of(tmp_path).save_confirmed(None)
    (tmp_path / "studies" / "digits-auto" / "confirmed.pt").unlink()
    return tmp_path


def record_of(folder: Path) -> StudyRecord:
    return load_study(open_storage(f"sqlite:///{folder / 'studies' / 'tuner.db'}"))


def confusion_of(page: str) -> np.ndarray[Any, Any]:
    """The matrix as the page draws it."""
    right, wrong = figures_of(page)["confusion"]["data"]
    right, wrong = (np.array(trace["z"], dtype=float) for trace in (right, wrong))
    return np.nan_to_num(right) + np.nan_to_num(wrong)


def expected_confusion(checkpoint: tuner.Checkpoint, images_NCHW: torch.Tensor, labels_N: torch.Tensor) -> Any:
    """The matrix, counted image by image."""
    with torch.inference_mode():
        said_N = model_from(checkpoint)(normalise(images_NCHW, checkpoint.preprocessing)).argmax(1)
    expected = np.zeros((10, 10))
    for label, said in zip(labels_N.tolist(), said_N.tolist(), strict=True):
        expected[label, said] += 1
    return expected


def test_a_confirmed_study_is_judged_by_the_delivered_file_on_the_sealed_test_set(
    workplace: Path, report: Path
) -> None:
    page = report.read_text(encoding="utf-8")
    record = record_of(workplace)
    assert record.confirmed is not None
    study = optuna.load_study(study_name="digits-auto", storage=record.storage)
    check_figures(page, study, winner=record.confirmed.number)
    test = load_test_set(record.data_spec(workplace / "studies" / ".cache"))
    checkpoint = tuner.load_checkpoint(workplace / "studies" / "digits-auto" / "confirmed.pt")
    expected = expected_confusion(checkpoint, test.images_NCHW[:], test.labels_N)
    assert np.array_equal(confusion_of(page), expected)
    accuracy = expected.trace() / expected.sum()
    assert accuracy == record.confirmed.delivered_test_accuracy
    assert f"On the sealed test set: {int(expected.trace())} of 360 correct ({accuracy:.2%})" in page
    assert page.count('<figure class="mistake">') == min(24, int(expected.sum() - expected.trace()))
    assert f"{record.confirmed.test_accuracy:.2%}" in page[: page.index("<h2>")]


def test_an_unconfirmed_study_is_judged_on_its_validation_images_and_the_test_set_stays_sealed(
    unconfirmed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the test set was opened")

    monkeypatch.setattr("tuner.ui.report.mistakes.open_test_set", refuse)
    record = record_of(unconfirmed)
    page = report_page(record, studies=unconfirmed / "studies")
    development = load_development(record.data_spec(unconfirmed / "studies" / ".cache"))
    study = optuna.load_study(study_name="digits-auto", storage=record.storage)
    check_figures(page, study, winner=study.best_trial.number)
    path = unconfirmed / "studies" / "digits-auto" / f"trial-{study.best_trial.number:05}.pt"
    rows_N = split_development(development, seed=0).validation_indices_N
    expected = expected_confusion(
        tuner.load_checkpoint(path), development.images_NCHW[rows_N], development.labels_N[rows_N]
    )
    assert np.array_equal(confusion_of(page), expected)
    assert expected.trace() / expected.sum() == study.best_value
    assert "On the validation images" in page
    assert "optimistic" in page


@pytest.mark.slow
def test_where_the_checkpoint_is_gone_the_page_says_so_and_has_the_rest(unconfirmed: Path) -> None:
    for path in (unconfirmed / "studies" / "digits-auto").glob("*.pt"):
        path.unlink()
    assert run_tuner("report", cwd=unconfirmed).returncode == 0
    page = (unconfirmed / "report.html").read_text(encoding="utf-8")
    assert 'id="confusion-absent"' in page
    assert {"history", "curves", "timeline"} <= set(figures_of(page))


def test_where_the_delivered_file_is_of_another_confirmation_the_page_says_so_and_has_no_images(
    workplace: Path, tmp_path: Path
) -> None:
    shutil.copytree(workplace / "studies", tmp_path / "studies", ignore=shutil.ignore_patterns(".lock"))
    record = record_of(tmp_path)
    assert record.confirmed is not None
    record.save_confirmed(replace(record.confirmed, delivered_test_accuracy=0.5))
    page = report_page(record, studies=tmp_path / "studies")
    assert "not the confirmed winner of study &#x27;digits-auto&#x27;" in page
    assert 'id="confusion-absent"' in page
    assert '<figure class="mistake">' not in page


@pytest.mark.slow
@pytest.mark.parametrize("look", LOOKS)
def test_a_browser_draws_the_page_without_a_complaint_and_asks_for_nothing(
    report: Path, chromium: str, tmp_path: Path, look: str
) -> None:
    with browser(chromium, tmp_path) as page:
        page.look_at(report.as_uri(), **LOOKS[look])
        page.wait_until(DRAWN)
        assert page.complaints == []
        assert {url for url in page.requests if not url.startswith("data:")} == {report.as_uri()}
        figures = figures_of(report.read_text(encoding="utf-8"))
        drawn = page.value("[...document.querySelectorAll('.plot')].filter(p => p.querySelector('svg')).map(p => p.id)")
        assert sorted(drawn) == sorted(figures)
        for identifier in ("history", "accuracy-parameters", "accuracy-latency"):
            num_points = page.value(f"document.querySelectorAll('#{identifier} .points path').length")
            expected = sum(len(trace["x"]) for trace in figures[identifier]["data"] if trace["mode"] == "markers")
            assert num_points == expected
        assert page.value("document.documentElement.scrollWidth <= window.innerWidth")
        is_dark = "dark" in look
        paper = page.value("getComputedStyle(document.body).backgroundColor")
        ink = page.value("document.querySelector('#history .xtick text').style.fill")
        assert (sum(map(int, paper.strip("rgb()").split(","))) < 384) == is_dark
        assert ink == page.value("getComputedStyle(document.querySelector('.caption')).color")


@pytest.mark.slow
def test_a_page_follows_a_change_of_theme(report: Path, chromium: str, tmp_path: Path) -> None:
    colour = "document.querySelector('#history .xtick text').style.fill"
    with browser(chromium, tmp_path) as page:
        page.look_at(report.as_uri())
        page.wait_until(DRAWN)
        light = page.value(colour)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        page.wait_until(f"{colour} !== {json.dumps(light)}")
        assert page.complaints == []


@pytest.mark.slow
def test_a_class_that_is_called_like_a_script_runs_nothing(chromium: str, tmp_path: Path) -> None:
    names = ("<img src=x onerror=alert(1)>", "<script>document.title='owned'<", "b & 'c'")
    generator = random.Random(0)
    for name in names:
        (tmp_path / "images" / name).mkdir(parents=True)
        for index in range(8):
            image = Image.new("L", (8, 8), generator.randrange(256))
            image.save(tmp_path / "images" / name / f"{index}.png")
    options = ("--trials", "2", "--epochs", "1", "--workers", "1", "--no-confirm", "--study", "evil")
    done = run_tuner("run", "--dataset", tmp_path / "images", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run_tuner("report", cwd=tmp_path).returncode == 0
    with browser(chromium, tmp_path / "profile") as page:
        page.look_at((tmp_path / "report.html").as_uri())
        page.wait_until(DRAWN)
        assert page.complaints == []
        assert page.value("document.title") == "evil · tuner report"
        assert page.value("document.querySelectorAll('img[onerror]').length") == 0
        labels = page.value("[...document.querySelectorAll('#confusion .ytick text')].map(text => text.textContent)")
        assert sorted(labels) == sorted(name if len(name) <= 16 else f"{name[:15]}…" for name in names)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "no study 'nothing'"),
        (["-o", "."], "is a folder"),
        (["-o", "no/such/x.html"], "cannot be written"),
    ],
)
def test_a_report_that_cannot_be_written_is_refused_in_one_line(
    workplace: Path, tuner_here: Tuner, arguments: list[str], said: str
) -> None:
    refused = tuner_here("report", *arguments, cwd=workplace)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
