import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tuner.deliver.confirm import Confirmed
from tuner.deliver.confirm_plan import ConfirmPlan
from tuner.errors import DeviceError, OptionError, StudyError, TunerError
from tuner.options import RunOptions
from tuner.pipeline import confirm_events, load_summary, run, run_events
from tuner.search.events import DataReady, SearchEnded, TrialEnded
from tuner.search.executors import Executor, local_executor
from tuner.search.locks import hold
from tuner.search.study_location import check_study_name, default_study_name, existing_storage, storage_url
from tuner.search.study_lookup import list_studies, load_study
from tuner.search.tasks import TrialTask
from tuner.search.trial_runner import Trainer
from tuner.temporary import KEPT_SECONDS, temporary_beside
from tuner.training.checkpoint import load_checkpoint
from tuner.training.engine import Engine
from tuner.training.engine_choices import Runners
from tuner.training.engine_measurement import load_or_measure
from tuner.training.measurement_cache import machine_cache_dir

TINY = """
[network]
num_blocks = { low = 1, high = 2 }
[block]
out_channels = { low = 4, high = 16, step = 4 }
pooling = ["none", "max"]
dropout = { low = 0.0, high = 0.2 }
[recipe]
learning_rate = { low = 1e-3, high = 1e-2, log = true }
batch_size = [64, 128]
"""


@pytest.fixture(scope="module", autouse=True)
def _one_core() -> Iterator[None]:
    """As on a machine of one core: with more threads than free cores, small networks train many times slower."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tuner.search.study_runners.num_cores", lambda: 1)
        yield


def options_in(folder: Path, **changes: Any) -> RunOptions:
    """A short study of digits in a folder of its own."""
    folder.mkdir(exist_ok=True)
    space = folder / "tiny.toml"
    space.write_text(TINY, encoding="utf-8")
    defaults = {"trials": 6, "epochs": 2, "workers": 1, "device": "cpu", "confirm": "no"}
    return RunOptions(space=str(space), studies=folder / "studies", **{**defaults, **changes})


def outcome(options: RunOptions) -> list[tuple[Any, ...]]:
    record = load_study(existing_storage(options.studies), options.study_name)
    return [(trial.number, trial.outcome, trial.params, trial.curve) for trial in record.trials()]


def weights(options: RunOptions) -> dict[str, torch.Tensor]:
    summary = load_summary(options)
    assert summary.checkpoint is not None
    return dict(load_checkpoint(summary.checkpoint).weights)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunOptions:
    options = options_in(tmp_path_factory.mktemp("finished"))
    run(options)
    return options


def test_a_run_ends_with_the_trials_asked_for_and_the_winners_checkpoint(finished: RunOptions) -> None:
    summary = load_summary(finished)
    assert (summary.study, summary.dataset, summary.space) == ("digits-tiny", "digits", "tiny")
    assert summary.num_counted == 6
    assert summary.best is not None
    assert summary.checkpoint is not None
    checkpoint = load_checkpoint(summary.checkpoint)
    assert checkpoint.candidate == summary.best.candidate
    assert checkpoint.scores["validation_accuracy"] == summary.best.validation_accuracy
    assert checkpoint.origin["trial"] == summary.best.number
    assert checkpoint.scores["validation_accuracy"] > 0.5  # chance is 0.1


class RecordingExecutor:
    """Another executor than those of the tuner, which notes the trials that it is given."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self.tasks: list[TrialTask] = []
        self.is_ended = False

    def start(self, runner: int, task: TrialTask) -> None:
        self.tasks.append(task)
        self._executor.start(runner, task)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)


