"""A whole study for each form of an image set: run, confirm, evaluate, export and predict."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

import tuner
from tuner.errors import StudyError
from tuner.search.events import DataReady
from tuner.search.study_location import existing_storage

SPACE = """
[network]
num_blocks = 1
[block]
out_channels = 4
pooling = "max"
[recipe]
learning_rate = 1e-2
batch_size = 16
"""


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.search.study_runners.num_cores", lambda: 1)


def options_for(dataset: Any, folder: Path, **changes: Any) -> tuner.RunOptions:
    space = folder / "tiny.toml"
    space.write_text(SPACE, encoding="utf-8")
    defaults = {"trials": 1, "epochs": 1, "workers": 1, "device": "cpu"}
    return tuner.RunOptions(dataset, space=str(space), studies=folder / "studies", **{**defaults, **changes})


def halves(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images whose bright half tells their class."""
    labels_N = np.arange(count) % 2
    images_NHW = np.random.default_rng(seed).integers(0, 100, (count, 8, 8), dtype=np.uint8)
    for image_HW, label in zip(images_NHW, labels_N, strict=True):
        image_HW[:, 4 * label : 4 * label + 4] += 150
    return images_NHW, labels_N


class Halves(Dataset[Any]):
    """A torch data set."""

    classes = ("left", "right")

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[Any, int]:
        images_NHW, labels_N = halves(60, seed=0)
        return torch.from_numpy(images_NHW[index]), int(labels_N[index])


def check_whole_study(options: tuner.RunOptions, name: str, folder: Path) -> tuner.StudySummary:
    """Run and confirm a study, then resume, export, evaluate and predict with its winner."""
    summary = tuner.run(options)
    assert summary.study == name
    assert summary.confirmed is not None
    assert tuner.run(options).num_counted == 1
    record = tuner.load_study(existing_storage(options.studies), name)
    exported = tuner.export(record, studies=options.studies, output=folder / "best.pt")
    assert exported.is_confirmed
    classifier = tuner.load_classifier(folder / "best.pt")
    evaluation = tuner.evaluate(classifier, options.data_spec)
    assert evaluation.accuracy == pytest.approx(summary.confirmed.test_accuracy)
    assert not [note for note in evaluation.notes if "are not those" in note]
    Image.fromarray(halves(1, seed=9)[0][0]).save(folder / "new.png")
    (prediction,) = tuner.predict(classifier, [folder / "new.png"])
    assert sorted(name for name, _ in prediction.probabilities) == sorted(classifier.class_names)
    return summary


def test_a_study_of_an_npz_file(tmp_path: Path) -> None:
    path = tmp_path / "halves.npz"
    arrays = {}
    for number, (part, count) in enumerate({"train": 60, "val": 20, "test": 20}.items()):
        images_NHW, labels_N = halves(count, seed=number)
        arrays |= {f"{part}_images": images_NHW, f"{part}_labels": labels_N[:, np.newaxis]}
    np.savez(path, **arrays)
    summary = check_whole_study(options_for(str(path), tmp_path), "halves-tiny", tmp_path)
    assert summary.confirmed is not None
    assert summary.confirmed.num_test_images == 20


def test_a_study_of_a_table(tmp_path: Path) -> None:
    images_NHW, labels_N = halves(60, seed=0)
    lines = ["image_id;side;part;parity"]
    for number, (image_HW, label) in enumerate(zip(images_NHW, labels_N, strict=True)):
        path = tmp_path / "pictures" / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image_HW).save(path)
        side, part = "left" if label == 0 else "right", "test" if number >= 40 else "train"
        lines.append(f"{number:02};{side};{part};{number // 2 % 2}")
    table = tmp_path / "sides.csv"
    table.write_text("\n".join(lines), encoding="utf-8")
    options = options_for(str(table), tmp_path, label_column="side", split_column="part")
    summary = check_whole_study(options, "sides-tiny", tmp_path)
    assert summary.confirmed is not None
    assert summary.confirmed.num_test_images == 20
    events = list(tuner.run_events(options_for(None, tmp_path, study="sides-tiny")))
    (ready,) = [event for event in events if isinstance(event, DataReady)]
    assert "--label-column side --split-column part" in " ".join(ready.notes)
    with pytest.raises(StudyError, match="--label-column was side, not parity"):
        tuner.run(replace(options, label_column="parity"))


@pytest.mark.slow
def test_a_study_of_arrays(tmp_path: Path) -> None:
    dataset = tuner.ImageParts(halves(60, seed=0), test=halves(20, seed=1), class_names=["l", "r"], name="Half images")
    options = options_for(dataset, tmp_path)
    summary = check_whole_study(options, "half-images-tiny", tmp_path)
    assert summary.dataset == "Half images"
    record = tuner.load_study(existing_storage(options.studies), summary.study)
    note = record.storage.get_study_system_attrs(record.study_id)
    assert "Convolutional networks for **`Half images`**, from the space" in str(note)
    assert summary.confirmed is not None
    assert summary.confirmed.num_test_images == 20
    resumed = tuner.run(options_for(None, tmp_path, study="half-images-tiny", trials=2, confirm="no"))
    assert resumed.num_counted == 2
    other = tuner.ImageParts(halves(60, seed=2), test=halves(20, seed=1), class_names=["l", "r"], name="Half images")
    with pytest.raises(StudyError, match=r"the images of arrays:Half images:\w+ are not those of arrays:Half images:"):
        tuner.run(options_for(other, tmp_path))


@pytest.mark.slow
def test_a_study_of_a_torch_data_set_with_two_runners(tmp_path: Path) -> None:
    options = options_for(Halves(), tmp_path, workers=2, trials=2)
    check_whole_study(replace(options, trials=1), "halves-tiny", tmp_path)
    assert tuner.run(options).num_counted == 2


@pytest.mark.slow
def test_a_study_of_a_folder_with_groups_resumes_only_with_the_same_groups(tmp_path: Path) -> None:
    images_NHW, labels_N = halves(72, seed=0)
    for number, (image_HW, label) in enumerate(zip(images_NHW, labels_N, strict=True)):
        path = tmp_path / "shots" / "ab"[label] / f"scene{number // 2 % 9}-{number % 3}-{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image_HW).save(path)
    options = options_for(str(tmp_path / "shots"), tmp_path, group=r"scene\d")
    check_whole_study(options, "shots-tiny", tmp_path)
    resumed = options_for(None, tmp_path, study="shots-tiny", trials=2, confirm="no")
    assert tuner.run(resumed).num_counted == 2
    with pytest.raises(StudyError, match=r"--group was scene\\d, not -\(\\d\)-"):
        tuner.run(replace(resumed, group=r"-(\d)-"))
