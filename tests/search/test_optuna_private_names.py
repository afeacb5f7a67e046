"""Each private name of Optuna that the package uses, by a test that fails where a new version has changed it."""

import ast
import inspect
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, create_trial
from packaging.requirements import Requirement
from private_names import MAY_USE_THEM, PACKAGE, private_names

from tuner.search import optuna_tables, optuna_tpe

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

COLUMNS = {
    "STUDIES": ("studies", {"study_id", "study_name"}),
    "STUDY_USER_ATTRIBUTES": ("study_user_attributes", {"study_id", "key", "value_json"}),
    "STUDY_SYSTEM_ATTRIBUTES": ("study_system_attributes", {"study_id", "key", "value_json"}),
    "TRIALS": ("trials", {"trial_id", "study_id", "number", "state", "datetime_start", "datetime_complete"}),
    "TRIAL_PARAMS": ("trial_params", {"trial_id", "param_name", "param_value", "distribution_json"}),
    "TRIAL_USER_ATTRIBUTES": ("trial_user_attributes", {"trial_id", "key", "value_json"}),
    "TRIAL_SYSTEM_ATTRIBUTES": ("trial_system_attributes", {"trial_id", "key", "value_json"}),
    "TRIAL_VALUES": ("trial_values", {"trial_id", "objective", "value", "value_type"}),
    "INTERMEDIATE_VALUES": (
        "trial_intermediate_values",
        {"trial_id", "step", "intermediate_value", "intermediate_value_type"},
    ),
}
"""Of each table of optuna.storages._rdb.models: its name and the columns that are written or read."""


@pytest.mark.parametrize("name", sorted(COLUMNS))
def test_models_has_the_tables_with_the_columns_that_are_written(name: str) -> None:
    table = getattr(optuna_tables, name)
    expected, columns = COLUMNS[name]
    assert table.name == expected, f"optuna.storages._rdb.models: the table {expected} has another name now"
    surrogate = {column.name for column in table.primary_key}
    missing, new = columns - set(table.c.keys()), set(table.c.keys()) - columns - surrogate
    assert not missing, f"optuna.storages._rdb.models: the table {expected} has no column {missing} any more"
    assert not new, f"optuna.storages._rdb.models: the table {expected} has new columns {new}, which nothing writes"


def test_models_stores_numbers_that_are_not_finite_by_their_kind() -> None:
    kinds = [optuna_tables.stored_value(value) for value in (0.5, float("inf"))]
    assert [(kind["value"], kind["value_type"].name) for kind in kinds] == [(0.5, "FINITE"), (None, "INF_POS")]
    kinds = [optuna_tables.stored_intermediate_value(value) for value in (0.5, float("nan"))]
    found = [(kind["intermediate_value"], kind["intermediate_value_type"].name) for kind in kinds]
    assert found == [(0.5, "FINITE"), (None, "NAN")]


def test_frozen_study_is_what_a_storage_lists_and_its_study_id_is_the_storages() -> None:
    storage = InMemoryStorage()
    for name in ("a", "b"):
        storage.create_new_study([StudyDirection.MAXIMIZE], name)
    studies = storage.get_all_studies()
    assert all(type(study) is optuna_tables.FrozenStudy for study in studies)
    found = {study.study_name: optuna_tables.study_id_of(study) for study in studies}
    assert found == {name: storage.get_study_id_from_name(name) for name in ("a", "b")}, "FrozenStudy._study_id"


def test_trial_id_is_the_id_that_the_storage_takes() -> None:
    storage = InMemoryStorage()
    study_ids = [storage.create_new_study([StudyDirection.MAXIMIZE], name) for name in ("a", "b")]
    created = [storage.create_new_trial(study_id) for study_id in study_ids]
    (trial,) = storage.get_all_trials(study_ids[1])
    assert (optuna_tables.trial_id_of(trial), trial.number) == (created[1], 0), "FrozenTrial._trial_id"


SPACE = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}


def study_of(num_trials: int, sampler: TPESampler) -> optuna.Study:
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for number in range(num_trials):
        params = {"x": number / num_trials, "y": 0.5}
        study.add_trial(create_trial(value=number, params=params, distributions=SPACE))
    return study


def test_parzen_estimator_cls_makes_the_density_and_must_derive_from_parzen_estimator() -> None:
    from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator

    sampler = TPESampler(multivariate=True, seed=0)
    assert sampler._parzen_estimator_cls is _ParzenEstimator, "TPESampler._parzen_estimator_cls"
    expected = ["self", "observations", "search_space", "parameters", "predetermined_weights"]
    assert [*inspect.signature(_ParzenEstimator.__init__).parameters] == expected
    assert {"sample", "log_pdf"} == {name for name in vars(_ParzenEstimator) if not name.startswith("_")}
    options = sampler._parzen_estimator_parameters
    assert {"weights", "prior_weight", "consider_magic_clip", "consider_endpoints"} <= set(options._fields)
    made = []

    class Density(_ParzenEstimator):
        def __init__(self, *arguments: object) -> None:
            made.append(arguments)
            super().__init__(*arguments)

    sampler._parzen_estimator_cls = Density
    study_of(12, sampler).ask(SPACE)
    assert len(made) == 2, "TPESampler must make the density of the good and of the other trials with its own class"


