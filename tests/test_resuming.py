"""A study that resumes by its name alone, and studies of earlier versions, which do not."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tuner import train_trial
from tuner.data.dataset import DataSpec
from tuner.deliver.confirm_plan import ConfirmPlan
from tuner.deliver.export import export
from tuner.errors import DeviceError, SpaceError, StudyError
from tuner.options import RunOptions, complete_options, options_of_study, wanted_trials
from tuner.pipeline import confirm_events, run, run_events
from tuner.search.events import DataReady, SearchStarted, TrialEnded
from tuner.search.record import ENGINE, SETTINGS, StudyRecord
from tuner.search.stored_options import TRIALS, StudyOptions
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import create_study, list_studies, load_study
from tuner.search.summary import summarise
from tuner.training.device import choose_device
from tuner.ui.report import write_report

SPACE = "[block]\nout_channels = [4, 8]\n[recipe]\nlearning_rate = [0.001, 0.01]\nbatch_size = [16]\n"
INFINITE = float("inf")
STORED = StudyOptions(
    DataSpec("/pets", Path("/images"), Path("cache"), image_size=(8, 9)), space="tiny", trials=7, epochs=3, seed=5
)


def save_photographs(folder: Path, *, first: int) -> None:
    for label, name in enumerate(("ant", "bee")):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.random.default_rng(first + 100 * label + number).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, and a study of them that was closed after one of its three trials."""
    folder = tmp_path_factory.mktemp("begun")
    save_photographs(folder / "pets" / "train", first=0)
    save_photographs(folder / "pets" / "test", first=1_000)
    (folder / "tiny.toml").write_text(SPACE, encoding="utf-8")
    options = RunOptions(
        dataset=str(folder / "pets"),
        space=str(folder / "tiny.toml"),
        study="mine",
        studies=folder / "studies",
        image_size=(6, 6),
        trials=3,
        epochs=1,
        seed=5,
        workers=1,
        device="cpu",
        confirm="no",
    )
    with closing(run_events(options)) as events:
        next(event for event in events if isinstance(event, TrialEnded))
    (folder / "tiny.toml").unlink()
    return folder


@pytest.fixture
def studies(begun: Path, tmp_path: Path) -> Path:
    """A copy of the folder of that study."""
    return shutil.copytree(begun / "studies", tmp_path / "studies")


def mine(studies: Path) -> StudyRecord:
    return load_study(existing_storage(studies), "mine")


def by_name(studies: Path, **changes: Any) -> RunOptions:
    return RunOptions(**{"study": "mine", "studies": studies, "workers": 1, "confirm": "no", **changes})


def taken(ready: DataReady) -> str:
    (note,) = [note for note in ready.notes if "taken from the study" in note]
    return note


def test_a_total_that_is_neither_given_nor_stored_is_the_default_and_none_with_a_budget() -> None:
    spec = DataSpec("digits", Path("data"), Path("cache"))
    for trials, budget, expected in ((None, INFINITE, 50), (None, 60.0, None), (7, INFINITE, 7), (7, 60.0, 7)):
        options = StudyOptions(spec, space="cnn", trials=trials, epochs=None, seed=0)
        assert wanted_trials(options, budget) == expected


def test_options_that_are_not_given_have_their_documented_defaults() -> None:
    wanted = complete_options(RunOptions(studies=Path("s")), None)
    spec = DataSpec("digits", Path("data"), Path("s/.cache"), image_size=None, download=True)
    assert wanted == StudyOptions(spec, space="auto", trials=None, epochs=None, seed=0)
    assert RunOptions().study_name == RunOptions(space="auto").study_name == "digits-auto"
    assert RunOptions(dataset="a/Pets", space="b/tiny.toml").study_name == "pets-tiny"


def test_options_that_are_not_given_come_from_the_study_and_given_ones_do_not() -> None:
    assert complete_options(RunOptions(), STORED) == complete_options(RunOptions(space="auto"), STORED) == STORED
    given = RunOptions("mnist", Path("d"), (4, 4), space="article", trials=1, epochs=9, seed=0, download=False)
    spec = DataSpec("mnist", Path("d"), Path("cache"), image_size=(4, 4), download=False)
    assert complete_options(given, STORED) == StudyOptions(spec, space="article", trials=1, epochs=9, seed=0)


def test_a_name_alone_resumes_a_study_with_all_that_it_stores(begun: Path, studies: Path) -> None:
    before = mine(studies).settings
    events = list(run_events(by_name(studies)))
    (ready,) = [event for event in events if isinstance(event, DataReady)]
    assert taken(ready) == (
        f"options taken from the study: --dataset {begun / 'pets'} --image-size 6x6 --trials 3 --epochs 1 --seed 5"
    )
    assert ready.device == "cpu"
    (started,) = [event for event in events if isinstance(event, SearchStarted)]
    assert (started.num_counted, started.num_trials) == (1, 3)
    assert summarise(mine(studies), studies=studies).num_counted == 3
    assert mine(studies).settings == before


