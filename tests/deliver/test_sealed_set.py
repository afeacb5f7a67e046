"""Which images a study is scored on is fixed when it begins, and compared at every opening."""

import json
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tuner.data.dataset import DataSpec, ImageDataset
from tuner.data.sealed import fix_parts, fix_test_part, open_sealed
from tuner.deliver.classifier import load_classifier
from tuner.deliver.confirm import Confirmed
from tuner.deliver.confirm_plan import ConfirmPlan
from tuner.deliver.evaluate import evaluate
from tuner.deliver.export import export
from tuner.deliver.sealed_set import fix_test_set, open_test_set
from tuner.deliver.train_trial import TrainingStarted, train_trial_events
from tuner.errors import DataError, StudyError
from tuner.options import RunOptions
from tuner.pipeline import confirm_events, load_summary, run, run_events
from tuner.search.confirmation_sentences import verdict_in_words, verdict_lines
from tuner.search.events import DataReady
from tuner.search.record import SEALED, StudyRecord
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import load_study
from tuner.ui.report import write_report
from tuner.ui.report.mistakes import judge
from tuner.ui.training_view import training_line

SPACE = "[block]\nout_channels = [4]\n[recipe]\nlearning_rate = [0.01]\nbatch_size = [16]\n"


@pytest.fixture(scope="module", autouse=True)
def _one_core() -> Iterator[None]:
    """As on a machine of one core: with more threads than free cores, small networks train many times slower."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tuner.search.study_runners.num_cores", lambda: 1)
        yield


def save_photograph(path: Path, number: int) -> None:
    """An image of noise, another for every number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)


def make_classes(root: Path, num_images: int, *, first: int = 0) -> Path:
    for label, name in enumerate(("ant", "bee")):
        for number in range(num_images):
            save_photograph(root / name / f"{number:03}.png", first + 1000 * label + number)
    return root


def options_in(folder: Path, **changes: Any) -> RunOptions:
    """A study of one short trial, of the folder `pets`."""
    space = folder / "tiny.toml"
    space.write_text(SPACE, encoding="utf-8")
    defaults = {"trials": 1, "epochs": 1, "workers": 1, "device": "cpu", "confirm": "no"}
    studies = folder / "studies"
    return RunOptions(str(folder / "pets"), space=str(space), studies=studies, **{**defaults, **changes})


def record_of(options: RunOptions) -> StudyRecord:
    return load_study(existing_storage(options.studies))


def images_of(dataset: ImageDataset) -> set[bytes]:
    return {image_CHW.numpy().tobytes() for image_CHW in dataset.images_NCHW}


@contextmanager
def other_content(path: Path, number: int = 9_999) -> Iterator[None]:
    """Another image in a file of the same name, for a while."""
    before = path.read_bytes()
    save_photograph(path, number)
    yield
    path.write_bytes(before)


