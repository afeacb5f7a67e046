import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState
from rehearsal import DIGITS, EPOCHS, SETTINGS, Rehearsal

from tests.strategies import make_space
from tuner.data.dataset import DataSpec
from tuner.errors import StudyError
from tuner.search.storage import open_storage
from tuner.search.study_lookup import list_studies, load_study, open_study
from tuner.space.sampling import candidate_from, first_params
from tuner.training.engine import Engine

ENGINE = Engine("cpu", num_threads=3)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{(tmp_path / 'tuner.db').as_posix()}"


def test_a_study_is_opened_again_with_its_settings_and_its_own_engine(url: str) -> None:
    open_study(open_storage(url), "a", SETTINGS, engine=ENGINE)
    again = open_study(open_storage(url), "a", SETTINGS, engine=Engine("cpu", num_threads=7))
    assert again.settings == SETTINGS
    assert again.engine == ENGINE
    assert len(open_storage(url).get_all_studies()) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "seed was 0, not 1"),
        ({"dataset": "mnist", "dataset_digest": "e"}, 'dataset was "digits", not "mnist"'),
        ({"dataset_digest": "e"}, "the images have changed since"),
        ({"space_name": "cnn", "space": {"block": 1}}, 'space was "tiny", not "cnn"'),
        ({"epochs": 7, "seed": 2}, "seed was 0, not 2; epochs was 6, not 7"),
        ({"space": {"block": 1}}, "block was unset, not 1"),
        (
            {
                "space": {
                    "block": {"kernel_size": {"choices": [3, 5], "log": False, "shared": True}, "stride": {"low": 1}}
                }
            },
            'block.kernel_size was unset, not {"choices": [3, 5], "shared": true}; '
            'block.stride was unset, not {"low": 1}',
        ),
    ],
)
def test_a_study_of_other_settings_is_refused_with_what_differs(url: str, changes: dict[str, Any], said: str) -> None:
    open_study(open_storage(url), "a", SETTINGS, engine=ENGINE)
    with pytest.raises(StudyError) as caught:
        open_study(open_storage(url), "a", replace(SETTINGS, **changes), engine=ENGINE)
    assert f"study 'a' was started with other settings: {said}." in str(caught.value)
    assert "\n" not in str(caught.value)
    assert open_study(open_storage(url), "a", SETTINGS, engine=ENGINE).settings == SETTINGS


@pytest.mark.parametrize("name", ["pets", "PETS", "petS"])
def test_a_study_whose_name_differs_in_case_alone_is_refused(url: str, name: str) -> None:
    open_study(open_storage(url), "Pets", SETTINGS, engine=ENGINE)
    with pytest.raises(StudyError, match=f"study '{name}' would share the folder of 'Pets' .* --study") as caught:
        open_study(open_storage(url), name, SETTINGS, engine=ENGINE)
    assert "\n" not in str(caught.value)
    assert [record.name for record in list_studies(open_storage(url))] == ["Pets"]
    assert open_study(open_storage(url), "Pets", SETTINGS, engine=ENGINE).settings == SETTINGS


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (("pets", "data", None), ("pets", "data", (9, 12)), "--image-size was unset, not 9x12"),
        (("pets", "data", (8, 8)), ("pets", "data", None), "--image-size was 8x8, not unset"),
        (("pets", "data", None), ("mine/pets", "data", None), "the images of mine/pets are not those of pets"),
        (("pets", "data", None), ("pets", "other", None), "the images of pets have changed since"),
        (("svhn", "data", None), ("svhn", "other", None), f"--data-dir was {Path('data').resolve()}, not"),
    ],
)
def test_other_images_under_the_same_name_are_told_by_what_was_given(
    url: str, before: Any, now: Any, said: str
) -> None:
    old, new = (
        DataSpec(dataset, Path(data_dir), Path("cache"), image_size=image_size)
        for dataset, data_dir, image_size in (before, now)
    )
    open_study(open_storage(url), "a", SETTINGS, engine=ENGINE).save_data_spec(old)
    with pytest.raises(StudyError, match=re.escape(said)) as caught:
        open_study(open_storage(url), "a", replace(SETTINGS, dataset_digest="e"), engine=ENGINE, data=new)
    assert "digest" not in str(caught.value)


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (None, (9, 12), r"--image-size was unset, not 9x12\."),
        ((8, 8), None, r"--image-size was 8x8, not unset\."),
        (None, None, r"--image-size was 8x8, not 9x12\."),
    ],
)
def test_the_same_images_at_another_size_are_refused_by_the_option(url: str, before: Any, now: Any, said: str) -> None:
    settings, spec = replace(SETTINGS, image_size=(8, 8)), DataSpec("pets", Path("data"), Path("cache"))
    record = open_study(open_storage(url), "a", settings, engine=ENGINE)
    record.save_data_spec(replace(spec, image_size=before))
    same = replace(spec, image_size=(8, 8))  # what was the common size of all images is given now
    assert open_study(open_storage(url), "a", settings, engine=ENGINE, data=same).name == "a"
    changed, spec = replace(settings, image_size=(9, 12)), replace(spec, image_size=now)
    with pytest.raises(StudyError, match=f"with other settings: {said}"):
        open_study(open_storage(url), "a", changed, engine=ENGINE, data=spec)


def test_the_test_part_of_a_study_is_stored_as_its_digest_and_its_number_of_images(url: str) -> None:
    record = open_study(open_storage(url), "a", SETTINGS, engine=ENGINE)
    assert record.sealed is None
    record.save_sealed("0123", 12)
    assert load_study(open_storage(url), "a").sealed == {"digest": "0123", "num_images": 12}