def test_a_study_resumes_on_its_own_device_unless_another_is_given(
    studies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def choose_on_a_machine_with_a_gpu(name: str) -> torch.device:
        return torch.device("cuda") if name == "auto" else choose_device(name)

    monkeypatch.setattr("tuner.search.study_data.choose_device", choose_on_a_machine_with_a_gpu)
    with closing(run_events(by_name(studies))) as events:
        assert next(event for event in events if isinstance(event, DataReady)).device == "cpu"
    monkeypatch.undo()
    record = mine(studies)
    record.storage.set_study_user_attr(record.study_id, ENGINE, record.engine.to_json() | {"device": "mps"})
    with pytest.raises(DeviceError, match="study 'mine' trains on mps, as its search did, and torch finds no such"):
        next(run_events(by_name(studies)))
    with pytest.raises(DeviceError, match="was started on mps, and this run would train on cpu: give --device mps"):
        next(run_events(by_name(studies, device="cpu")))


def test_the_wanted_total_is_that_of_the_last_run_that_gave_one(studies: Path) -> None:
    with closing(run_events(by_name(studies, trials=4))) as events:
        assert next(event for event in events if isinstance(event, SearchStarted)).num_trials == 4
    with closing(run_events(by_name(studies, space=None, seed=5))) as events:
        ready = next(event for event in events if isinstance(event, DataReady))
        assert "--trials 4" in taken(ready)
        assert "--seed" not in taken(ready)
        assert next(event for event in events if isinstance(event, SearchStarted)).num_trials == 4
    record = mine(studies)
    assert record.storage.get_study_user_attrs(record.study_id)[TRIALS] == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 0}, "seed was 5, not 0"),
        ({"epochs": 2}, "epochs was 1, not 2"),
        ({"space": "article"}, 'space was "tiny", not "article"'),
        ({"image_size": (8, 8)}, "--image-size was 6x6, not 8x8"),
        ({"dataset": "digits"}, 'dataset was ".*pets", not "digits"'),
    ],
)
def test_a_given_option_that_differs_from_the_study_is_refused(
    studies: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(StudyError, match=f"study 'mine' was started with other settings: {said}"):
        next(run_events(by_name(studies, **changes)))
    assert mine(studies).num_stored == 1


def test_a_name_without_a_study_starts_one_with_the_defaults(studies: Path) -> None:
    with closing(run_events(by_name(studies, study="new", device="cpu"))) as events:
        ready = next(event for event in events if isinstance(event, DataReady))
        assert (ready.dataset, ready.study) == ("digits", "new")
        assert not any("taken from the study" in note for note in ready.notes)
        assert next(event for event in events if isinstance(event, SearchStarted)).num_trials == 50
    settings = load_study(existing_storage(studies), "new").settings
    assert (settings.space_name, settings.epochs, settings.seed) == ("cnn", 20, 0)


def test_a_name_without_a_study_makes_no_database_before_its_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(SpaceError):
        next(run_events(by_name(tmp_path / "studies", study="new", space="no-such-space")))
    assert not (tmp_path / "studies").exists()


def test_what_a_killed_run_had_no_time_to_store_has_its_default(studies: Path) -> None:
    record = mine(studies)
    half = create_study(record.storage, "half", record.settings, engine=record.engine)
    wanted, _ = options_of_study(by_name(studies, study="half"), half)
    assert (wanted.data_spec.dataset, wanted_trials(wanted, INFINITE), wanted.space, wanted.seed) == (
        "digits",
        50,
        "tiny",
        5,
    )


@pytest.fixture
def older(studies: Path, begun: Path) -> Path:
    """The study as of version 0.1, whose settings have no format number; its images are gone."""
    record = mine(studies)
    stored = record.settings.to_json()
    del stored["format"]
    record.storage.set_study_user_attr(record.study_id, SETTINGS, stored)
    record.save_data_spec(DataSpec(str(begun / "gone"), begun, studies / ".cache"))
    return studies


def resume(studies: Path) -> None:
    run(by_name(studies))


def confirm_it(studies: Path) -> None:
    next(confirm_events(studies, "mine", plan=ConfirmPlan(), workers=1))


def train_it(studies: Path) -> None:
    train_trial(mine(studies), 0, epochs=1, studies=studies)


def export_it(studies: Path) -> None:
    export(mine(studies), studies=studies, output=studies.parent / "best.pt")


@pytest.mark.parametrize("command", [resume, confirm_it, train_it, export_it])
def test_a_study_of_an_earlier_version_is_refused_by_name_before_its_images_are_read(
    older: Path, command: Callable[[Path], None]
) -> None:
    files = sorted(older.rglob("*"))
    with pytest.raises(StudyError, match=r"^study 'mine' was made by an earlier version of tuner, whose ") as caught:
        command(older)
    assert "\n" not in str(caught.value)
    instead = f"use its checkpoint {older / 'mine'}" if command is export_it else "start another study"
    assert instead in str(caught.value)
    assert sorted(older.rglob("*")) == files


def test_a_study_of_an_earlier_version_is_listed_shown_and_reported(older: Path) -> None:
    (record,) = list_studies(existing_storage(older))
    summary = summarise(record, studies=older)
    assert (summary.study, summary.num_counted) == ("mine", 1)
    page = older.parent / "page.html"
    write_report(record, studies=older, output=page)
    assert "made by an earlier version of tuner, whose digests of images differ" in page.read_text("utf-8")