@pytest.fixture(scope="module")
def confirmed(tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    folder = tmp_path_factory.mktemp("confirmed")
    make_classes(folder / "pets" / "train", 20)
    make_classes(folder / "pets" / "test", 5, first=100)
    options = options_in(folder, confirm="in full")
    assert isinstance(list(run_events(options))[-1], Confirmed)
    return options


def test_a_photograph_that_is_added_during_a_search_brings_no_image_of_it_into_the_test_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_classes(tmp_path / "pets", 40)
    opened: list[ImageDataset] = []

    def open_only(*_: object, load_test_set: Any, **__: object) -> Generator[None]:
        opened.append(load_test_set())
        yield

    monkeypatch.setattr("tuner.pipeline.confirm", open_only)
    options = options_in(tmp_path, confirm="in full")
    events = run_events(options)
    assert isinstance(next(events), DataReady)
    development = fix_parts(options.data_spec).development
    save_photograph(tmp_path / "pets" / "ant" / "000-new.png", 9_999)
    list(events)
    (test_set,) = opened
    assert not images_of(test_set) & images_of(development)
    assert len(test_set.labels_N) + len(development.labels_N) == 80


def test_a_run_lists_its_images_once(confirmed: RunOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuner.data import prepare

    listed: list[DataSpec] = []
    list_folder = prepare.list_image_folder
    monkeypatch.setattr(prepare, "list_image_folder", lambda spec: listed.append(spec) or list_folder(spec))
    events = confirm_events(confirmed.studies, None, plan=ConfirmPlan(1, 1), workers=1)
    assert isinstance(list(events)[-1], Confirmed)
    assert len(listed) == 1


def test_a_confirmation_without_its_cache_reports_the_images_that_it_decodes(confirmed: RunOptions) -> None:
    shutil.rmtree(confirmed.cache_dir)
    done: list[tuple[str, int, int]] = []
    events = confirm_events(
        confirmed.studies, None, plan=ConfirmPlan(1, 1), workers=1, report=lambda *progress: done.append(progress)
    )
    with closing(events):
        next(events)
    assert ("decoding images", 40, 40) in done


def test_a_study_has_the_digest_of_its_test_part_from_the_beginning(tmp_path: Path) -> None:
    make_classes(tmp_path / "pets" / "train", 10)
    make_classes(tmp_path / "pets" / "test", 3, first=100)
    options = options_in(tmp_path)
    events = run_events(options)
    assert isinstance(next(events), DataReady)
    events.close()
    test_set = open_sealed(fix_test_part(options.data_spec))
    assert record_of(options).sealed == {"digest": test_set.digest, "num_images": 6}


def test_test_images_are_fixed_without_being_opened(tmp_path: Path) -> None:
    make_classes(tmp_path / "pets" / "train", 10)
    make_classes(tmp_path / "pets" / "test", 3, first=100)
    spec = options_in(tmp_path).data_spec
    before = fix_parts(spec).test
    file = before.cached.folder / "images.npy"
    file.write_bytes(bytes(file.stat().st_size))
    again = fix_parts(spec)
    assert (again.test, again.development.repairs) == (before, ())
    assert not any(file.read_bytes())


def test_a_resumed_study_refuses_other_test_images_in_one_line(confirmed: RunOptions) -> None:
    before = record_of(confirmed).sealed
    with other_content(Path(confirmed.dataset) / "test" / "ant" / "000.png"):
        with pytest.raises(StudyError, match=r"the test images of .*pets are not those that study .* fixed") as caught:
            run(confirmed)
        assert "\n" not in str(caught.value)
    assert record_of(confirmed).sealed == before
    run(confirmed)


def test_a_study_from_before_takes_the_test_part_of_now_and_then_keeps_it(confirmed: RunOptions) -> None:
    record = record_of(confirmed)
    before = record.sealed
    record.storage.set_study_user_attr(record.study_id, SEALED, None)
    run(confirmed)
    assert record_of(confirmed).sealed == before is not None
    with other_content(Path(confirmed.dataset) / "test" / "ant" / "000.png"):
        part = fix_test_part(confirmed.data_spec)
        with pytest.raises(StudyError, match="are not those that study"):
            fix_test_set(record, part)


def test_other_test_images_are_refused_before_a_confirmation_trains_and_by_export_and_report(
    confirmed: RunOptions, tmp_path: Path
) -> None:
    record, summary = record_of(confirmed), load_summary(confirmed)
    with other_content(Path(confirmed.dataset) / "test" / "bee" / "004.png"):
        refusal = r"the test images of .*pets are not those that study .* fixed when it began: put the old ones back"
        with pytest.raises(StudyError, match=refusal):
            next(confirm_events(confirmed.studies, None, plan=ConfirmPlan(), workers=1))
        with pytest.raises(StudyError, match=refusal):
            export(record, studies=confirmed.studies, output=tmp_path / "best.pt")
        with pytest.raises(StudyError, match=refusal):
            judge(record, summary, studies=confirmed.studies)
    assert not (tmp_path / "best.pt").exists()
    assert judge(record, summary, studies=confirmed.studies).num_images == 10


def test_damaged_pixels_of_the_test_part_are_decoded_again_or_refused_and_never_scored(confirmed: RunOptions) -> None:
    record, part = record_of(confirmed), fix_test_part(confirmed.data_spec)
    whole = images_of(open_test_set(record, part))
    file = part.cached.folder / "images.npy"

    def damage() -> None:
        file.write_bytes(file.read_bytes()[:-1] + b"x")

    damage()
    again = open_test_set(record, part)
    assert images_of(again) == whole
    assert "the cached test images of" in again.repairs[0]
    damage()
    with (
        other_content(Path(confirmed.dataset) / "test" / "ant" / "001.png"),
        pytest.raises(DataError, match=r"are damaged, and its files have changed since .* put the old ones back"),
    ):
        open_test_set(record, part)
    damage()
    assert judge(record, load_summary(confirmed), studies=confirmed.studies).repairs == again.repairs


def test_damaged_development_pixels_are_decoded_again_and_every_command_says_so(
    confirmed: RunOptions, tmp_path: Path
) -> None:
    record, development = record_of(confirmed), fix_parts(confirmed.data_spec).development
    whole = images_of(development)
    said = f"the cached development images of {confirmed.dataset} were damaged or missing, and have been decoded again"
    file = development.folder / "images.npy"

    def damage() -> None:
        file.write_bytes(file.read_bytes()[:-1] + b"x")

    damage()
    (first, *_) = run_events(confirmed)
    assert isinstance(first, DataReady)
    assert said in first.notes
    damage()
    started, *_ = train_trial_events(record, 0, epochs=1, studies=confirmed.studies, output=tmp_path / "longer.pt")
    assert isinstance(started, TrainingStarted)
    assert started.notes == (said,)
    assert said in training_line(started, epochs=1).splitlines()
    delivered = load_summary(confirmed).delivered
    assert delivered is not None
    damage()
    assert said in evaluate(load_classifier(delivered), confirmed.data_spec, part="train").notes
    damage()
    assert export(record, studies=confirmed.studies, output=tmp_path / "best.pt").notes == (said,)
    assert images_of(fix_parts(confirmed.data_spec).development) == whole


def test_test_images_that_are_training_images_too_are_reported_with_the_verdict(
    confirmed: RunOptions, tmp_path: Path
) -> None:
    def notes(options: RunOptions) -> list[str]:
        found = load_summary(options).confirmed
        assert found is not None
        return [note for note in found.notes if "test images" in note]

    assert notes(confirmed) == []
    root = make_classes(tmp_path / "pets" / "train", 20).parent
    make_classes(root / "test", 5, first=100)
    for number in range(3):  # another file of the same pixels
        Image.open(root / "train" / "ant" / f"{number:03}.png").save(root / "test" / "ant" / f"{number}-again.bmp")
    options = options_in(tmp_path, confirm="in time", allow=("duplicates",))
    run(options)
    assert notes(options) == [
        "3 of the 13 test images are also among the training and validation images, pixel for pixel, so the test "
        "accuracies are optimistic"
    ]
    found = load_summary(options).confirmed
    assert found is not None
    assert found.num_shared_test_images == 3
    assert " on 13 test images, of which 3 are also training or validation images, mean of " in verdict_lines(found)[0]
    assert not any("sealed" in words for words in (*verdict_lines(found), verdict_in_words(found)))
    write_report(record_of(options), studies=options.studies, output=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "on 13 test images, of which 3 are also training or validation images.</h1>" in page
    assert not any(words in page for words in ("sealed", "no part of the search has seen"))


def test_evaluate_says_when_a_set_is_not_the_one_that_the_checkpoint_comes_from(confirmed: RunOptions) -> None:
    delivered = load_summary(confirmed).delivered
    assert delivered is not None
    classifier, spec = load_classifier(delivered), confirmed.data_spec
    root = Path(spec.dataset)

    def notes(part: Any) -> list[str]:
        evaluation = evaluate(classifier, spec, part=part)
        assert json.loads(json.dumps(evaluation.to_json()))["notes"] == list(evaluation.notes)
        return [note for note in evaluation.notes if "not those" in note]

    assert notes("test") == notes("validation") == notes("train") == []
    scored_on = f"the test images of {root} are not those that the checkpoint was scored on"
    trained_on = f"the training and validation images of {root} are not those that the checkpoint comes from"
    seen = "so its {} part may contain images that the network was trained on"
    with other_content(root / "test" / "ant" / "000.png"):
        assert notes("test") == [scored_on]
        assert notes("validation") == []
    with other_content(root / "train" / "ant" / "000.png"):
        assert notes("test") == [trained_on]
        assert notes("validation") == [f"{trained_on}, {seen.format('validation')}"]
        with other_content(root / "test" / "ant" / "000.png"):
            assert notes("test") == [f"{trained_on}, {seen.format('test')}", scored_on]
