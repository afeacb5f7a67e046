"""Whole runs of a space that augments: the flip that the data set decides, what is stored, the report and inspect."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tuner.cli.inspect_command import inspect
from tuner.errors import DataError
from tuner.options import RunOptions
from tuner.pipeline import load_summary, run_events
from tuner.search.events import DataReady, TrialEnded
from tuner.search.record import StudyRecord
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import load_study
from tuner.ui.report import report_page

SPACE = """
[block]
out_channels = 4
[recipe]
learning_rate = { low = 1e-3, high = 1e-2, log = true }
flip = "auto"
translate = 0.125
cutout = [0.25, 0.5]
mixup = 0.2
[[first]]
block = [{}, {}]
recipe = { cutout = 0.25 }
"""


@pytest.fixture(scope="module", autouse=True)
def _one_core() -> Iterator[None]:
    """As on a machine of one core: with more threads than free cores, small networks train many times slower."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tuner.search.study_runners.num_cores", lambda: 1)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunOptions, DataReady, list[TrialEnded]]:
    folder = tmp_path_factory.mktemp("augmented")
    (folder / "mixed.toml").write_text(SPACE, encoding="utf-8")
    options = RunOptions(
        space=str(folder / "mixed.toml"),
        studies=folder / "studies",
        trials=2,
        epochs=2,
        workers=1,
        device="cpu",
        confirm="no",
    )
    ready, *events = run_events(options)
    assert isinstance(ready, DataReady)
    return options, ready, [event for event in events if isinstance(event, TrialEnded)]


def record_of(options: RunOptions) -> StudyRecord:
    return load_study(existing_storage(options.studies))


Finished = tuple[RunOptions, DataReady, list[TrialEnded]]


def test_a_run_says_why_digits_are_not_flipped_and_stores_what_was_decided(finished: Finished) -> None:
    options, ready, ended = finished
    assert [note for note in ready.notes if note.startswith("flip is ")] == [
        "flip is none, since mirrored images of digits would be other characters"
    ]
    record = record_of(options)
    assert record.settings.space["recipe"]["flip"]["choices"] == ["none"]
    assert len(ended) == 2
    assert {event.outcome for event in ended} <= {"complete", "pruned"}
    for trial in record.trials():
        recipe = trial.candidate.recipe
        assert (recipe.flip, recipe.translate, recipe.mixup) == ("none", 0.125, 0.2)
        assert "flip" not in trial.params
        assert trial.params["cutout"] == recipe.cutout


def test_the_run_resumes_with_the_same_space_file_and_without_it(finished: Finished) -> None:
    options, *_ = finished
    for resumed in (options, replace(options, space=None, study="digits-mixed")):
        ready, *_ = run_events(resumed)
        assert isinstance(ready, DataReady)
    assert load_summary(options).num_counted == 2


def test_the_report_shows_augmented_images_of_the_winner(finished: Finished, tmp_path: Path) -> None:
    options, *_ = finished
    record = record_of(options)
    page = report_page(record, studies=options.studies)
    assert "What it is trained on" in page
    assert "shifts of up to 12.5 %, cutout of " in page
    assert '<img src="data:image/png;base64,' in page.split("What it is trained on")[1].split("</section>")[0]


def test_inspect_draws_the_images_of_a_trial(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, *_ = finished
    output = tmp_path / "sheet.png"
    inspect("digits-mixed", trial=1, augmented=True, output=output, studies=options.studies)
    printed = capsys.readouterr().out
    assert f"{output}: 6 images of digits with shifts of up to 12.5 %" in printed
    with Image.open(output) as sheet:
        assert sheet.format == "PNG"
    with pytest.raises(DataError, match="is a folder"):
        inspect("digits-mixed", trial=1, augmented=True, output=tmp_path, studies=options.studies)
