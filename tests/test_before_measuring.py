"""What a run and a confirmation refuse before they measure this machine."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tuner.deliver.confirm_plan import ConfirmPlan
from tuner.errors import DeviceError, SpaceError, StudyError, TunerError
from tuner.hardware import memory_bytes
from tuner.options import RunOptions
from tuner.pipeline import confirm_events, run, run_events
from tuner.search.record import StudyRecord
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import list_studies, load_study, open_study
from tuner.training.measurement_cache import machine_cache_dir

SPACE = "[block]\nout_channels = [4]\n[recipe]\nlearning_rate = [0.01]\nbatch_size = [64]\n"


def save_photographs(folder: Path, *, first: int) -> None:
    for label, name in enumerate(("ant", "bee")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(12):
            pixels = np.random.default_rng(first + 100 * label + number).integers(0, 256, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunOptions:
    """A study of a folder of images with one trial; from now on, nothing is known of this machine."""
    save_photographs(tmp_path / "pets" / "train", first=0)
    save_photographs(tmp_path / "pets" / "test", first=1_000)
    (tmp_path / "tiny.toml").write_text(SPACE, encoding="utf-8")
    options = RunOptions(
        dataset=str(tmp_path / "pets"),
        space=str(tmp_path / "tiny.toml"),
        study="pets",
        studies=tmp_path / "studies",
        trials=1,
        epochs=1,
        workers=1,
        device="cpu",
        confirm="no",
    )
    run(options)
    assert was_measured()
    monkeypatch.setenv("TUNER_CACHE_DIR", str(tmp_path / "measurements"))
    return options


def record_of(options: RunOptions) -> StudyRecord:
    return load_study(existing_storage(options.studies), "pets")


def set_engine(options: RunOptions, **changes: Any) -> None:
    record = record_of(options)
    record.storage.set_study_user_attr(record.study_id, "tuner:engine", record.engine.to_json() | changes)


def was_measured() -> bool:
    folder = machine_cache_dir()
    assert folder is not None
    return any(folder.glob("engine-*.json"))


def on_a_gpu(options: RunOptions) -> RunOptions:
    set_engine(options, device="cuda")
    return options


def with_another_engine(options: RunOptions) -> RunOptions:
    other = "foreach" if record_of(options).engine.optimizer == "fused" else "fused"
    return replace(options, engine=f"optimizer={other}")


def with_other_test_images(options: RunOptions) -> RunOptions:
    save_photographs(Path(options.dataset) / "test", first=2_000)
    return options


def with_other_training_images(options: RunOptions) -> RunOptions:
    save_photographs(Path(options.dataset) / "train", first=2_000)
    return options


def in_a_folder_of_other_files(options: RunOptions) -> RunOptions:
    folder = options.studies / "pets"
    for path in folder.iterdir():
        path.unlink()
    (folder / "notes.txt").write_text("not a study's", encoding="utf-8")
    return options


def without_a_complete_trial(options: RunOptions) -> RunOptions:
    storage = existing_storage(options.studies)
    record = record_of(options)
    settings, engine, spec = record.settings, record.engine, options.data_spec
    storage.delete_study(record.study_id)
    for path in (options.studies / "pets").iterdir():
        path.unlink()
    open_study(storage, "pets", settings, engine=engine).save_data_spec(spec)
    return options


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (on_a_gpu, DeviceError, "was started on cuda, and this run would train on cpu"),
        (with_another_engine, StudyError, "was started with another engine than --engine optimizer="),
        (with_other_test_images, StudyError, "the test images of .* are not those"),
        (with_other_training_images, StudyError, "started with other settings"),
        (in_a_folder_of_other_files, StudyError, "notes.txt: not a file of study 'pets'"),
        (lambda options: replace(options, seed=1), StudyError, "seed was 0, not 1"),
        (lambda options: replace(options, epochs=2), StudyError, "epochs was 1, not 2"),
        (lambda options: replace(options, study="PETS"), StudyError, "would share the folder of 'pets'"),
    ],
)
def test_a_run_that_no_measurement_would_help_is_refused_before_it(
    begun: RunOptions, change: Callable[[RunOptions], RunOptions], error: type[TunerError], message: str
) -> None:
    options = change(begun)
    with pytest.raises(error, match=message):
        next(run_events(options))
    assert not was_measured()


def test_batches_that_cannot_be_streamed_are_refused_before_measuring(
    begun: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = 128 * (2 * 40 + 9)  # bytes for images of 64 bytes: batches of 40
    monkeypatch.setattr("tuner.data.training_data.IMAGES_SHARE", allowed / memory_bytes(torch.device("cpu")))
    with pytest.raises(SpaceError, match=r"recipe\.batch_size: even the smallest is too large"):
        next(run_events(replace(begun, dataset="digits", study="new")))
    assert not was_measured()
    assert [record.name for record in list_studies(existing_storage(begun.studies))] == ["pets"]


def test_a_first_configuration_that_is_too_large_for_these_images_is_refused_before_measuring(
    begun: RunOptions, tmp_path: Path
) -> None:
    space = f"max_parameters = 2_000\n{SPACE}[network]\nnum_blocks = [1]\n[[first]]\nblock = [{{}}]\n"
    (tmp_path / "small.toml").write_text(space, encoding="utf-8")
    with pytest.raises(SpaceError) as raised:
        next(run_events(replace(begun, dataset="digits", study="new", space=str(tmp_path / "small.toml"))))
    assert str(raised.value) == (
        "space 'small': first.0: must have at most max_parameters = 2,000 parameters, got 2,610 for images of 1x8x8 "
        "and 10 classes; raise max_parameters or make the configuration smaller"
    )
    assert not was_measured()
    assert [record.name for record in list_studies(existing_storage(begun.studies))] == ["pets"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (on_a_gpu, DeviceError, "trains on cuda, as its search did"),
        (with_other_test_images, StudyError, "the test images of .* are not those"),
        (with_other_training_images, StudyError, "the images of .* are not those"),
        (in_a_folder_of_other_files, StudyError, "notes.txt: not a file of study 'pets'"),
        (without_a_complete_trial, StudyError, "has no complete trial, so no winner to confirm"),
    ],
)
def test_a_confirmation_that_no_measurement_would_help_is_refused_before_it(
    begun: RunOptions, change: Callable[[RunOptions], RunOptions], error: type[TunerError], message: str
) -> None:
    change(begun)
    with pytest.raises(error, match=message):
        next(confirm_events(begun.studies, "pets", plan=ConfirmPlan(), workers=1))
    assert not was_measured()
