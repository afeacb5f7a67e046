"""Commands on the studies that are there: list, show, dashboard."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tuner.cli.options import STUDIES, AsJson, Storage, Studies, StudyName, open_study, quiet_optuna


def list_(studies: Studies = STUDIES, storage: Storage = None, as_json: AsJson = False) -> None:
    """List the studies, the latest first; those that can be read, when one cannot."""
    from rich.console import Console

    from tuner.errors import StudyError
    from tuner.pipeline import existing_storage
    from tuner.search.record import list_studies
    from tuner.search.summary import summarise
    from tuner.ui.tables import studies_table

    quiet_optuna()
    summaries, unreadable = [], []
    for record in list_studies(existing_storage(studies, storage)):
        try:
            summaries.append(summarise(record, studies=studies))
        except StudyError as error:
            unreadable.append(error)
    if as_json:
        typer.echo(json.dumps([summary.to_json() for summary in summaries], indent=2))
    else:
        Console().print(studies_table(summaries))
    if unreadable:
        raise unreadable[0]


def show(study: StudyName = None, studies: Studies = STUDIES, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show what a study has come to: counts by state, the best trials."""
    from rich.console import Console

    from tuner.search.summary import summarise
    from tuner.ui.tables import study_table

    record = open_study(study, studies, storage, silent=as_json)
    summary = summarise(record, studies=studies)
    if as_json:
        typer.echo(json.dumps(summary.to_json(), indent=2))
    else:
        Console().print(study_table(summary, record.trials()))


def dashboard(
    study: StudyName = None,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="On 127.0.0.1.")] = 8080,
    open_browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    studies: Studies = STUDIES,
    storage: Storage = None,
) -> None:
    """Start optuna-dashboard on the studies; Ctrl-C ends it."""
    from tuner.ui.dashboard import HOST, serve_dashboard

    record = open_study(study, studies, storage)
    path = f"/dashboard/studies/{record.study_id}"
    typer.echo(f"optuna-dashboard of {record.name}: http://{HOST}:{port}{path} (Ctrl-C ends it)")
    serve_dashboard(record.storage, port=port, open_browser=open_browser, path=path)