def test_get_internal_repr_gives_a_column_of_each_parameter() -> None:
    sampler = TPESampler(multivariate=True, seed=0)
    study = study_of(4, sampler)
    theirs = sampler._get_internal_repr(study.trials, SPACE, study)
    ours = optuna_tpe.JointTPESampler(optuna_tpe.JointSpace(SPACE), seed=0)._get_internal_repr(
        study.trials, SPACE, study
    )
    assert theirs.keys() == ours.keys() == SPACE.keys(), "TPESampler._get_internal_repr"
    assert all(np.array_equal(theirs[name], ours[name]) for name in SPACE)


@pytest.mark.parametrize("name", ["_get_internal_repr", "_compute_acquisition_func", "_sample_relative"])
def test_a_step_of_the_sampler_that_is_replaced_is_called_once_there_are_enough_trials(name: str) -> None:
    calls = []

    def noted(*arguments: object) -> object:
        calls.append(arguments)
        return getattr(TPESampler, name)(*arguments)

    sampler_class = type("Noted", (TPESampler,), {name: noted})
    study_of(12, sampler_class(multivariate=True, seed=0)).ask(SPACE)
    assert calls, f"TPESampler.{name} is no longer called when a trial is sampled"
    ours = inspect.signature(getattr(optuna_tpe.JointTPESampler, name)).parameters
    assert [*ours] == [*inspect.signature(getattr(TPESampler, name)).parameters], f"TPESampler.{name}: its arguments"


def test_compute_acquisition_func_gives_one_number_for_each_candidate() -> None:
    sampler = TPESampler(multivariate=True, seed=0)

    class Density:
        def __init__(self, level: float) -> None:
            self.level = level

        def log_pdf(self, samples: dict[str, np.ndarray]) -> np.ndarray:
            return samples["x"] * self.level

    promising = sampler._compute_acquisition_func({"x": np.arange(3.0)}, Density(3.0), Density(1.0))  # type: ignore[arg-type]
    assert promising.tolist() == [0.0, 2.0, 4.0], "TPESampler._compute_acquisition_func: the most promising is highest"


def test_sample_relative_is_what_the_public_method_calls_and_stores_nothing() -> None:
    study = study_of(12, TPESampler(multivariate=True, seed=0))
    public, private = (TPESampler(multivariate=True, seed=0) for _ in range(2))
    trial = study.ask()._trial_id
    drawn = private._sample_relative(study, study._storage.get_trial(trial), SPACE)
    assert not study._storage.get_trial(trial).system_attrs, "TPESampler._sample_relative stores its draws now"
    assert drawn == public.sample_relative(study, study._storage.get_trial(trial), SPACE), "TPESampler._sample_relative"
    assert drawn.keys() == SPACE.keys()


def test_get_trials_of_a_study_is_where_the_sampler_reads_its_trials() -> None:
    mirror = optuna_tpe.Mirror()
    for number in range(12):
        trial = create_trial(value=number, params={"x": number / 12, "y": 0.5}, distributions=SPACE)
        trial.number = number
        mirror.known[number] = trial
    sampled = TPESampler(multivariate=True, seed=0).sample_relative(mirror, running_trial_of(mirror), SPACE)
    assert sampled.keys() == SPACE.keys(), "Study._get_trials is no longer what TPESampler reads"
    ours, theirs = (inspect.signature(one._get_trials).parameters for one in (optuna_tpe.Mirror, optuna.Study))
    assert [*ours] == [*theirs], "Study._get_trials: its arguments"


def running_trial_of(study: optuna.Study) -> FrozenTrial:
    """A trial of the study's storage, to which the public `sample_relative` writes what was drawn."""
    return study._storage.get_trial(study._storage.create_new_trial(study._study_id))


def test_the_requirement_allows_only_versions_that_these_tests_have_seen() -> None:
    names = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    (optuna_itself,) = (one for one in map(Requirement, names) if one.name == "optuna")
    installed = metadata.version("optuna")
    major, minor = map(int, installed.split(".")[:2])
    assert installed in optuna_itself.specifier
    assert f"{major}.{minor + 1}.0" not in optuna_itself.specifier, "the next version may change any private name"


def test_every_private_name_has_its_reason_in_the_docstring_of_the_module_that_uses_it() -> None:
    for module in MAY_USE_THEM:
        tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
        reasons = ast.get_docstring(tree) or ""
        used = {name.rpartition(".")[2] for name in private_names(tree)}
        assert used
        assert not [name for name in used if name not in reasons], f"{module}: names without a reason"


OTHERS = sorted({*PACKAGE.rglob("*.py")} - {PACKAGE / name for name in MAY_USE_THEM})


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_uses_a_private_name_of_optuna(path: Path) -> None:
    found = sorted(private_names(ast.parse(path.read_text())))
    assert not found, f"{path.name}: {', '.join(found)}: only optuna_tables.py and optuna_tpe.py use private names"


def test_private_names_are_found_however_they_are_used() -> None:
    source = """
import optuna._callbacks
from optuna.samplers._tpe import sampler
from optuna.samplers import TPESampler, _base
def f(study, trial): return study._study_id, trial._suggest
class Mine(TPESampler):
    def _sample(self): return self._rng
    def _own(self): return self._cost
"""
    expected = {"optuna._callbacks", "optuna.samplers._tpe", "optuna.samplers._base"}
    expected |= {"_study_id", "_suggest", "_sample", "_rng"}
    assert private_names(ast.parse(source)) == expected
    assert private_names(ast.parse("def f(one): return one._ours\ndef _ours(): ...\nfrom tuner import _x")) == set()