def test_changed_images_are_refused_in_the_same_words_with_and_without_a_stored_test_part(url: str) -> None:
    spec = DataSpec("pets", Path("data"), Path("cache"))
    record = open_study(open_storage(url), "a", SETTINGS, engine=ENGINE)
    record.save_data_spec(spec)
    for _ in range(2):
        with pytest.raises(StudyError, match=r"the images of pets have changed since\. Give"):
            open_study(open_storage(url), "a", replace(SETTINGS, dataset_digest="e"), engine=ENGINE, data=spec)
        record.save_sealed("0123", 12)


def test_a_study_that_was_interrupted_while_it_was_made_is_made_whole(url: str) -> None:
    open_storage(url).create_new_study([StudyDirection.MAXIMIZE], "a")
    assert list_studies(open_storage(url)) == []
    made = open_study(open_storage(url), "a", SETTINGS, engine=ENGINE)
    assert (made.settings, made.engine) == (SETTINGS, ENGINE)
    assert [record.name for record in list_studies(open_storage(url))] == ["a"]


def test_a_study_of_another_program_is_left_alone(url: str) -> None:
    foreign = optuna.create_study(study_name="a", storage=url)
    foreign.tell(foreign.ask(), 0.5)
    with pytest.raises(StudyError, match="study 'a' of this storage was made by another program; give another --study"):
        open_study(open_storage(url), "a", SETTINGS, engine=ENGINE)
    assert len(foreign.trials) == 1


def test_a_change_deep_in_a_large_setting_is_told_in_one_short_line(url: str) -> None:
    large = {"space": {f"key{number}": number for number in range(100)}}
    open_study(open_storage(url), "a", replace(SETTINGS, **large), engine=ENGINE)
    large["space"]["key99"] = 0
    with pytest.raises(StudyError, match="key99 was 99, not 0") as caught:
        open_study(open_storage(url), "a", replace(SETTINGS, **large), engine=ENGINE)
    assert len(str(caught.value)) < 300
    with pytest.raises(StudyError, match="key2 was 2, not unset; and 97 more") as caught:
        open_study(open_storage(url), "a", replace(SETTINGS, space={}), engine=ENGINE)
    assert len(str(caught.value)) < 300


def test_the_latest_study_is_loaded_when_none_is_named_and_others_by_name(url: str) -> None:
    storage = open_storage(url)
    for name in ("b", "c", "a"):
        open_study(storage, name, SETTINGS, engine=ENGINE)
    optuna.create_study(study_name="foreign", storage=url)
    assert load_study(open_storage(url)).name == "a"
    assert load_study(open_storage(url), "c").name == "c"
    assert [record.name for record in list_studies(open_storage(url))] == ["a", "c", "b"]


def test_a_study_that_does_not_exist_is_refused_with_those_that_do(url: str) -> None:
    with pytest.raises(StudyError, match="there is no study yet"):
        load_study(open_storage(url))
    open_study(open_storage(url), "a", SETTINGS, engine=ENGINE)
    with pytest.raises(StudyError, match="no study 'b': there are a"):
        load_study(open_storage(url), "b")


def test_trials_that_other_programs_put_into_the_study_are_left_out(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path)
    study.run(2)
    foreign = optuna.load_study(study_name=study.name, storage=study.url)
    foreign.tell(foreign.ask(), 0.99)
    assert [trial.number for trial in study.record().trials()] == [0, 1]


def test_a_first_configuration_is_the_same_candidate_when_it_is_read_from_the_database(tmp_path: Path) -> None:
    space = make_space(head={"dropout": {"low": 0.0, "high": 0.5}}, first=[{"block": [{}, {}], "head": {"dropout": 0}}])
    study = Rehearsal(tmp_path, space=space)
    study.run(1)
    (trial,) = study.record().trials()
    written, read = (
        candidate_from(params, space, DIGITS, epochs=EPOCHS) for params in (*first_params(space), trial.params)
    )
    assert repr(written) == repr(read) == repr(trial.candidate)
    assert written.fingerprint == read.fingerprint == trial.candidate.fingerprint


def test_a_trial_is_written_whole_then_grows_then_ends(tmp_path: Path) -> None:
    study = Rehearsal(tmp_path)
    study.run(1)
    record = study.record()
    (first,) = record.trials()
    loaded = optuna.load_study(study_name=study.name, storage=study.url)
    number = record.begin(
        first.candidate, first.params, loaded.trials[0].distributions, {"num_parameters": 5, "flops": 7}
    )
    assert number == 1
    begun = record.trials()[1]
    assert (begun.state, begun.outcome, begun.num_parameters, begun.flops) == (TrialState.RUNNING, None, 5, 7)
    assert (begun.candidate, begun.params) == (first.candidate, first.params)
    assert (begun.best_epoch, begun.validation_accuracy, begun.counts) == (None, None, False)
    for epoch, accuracy in ((1, 0.5), (2, 0.8), (3, 0.8), (4, 0.1)):
        record.report(1, epoch, accuracy)
    assert (record.trials()[1].best_epoch, record.trials()[1].validation_accuracy) == (2, 0.8)
    record.leave(1)
    assert record.trials()[1].state is TrialState.WAITING
    record.begin_again(1, runner=0)
    record.end(1, TrialState.COMPLETE, {"outcome": "complete", "reason": "because"}, validation_accuracy=0.8)
    done = record.trials()[1]
    assert (done.state, done.outcome, done.reason, done.counts) == (TrialState.COMPLETE, "complete", "because", True)
    assert done.started is not None
    assert done.ended is not None
    assert loaded.trials[1].value == 0.8
