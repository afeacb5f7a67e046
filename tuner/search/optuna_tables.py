"""Optuna's tables, and its ids of studies and trials: all private names of its storage that this package uses.

Optuna may change a private name in any release. Each one is therefore listed here with its reason and checked by its
own test, and the requirement in pyproject.toml allows only versions that these tests have checked.

optuna.storages._rdb.models: the classes of the tables. The public methods write a trial in about a hundred statements,
    which takes several times as long as a few statements on these tables.
optuna.study._frozen.FrozenStudy: the type of what the public `get_all_studies` returns.
FrozenStudy._study_id, FrozenTrial._trial_id: the ids that every public method of a storage takes. The public methods
    that look up these ids run a query for each study and each trial, although the objects already have them.
"""

from __future__ import annotations

from typing import Any, cast

from optuna.storages._rdb import models
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial
from sqlalchemy import Table

__all__ = [
    "INTERMEDIATE_VALUES",
    "STUDIES",
    "STUDY_SYSTEM_ATTRIBUTES",
    "STUDY_USER_ATTRIBUTES",
    "TRIALS",
    "TRIAL_PARAMS",
    "TRIAL_SYSTEM_ATTRIBUTES",
    "TRIAL_USER_ATTRIBUTES",
    "TRIAL_VALUES",
    "FrozenStudy",
    "stored_intermediate_value",
    "stored_value",
    "study_id_of",
    "trial_id_of",
]


def _table(model: Any) -> Table:
    return cast(Table, model.__table__)


STUDIES = _table(models.StudyModel)
STUDY_USER_ATTRIBUTES = _table(models.StudyUserAttributeModel)
STUDY_SYSTEM_ATTRIBUTES = _table(models.StudySystemAttributeModel)
TRIALS = _table(models.TrialModel)
TRIAL_PARAMS = _table(models.TrialParamModel)
TRIAL_USER_ATTRIBUTES = _table(models.TrialUserAttributeModel)
TRIAL_SYSTEM_ATTRIBUTES = _table(models.TrialSystemAttributeModel)
TRIAL_VALUES = _table(models.TrialValueModel)
INTERMEDIATE_VALUES = _table(models.TrialIntermediateValueModel)


def stored_value(value: float) -> dict[str, Any]:
    """Return the columns `value` and `value_type` of TRIAL_VALUES for a value, which may be infinite."""
    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    return {"value": stored, "value_type": kind}


def stored_intermediate_value(value: float) -> dict[str, Any]:
    """Return the columns of INTERMEDIATE_VALUES for a value, which may be NaN."""
    stored, kind = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr(value)
    return {"intermediate_value": stored, "intermediate_value_type": kind}


def study_id_of(study: FrozenStudy) -> int:
    """Id of a study in its storage; it grows with every study that is created there."""
    return study._study_id


def trial_id_of(trial: FrozenTrial) -> int:
    """Id of a trial in its storage; `trial.number` is its number in its study."""
    return trial._trial_id