def test_a_run_and_a_confirmation_train_with_the_executor_that_is_given(tmp_path: Path) -> None:
    made: list[RecordingExecutor] = []

    @contextmanager
    def recording(trainers: Sequence[Trainer], *, apart: bool = False) -> Iterator[RecordingExecutor]:
        assert not apart
        with local_executor(trainers) as executor:
            made.append(RecordingExecutor(executor))
            yield made[-1]
            made[-1].is_ended = True

    options = options_in(tmp_path, trials=2, epochs=1)
    ended = [event.number for event in run_events(options, make_executor=recording) if isinstance(event, TrialEnded)]
    assert [task.number for task in made[0].tasks] == ended
    plan = ConfirmPlan(num_candidates=1, num_seeds=1)
    *_, last = confirm_events(options.studies, None, plan=plan, workers=1, make_executor=recording)
    assert isinstance(last, Confirmed)
    assert len(made) == 2
    assert {task.number for task in made[1].tasks} <= set(ended)
    assert all(executor.tasks and executor.is_ended for executor in made)


def test_the_same_run_in_another_folder_is_the_same_bit_for_bit(finished: RunOptions, tmp_path: Path) -> None:
    again = options_in(tmp_path)
    run(again)
    assert outcome(again) == outcome(finished)
    one, other = weights(finished), weights(again)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_interrupted_between_two_trials_ends_as_the_one_that_was_not(
    finished: RunOptions, tmp_path: Path
) -> None:
    options = options_in(tmp_path)
    events = run_events(options)
    for event in events:
        if isinstance(event, TrialEnded) and event.number == 2:
            break
    events.close()
    assert len(outcome(options)) == 3
    run(options)
    assert outcome(options) == outcome(finished)


def test_another_seed_gives_another_study(finished: RunOptions, tmp_path: Path) -> None:
    other = options_in(tmp_path, seed=1, trials=2)
    run(other)
    assert outcome(other)[1][2] != outcome(finished)[1][2]  # trial 0 is the baseline


def test_a_run_begins_with_the_data_and_ends_with_what_it_came_to(tmp_path: Path) -> None:
    options = options_in(tmp_path, trials=1)
    events = list(run_events(options))
    assert isinstance(events[0], DataReady)
    assert (events[0].shape, events[0].num_classes, events[0].device) == ((1, 8, 8), 10, "cpu")
    assert (events[0].num_train, events[0].num_validation) == (1149, 288)  # of 1,437: a fifth, rounded up
    assert events[-1] == SearchEnded(1, "")


def test_the_same_command_again_says_that_the_study_is_complete(finished: RunOptions) -> None:
    before = outcome(finished)
    events = list(run_events(finished))
    assert events[-1] == SearchEnded(6, "")
    assert not [event for event in events if isinstance(event, TrialEnded)]
    assert outcome(finished) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "seed was 0, not 1"),
        ({"epochs": 3}, "epochs was 2, not 3"),
        ({"space": "article"}, 'space was "tiny", not "article"'),
        ({"image_size": (9, 9)}, "--image-size was unset, not 9x9"),
    ],
)
def test_a_study_gone_on_with_by_other_options_is_refused_with_what_differs(
    finished: RunOptions, changes: dict[str, Any], said: str
) -> None:
    changed = RunOptions(**{**vars(finished), "study": "digits-tiny", **changes})
    before = outcome(finished)
    with pytest.raises(StudyError, match=f"started with other settings: .*{said}"):
        run(changed)
    assert outcome(finished) == before


def test_a_study_whose_space_file_was_changed_is_refused(tmp_path: Path) -> None:
    options = options_in(tmp_path, trials=1)
    run(options)
    Path(options.space).write_text(TINY.replace("high = 16", "high = 20"), encoding="utf-8")
    with pytest.raises(StudyError, match=r"other settings: block.out_channels was .*16.*, not .*20"):
        run(options)


