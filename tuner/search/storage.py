"""Optuna's relational storage, which writes a trial in two transactions instead of a hundred statements.

For every parameter of a new trial, Optuna runs two queries to compare it with an earlier one, which takes several times
as long as one insert of all parameters. The tables, and what a reader sees, are the same as Optuna's. A test compares a
trial written here with one written by Optuna itself.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import Connection, Table, delete, event, func, insert, select, update
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from tuner.errors import StudyError
from tuner.search.optuna_tables import (
    INTERMEDIATE_VALUES,
    STUDIES,
    STUDY_SYSTEM_ATTRIBUTES,
    STUDY_USER_ATTRIBUTES,
    TRIAL_PARAMS,
    TRIAL_SYSTEM_ATTRIBUTES,
    TRIAL_USER_ATTRIBUTES,
    TRIAL_VALUES,
    TRIALS,
    stored_intermediate_value,
    stored_value,
)
from tuner.search.secrets import hide_secrets, shown_url
from tuner.search.sqlite import connect_to_read, is_read_only, sqlite_file

SQLITE_TIMEOUT = 60.0
"""Seconds to wait for another process that is writing to another study in the same file."""

GONE = "the study is no longer in its database: somebody has deleted it while it ran"


class Storage(RDBStorage):
    """An RDBStorage that creates a trial in one transaction and ends it in another."""

    def begin_trial(self, study_id: int, template: FrozenTrial) -> tuple[int, int]:
        """Write a new running trial in one transaction; return its id and its number."""
        row = {
            "study_id": study_id,
            "number": None,
            "state": TrialState.RUNNING,
            "datetime_start": _as_stored(template.datetime_start or datetime.now()),
        }
        params = [
            {
                "param_name": name,
                "param_value": distribution.to_internal_repr(template.params[name]),
                "distribution_json": _to_json(distribution),
            }
            for name, distribution in template.distributions.items()
        ]
        study = select(STUDIES.c.study_id).where(STUDIES.c.study_id == study_id)
        with self.engine.begin() as connection:
            if connection.execute(study.with_for_update()).one_or_none() is None:
                raise StudyError(GONE)
            key = connection.execute(insert(TRIALS), row).inserted_primary_key
            assert key is not None
            trial_id = cast(int, key[0])
            before = select(func.count()).where(TRIALS.c.study_id == study_id, TRIALS.c.trial_id < trial_id)
            number = cast(int, connection.scalar(before))
            connection.execute(update(TRIALS).where(TRIALS.c.trial_id == trial_id).values(number=number))
            owner = {"trial_id": trial_id}
            _insert(connection, TRIAL_PARAMS, [{**owner, **param} for param in params])
            _insert(connection, TRIAL_USER_ATTRIBUTES, _attribute_rows(owner, template.user_attrs))
            _insert(connection, TRIAL_SYSTEM_ATTRIBUTES, _attribute_rows(owner, template.system_attrs))
        return trial_id, number

    def report(self, trial_id: int, step: int, value: float) -> None:
        """Write an intermediate value of a running trial, as a new row or over the one from an earlier run."""
        row = {"trial_id": trial_id, "step": step, **stored_intermediate_value(value)}
        try:
            with self.engine.begin() as connection:
                connection.execute(insert(INTERMEDIATE_VALUES), row)
        except IntegrityError:
            self.set_trial_intermediate_value(trial_id, step, value)

    def end_trial(
        self,
        trial_id: int,
        state: TrialState,
        values: Sequence[float],
        attributes: Mapping[str, Any],
        *,
        system_attributes: Mapping[str, Any] | None = None,
        study_attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write new attributes, values and the final state of a trial in one transaction.

        study_attributes: system attributes of its study, in which optuna-dashboard stores what it shows of a trial. An
        existing one, such as a note that a user has written in the meantime, is not changed.
        """
        of_study, this = STUDY_SYSTEM_ATTRIBUTES, TRIALS.c.trial_id == trial_id
        stored = [{"objective": objective, **stored_value(value)} for objective, value in enumerate(values)]
        owner = {"trial_id": trial_id}
        with self.engine.begin() as connection:
            found = connection.execute(select(TRIALS.c.study_id, TRIALS.c.state).where(this).with_for_update())
            trial = found.one_or_none()
            if trial is None:
                raise StudyError(GONE)
            self.check_trial_is_updatable(trial_id, trial.state)
            _insert(connection, TRIAL_USER_ATTRIBUTES, _attribute_rows(owner, attributes))
            _insert(connection, TRIAL_SYSTEM_ATTRIBUTES, _attribute_rows(owner, system_attributes or {}))
            if study_attributes:
                known = of_study.c.study_id == trial.study_id, of_study.c.key.in_(study_attributes)
                there = set(connection.scalars(select(of_study.c.key).where(*known)))
                missing = {key: value for key, value in study_attributes.items() if key not in there}
                rows = _attribute_rows({"study_id": trial.study_id}, missing)
                _insert(connection, of_study, rows)
            _insert(connection, TRIAL_VALUES, [{**owner, **value} for value in stored])
            ended = {"state": state, "datetime_complete": _as_stored(datetime.now())}
            connection.execute(update(TRIALS).where(this).values(ended))

    def add_study_user_attribute(self, study_id: int, key: str, value: Any) -> Any:
        """Store a user attribute of a study unless it already exists; return its value afterwards."""
        row = {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
        try:
            with self.engine.begin() as connection:
                connection.execute(insert(STUDY_USER_ATTRIBUTES), row)
        except IntegrityError:
            return self.get_study_user_attrs(study_id)[key]
        return value

    def remove_study_system_attributes(self, study_id: int, keys: Sequence[str]) -> int:
        """Remove system attributes of a study, and return how many of them existed."""
        table = STUDY_SYSTEM_ATTRIBUTES
        with self.engine.begin() as connection:
            return connection.execute(delete(table).where(table.c.study_id == study_id, table.c.key.in_(keys))).rowcount

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Same as in Optuna, but raises GoneError for a study that was deleted."""
        with _refusing_gone():
            return super().get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Same as in Optuna, but raises GoneError for a study that was deleted."""
        with _refusing_gone():
            return super().get_study_system_attrs(study_id)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Same as in Optuna, but raises GoneError for a study that was deleted."""
        with _refusing_gone():
            return super().get_all_trials(study_id, deepcopy, states)

    def artifact_ids(self, study_id: int) -> list[str]:
        """Return the ids of all files that a study and its trials show as artifacts."""
        of_trials, of_study = TRIAL_SYSTEM_ATTRIBUTES.c, STUDY_SYSTEM_ATTRIBUTES.c
        in_study = select(TRIALS.c.trial_id).where(TRIALS.c.study_id == study_id)
        queries = [
            select(of_trials.key).where(of_trials.trial_id.in_(in_study), of_trials.key.startswith("artifacts:")),
            select(of_study.key).where(of_study.study_id == study_id, of_study.key.contains("artifacts:")),
        ]
        with self.engine.connect() as connection:
            return [key.rpartition(":")[2] for query in queries for key in connection.scalars(query)]


class GoneError(StudyError, KeyError):
    """A study is no longer in its database. Also the KeyError that Optuna raises in this case."""

    __str__ = Exception.__str__  # KeyError's own puts the sentence in quotation marks

    def __init__(self) -> None:
        super().__init__("the study was deleted by another process; `tuner list` shows which are left")


class ServerError(StudyError, optuna.exceptions.StorageInternalError):
    """An error of a database server, in one line. Optuna retries a trial after it, as after Optuna's own error."""


@contextmanager
def _refusing_gone() -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise GoneError from error


def open_storage(url: str, *, existing: bool = False) -> Storage:
    """Open the storage of any URL that Optuna accepts; SQLite is in write-ahead mode, so that readers never wait.

    existing: create nothing, and only read a SQLite file that is read-only. Raises StudyError if it cannot be opened;
    any later error of the database is a StudyError, too.
    """
    named = f"--storage {shown_url(url)}"
    try:
        file = sqlite_file(url)
        storage = Storage(url, engine_kwargs=_engine_arguments(file, existing=existing))
    except optuna.exceptions.OptunaError as error:
        raise StudyError(f"{named}: cannot be opened: {_first_line(error.__cause__ or error, url)}") from error
    except (LookupError, ValueError) as error:
        # What it says may be a piece of a password.
        raise StudyError(f"{named}: not the URL of a database, or its braces are not doubled") from error
    except (SQLAlchemyError, ImportError, RuntimeError) as error:
        raise StudyError(f"{named}: cannot be opened: {_first_line(error, url)}") from error
    event.listen(storage.engine, "handle_error", partial(_raise_study_error, url))
    if file is not None and not (existing and is_read_only(file)):
        event.listen(storage.engine, "connect", partial(_set_pragmas, url))
        storage.engine.dispose()
    return storage


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Suppress Optuna's log messages within the block."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _insert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(insert(table), rows)


def _attribute_rows(owner: Mapping[str, Any], attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{**owner, "key": key, "value_json": json.dumps(value)} for key, value in attributes.items()]


def _as_stored(local: datetime) -> datetime:
    """Convert a local time to the form that Optuna stores: UTC without a time zone."""
    return local.astimezone(UTC).replace(tzinfo=None)


def _to_json(distribution: BaseDistribution) -> str:
    choices = distribution.choices if isinstance(distribution, CategoricalDistribution) else ()
    return _to_json_once(distribution, tuple(map(type, choices)))


@cache
def _to_json_once(distribution: BaseDistribution, choice_types: tuple[type, ...]) -> str:
    """choice_types: distinguishes choices that are equal, such as 1 and 1.0."""
    return distribution_to_json(distribution)


def _engine_arguments(file: Path | None, *, existing: bool) -> dict[str, Any]:
    if file is None:
        return {}
    if existing and not file.is_file():
        raise StudyError(f"no studies in {file}: start one with `tuner run`, or give the file that they are in")
    if existing and is_read_only(file):
        return {"creator": partial(connect_to_read, file)}
    return {"connect_args": {"timeout": SQLITE_TIMEOUT}}


def _set_pragmas(url: str, connection: Any, _: object) -> None:
    try:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()
    except sqlite3.Error as error:  # of a listener, SQLAlchemy wraps none
        raise _fault(url, error, StudyError) from error


def _raise_study_error(url: str, context: ExceptionContext) -> None:
    """Raise StudyError with one line for any error of the database."""
    error = context.sqlalchemy_exception
    if not isinstance(error, DBAPIError):
        return  # an interrupt, or a mistake of ours, in the middle of a statement
    if isinstance(error, IntegrityError):
        return  # Optuna looks for these itself
    # SQLite has waited for SQLITE_TIMEOUT already; to begin again is for the deadlocks of servers.
    is_sqlite = context.dialect.name == "sqlite"
    raise _fault(url, error, StudyError if is_sqlite else ServerError) from error


def _fault(url: str, error: BaseException, kind: type[StudyError]) -> StudyError:
    words = f"--storage {shown_url(url)}: {_first_line(error, url)}"
    return kind(f"{words}; once that is fixed, the same command resumes from here")


def _first_line(error: BaseException, url: str) -> str:
    words = error.orig if isinstance(error, DBAPIError) else error
    return hide_secrets((str(words).strip() or type(error).__name__).splitlines()[0], url)