def test_a_study_resumes_with_the_space_that_it_stores_if_a_bundled_one_has_changed_since(
    finished: RunOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a later version of tuner does, which bundles another version of a space."""
    for module in ("tuner.space.toml_file", "tuner.pipeline"):
        monkeypatch.setattr(f"{module}.bundled_spaces", lambda: {"tiny": tmp_path / "tiny.toml"})
    options = replace(options_in(tmp_path, trials=3), space="tiny")
    run(options)
    stored = load_study(existing_storage(options.studies)).settings
    Path(tmp_path / "tiny.toml").write_text(TINY.replace("high = 16", "high = 20"), encoding="utf-8")
    by_name = replace(options, trials=6, space=None, study="digits-tiny")
    for resumed in (by_name, replace(options, trials=6)):
        ready, *_ = run_events(resumed)
        assert isinstance(ready, DataReady)
        (note,) = (note for note in ready.notes if "bundled space" in note)
        assert note.startswith("the bundled space tiny has changed since the study began (block.out_channels was ")
    assert load_study(existing_storage(options.studies)).settings == stored
    assert outcome(options) == outcome(finished)


def test_a_study_that_runs_is_refused_to_another_run(tmp_path: Path) -> None:
    options = options_in(tmp_path)
    with (
        hold(options.studies / "digits-tiny", "digits-tiny"),
        pytest.raises(StudyError, match="'digits-tiny' is being run by another process"),
    ):
        run(options)


def test_a_study_that_runs_is_refused_to_another_run_that_gives_another_folder(tmp_path: Path) -> None:
    options = options_in(tmp_path)
    events = run_events(options)
    assert isinstance(next(events), DataReady)
    other = replace(options, studies=tmp_path / "other", storage=storage_url(options.studies))
    with pytest.raises(StudyError, match="'digits-tiny' is being run by another process"):
        run(other)
    events.close()
    assert not (tmp_path / "other" / "digits-tiny").exists()


def test_a_study_of_the_same_name_in_another_storage_is_refused_the_folder_of_the_first(
    finished: RunOptions, tmp_path: Path
) -> None:
    before = weights(finished)
    other = replace(finished, seed=1, storage=storage_url(tmp_path))
    with pytest.raises(StudyError, match=r"digits-tiny: the folder of another study 'digits-tiny'.* --study"):
        run(other)
    assert list_studies(existing_storage(tmp_path)) == []
    assert all(torch.equal(before[name], weight) for name, weight in weights(finished).items())


def test_a_study_whose_database_was_deleted_is_not_started_over_its_checkpoints(
    finished: RunOptions, tmp_path: Path
) -> None:
    studies = shutil.copytree(finished.studies, tmp_path / "studies")
    for file in studies.glob("tuner.db*"):
        file.unlink()
    with pytest.raises(StudyError, match=r"the folder of another study 'digits-tiny'.* move that folder away"):
        run(replace(finished, studies=studies))


def test_a_study_gone_on_with_over_the_checkpoints_of_another_one_is_refused(
    finished: RunOptions, tmp_path: Path
) -> None:
    other = options_in(tmp_path, seed=1, trials=1)
    run(other)
    with pytest.raises(StudyError, match="the folder of another study 'digits-tiny'"):
        run(replace(other, seed=finished.seed, storage=storage_url(finished.studies), trials=7))
    assert len(outcome(finished)) == 6


@pytest.mark.parametrize("changes", [{"study": "DIGITS-tiny"}, {"study": "digits-tiny", "seed": 1}])
def test_a_run_that_is_refused_leaves_no_folder(finished: RunOptions, tmp_path: Path, changes: dict[str, Any]) -> None:
    refused = replace(finished, studies=tmp_path / "other", storage=storage_url(finished.studies), **changes)
    with pytest.raises(StudyError):
        run(refused)
    assert {path.name for path in (tmp_path / "other").iterdir()} == {".cache"}


def test_what_a_killed_process_left_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    options = options_in(tmp_path, trials=1)
    folder = options.studies / "digits-tiny"
    with closing(run_events(options)) as begun:  # so that the folder is the study's
        next(begun)
    for name in ("my.tmp", "notes.txt", ".hidden", ".note.tmp", ".trial-00007.pt.1.tmp"):
        (folder / name).write_text("half")
    long_ago = time.time() - 2 * KEPT_SECONDS
    for name in (".trial-00000.pt.4711.tmp", ".winner.pt.12.tmp"):  # as older versions called them
        (folder / name).write_text("half")
        os.utime(folder / name, (long_ago, long_ago))
    killed_export = folder / ".best.x8_f2k1q.tmp"
    killed_export.mkdir()
    (killed_export / "best.pt").write_text("half")
    for path in (killed_export / "best.pt", killed_export):
        os.utime(path, (long_ago, long_ago))
    living_export = temporary_beside(folder / "best.pt")
    living_export.mkdir()
    events = run_events(options)
    assert isinstance(next(events), DataReady)
    events.close()
    left = {"my.tmp", "notes.txt", ".hidden", ".note.tmp", ".trial-00007.pt.1.tmp", living_export.name}
    assert {path.name for path in folder.iterdir()} - {".lock", ".study"} == left


def test_of_a_study_that_runs_nothing_is_removed_by_another_run(tmp_path: Path) -> None:
    options = options_in(tmp_path)
    folder = options.studies / "digits-tiny"
    with hold(folder, "digits-tiny"):
        (folder / ".trial-00000.pt.4711.tmp").write_text("half")
        with pytest.raises(StudyError, match="is being run by another process"):
            run(options)
        assert (folder / ".trial-00000.pt.4711.tmp").exists()


@pytest.mark.parametrize("where", ["studies", "studies/digits-tiny"])
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path, where: str) -> None:
    options = options_in(tmp_path)
    path = tmp_path / where
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")
    with pytest.raises(TunerError, match=re.escape(str(path))) as caught:
        run(options)
    assert "\n" not in str(caught.value)


def engine_of(options: RunOptions) -> Engine:
    """The engine that a study of these options gets; nothing is trained."""
    events = run_events(options)
    assert isinstance(next(events), DataReady)
    events.close()
    return load_study(existing_storage(options.studies), options.study_name).engine


def test_a_study_is_not_gone_on_with_on_another_kind_of_device(tmp_path: Path) -> None:
    options = options_in(tmp_path)
    engine = engine_of(options)
    record = load_study(existing_storage(options.studies))
    record.storage.set_study_user_attr(record.study_id, "tuner:engine", {**engine.to_json(), "device": "cuda"})
    with pytest.raises(DeviceError, match="was started on cuda, and this run would train on cpu") as caught:
        next(run_events(options))
    assert "\n" not in str(caught.value)


def test_a_forced_engine_is_what_the_study_gets_and_keeps(tmp_path: Path) -> None:
    measured = engine_of(options_in(tmp_path / "measured"))
    other = "foreach" if measured.optimizer == "fused" else "fused"
    options = options_in(tmp_path / "forced", engine=f"optimizer={other}")
    assert engine_of(options) == replace(measured, optimizer=other)
    assert engine_of(replace(options, engine="auto")).optimizer == other
    record = load_study(existing_storage(options.studies))
    source = record.data_source
    refused = replace(options, engine=f"optimizer={measured.optimizer}", data_dir=tmp_path / "elsewhere")
    with pytest.raises(StudyError, match=f"another engine than --engine optimizer={measured.optimizer}, and") as caught:
        next(run_events(refused))
    assert record.data_source == source
    assert "\n" not in str(caught.value)


def test_an_engine_that_does_not_exist_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'speed' is no choice on cpu; there are "):
        next(run_events(options_in(tmp_path, engine="speed=9", dataset="no/such/folder")))


def test_a_run_says_which_ways_it_takes_and_which_it_leaves_out(tmp_path: Path) -> None:
    events = run_events(options_in(tmp_path))
    ready = next(events)
    events.close()
    assert isinstance(ready, DataReady)
    measured = load_or_measure(torch.device("cpu"), (1, 8, 8), num_threads=1, cache_dir=machine_cache_dir())
    (said,) = (note for note in ready.notes if note.startswith("engine: "))
    for verdict in measured.verdicts:
        assert (verdict.name in said.partition("; not used: ")[0]) == verdict.is_taken
        assert verdict.is_taken or f"{verdict.name} ({verdict.problem})" in said


def test_a_run_that_cannot_keep_its_measurement_goes_on_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUNER_CACHE_DIR", str(tmp_path / "file"))
    events = run_events(options_in(tmp_path, trials=1))
    ready = next(events)
    events.close()
    assert isinstance(ready, DataReady)
    assert [note for note in ready.notes if "TUNER_CACHE_DIR" in note] == [
        f"{tmp_path / 'file'}: cannot be written: File exists: this machine will be measured again next time; "
        "set TUNER_CACHE_DIR to a folder that can be written"
    ]


def test_the_engine_does_not_depend_on_the_folder_of_studies(finished: RunOptions, tmp_path: Path) -> None:
    engines = {engine_of(options_in(tmp_path / str(number))) for number in range(3)}
    assert engines == {load_study(existing_storage(finished.studies), "digits-tiny").engine}
    assert not list(tmp_path.rglob("engine-*.json"))  # one measurement a machine


@pytest.mark.parametrize(("workers", "num_threads"), [(1, 6), (2, 4), (3, 2), (16, 1)])
def test_one_runner_has_the_measured_threads_and_several_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, num_threads: int
) -> None:
    measured = load_or_measure(torch.device("cpu"), (1, 8, 8), num_threads=1, cache_dir=machine_cache_dir())
    larger = replace(measured, runners=Runners(count=1, num_threads=6, why="as on a larger machine"))
    cache_dir = shutil.copytree(machine_cache_dir(), tmp_path / "cache")
    for kept in cache_dir.iterdir():
        kept.write_text(json.dumps(larger.to_json()), encoding="utf-8")
    monkeypatch.setenv("TUNER_CACHE_DIR", str(cache_dir))
    monkeypatch.setattr("tuner.search.study_runners.num_cores", lambda: 8)
    assert engine_of(options_in(tmp_path, workers=workers)).num_threads == num_threads


def test_studies_that_are_not_there_are_refused_with_where_they_were_sought(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"no studies in .*nowhere: start one with `tuner run`"):
        existing_storage(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("dataset", "space", "name"),
    [
        ("digits", "cnn", "digits-cnn"),
        ("digits", "auto", "digits-auto"),
        ("fashion-mnist", "article", "fashion-mnist-article"),
        ("/data/My Pets", "cnn", "my-pets-cnn"),
        ("photos/", "spaces/Wide_Nets.toml", "photos-wide-nets"),
        (".", "cnn", "images-cnn"),
        ("..", "cnn", "images-cnn"),
        ("/data/犬と猫", "cnn", "images-cnn"),
        ("/data/__x__", "cnn", "x-cnn"),
    ],
)
def test_a_study_is_named_after_its_data_set_and_its_space(dataset: str, space: str, name: str) -> None:
    assert default_study_name(dataset, space) == name
    check_study_name(name)


@pytest.mark.parametrize("name", ["a", "A9", "my-study_2.0", "0", "x" * 100, "console", "null", "com"])
def test_a_name_that_can_be_a_folder_everywhere_is_taken(name: str) -> None:
    check_study_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 101,
        ".hidden",
        "-x",
        "_x",
        "a/b",
        "a\\b",
        "..",
        "a.",
        "a b",
        "ä",
        "a\n",
        "a:b",
        "a*",
        "~",
        "con",
        "NUL",
        "aux.x",
        "com1",
        "lpt9.txt",
        "Prn",
        "tuner.db",
        "tuner.db-journal",
        "Tuner.DB-wal",
    ],
)
def test_a_name_that_cannot_be_a_folder_everywhere_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(StudyError, match="--study") as caught:
        check_study_name(name)
    assert "\n" not in str(caught.value)
