"""Commands for existing studies: list, show, compare, report, dashboard, delete."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tuner.cli.options import (
    STUDIES,
    AsJson,
    Storage,
    Studies,
    StudyName,
    limit_threads,
    open_study,
    plain_console,
    say,
    silence_optuna,
)

LOOPBACK = "127.0.0.1"


def list_(studies: Studies = STUDIES, storage: Storage = None, as_json: AsJson = False) -> None:
    """List the studies, latest first. A study that cannot be read is reported after the others."""
    from tuner.errors import StudyError
    from tuner.search.storage import GoneError
    from tuner.search.study_deletion import disk_use
    from tuner.search.study_location import existing_storage, unusable_name
    from tuner.search.study_lookup import list_studies, unusable_names
    from tuner.search.summary import summarise
    from tuner.ui.tables import studies_table

    silence_optuna()
    listed = []
    opened = existing_storage(studies, storage)
    unusable = unusable_names(opened)
    unreadable = [unusable_name(*unusable)] if unusable else []
    for record in list_studies(opened):
        try:
            listed.append((summarise(record, studies=studies), disk_use(record, studies=studies)))
        except GoneError:
            continue  # it was deleted since the studies were read, and is listed no more
        except StudyError as error:
            unreadable.append(error)
    if as_json:
        say(json.dumps([summary.to_json() | {"disk_bytes": size} for summary, size in listed], indent=2))
    else:
        plain_console().print(studies_table([summary for summary, _ in listed], [size for _, size in listed]))
    for another in unreadable[1:]:
        say(str(another), err=True)
    if unreadable:
        raise unreadable[0]


def show(study: StudyName = None, studies: Studies = STUDIES, storage: Storage = None, as_json: AsJson = False) -> None:
    """Show a study: the number of trials by outcome, and the best trials."""
    from tuner.search.summary import summarise
    from tuner.ui.tables import study_table

    record = open_study(study, studies, storage, silent=as_json)
    summary = summarise(record, studies=studies)
    if as_json:
        say(json.dumps(summary.to_json(), indent=2))
    else:
        plain_console().print(study_table(summary, record.trials()))


def report(
    study: StudyName = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")] = Path("report.html"),
    studies: Studies = STUDIES,
    storage: Storage = None,
) -> None:
    """Write an HTML report on a study: its results, its search, and the winner's mistakes."""
    from tuner.ui.report import write_report

    record = open_study(study, studies, storage)
    limit_threads()
    write_report(record, studies=studies, output=output)
    say(f"{output}: report of {record.name}")


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="Name of the first study.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Name of the second study.")],
    studies: Studies = STUDIES,
    storage: Storage = None,
) -> None:
    """Compare two studies: counts, best and confirmed scores, and differences in settings and winners."""
    from tuner.ui.compare import comparison_table

    records = [open_study(name, studies, storage) for name in (first, second)]
    plain_console().print(comparison_table(records[0], records[1], studies=studies))


def delete(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="Name of the study to delete.")],
    yes: Annotated[bool, typer.Option("--yes", help="Delete without asking.")] = False,
    studies: Studies = STUDIES,
    storage: Storage = None,
) -> None:
    """Delete a study permanently: its trials in the database, its checkpoints and its artifacts."""
    from tuner.errors import StudyError
    from tuner.search.study_deletion import delete_study, disk_size_in_words, disk_use

    record = open_study(study, studies, storage)
    size = disk_size_in_words(disk_use(record, studies=studies))
    what = f"study {record.name}: {record.num_stored:,} trials, {size} of files"
    try:
        agreed = yes or typer.confirm(f"Delete {what} permanently?")
    except typer.Abort as error:
        raise StudyError(
            "nothing was deleted: there was no answer; give --yes to delete without being asked"
        ) from error
    if not agreed:
        say("nothing was deleted")
        return
    had_folder = delete_study(record, studies=studies)
    say(f"deleted {what}" + ("" if had_folder else f"; there is no folder {studies / record.name}"))


def dashboard(
    study: StudyName = None,
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port to listen on.")] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default accepts connections from this machine only.")
    ] = LOOPBACK,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Additional host name to accept, such as that of a proxy; can be repeated."),
    ] = None,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Reject every request that would change a study.")
    ] = False,
    allow_anyone: Annotated[
        bool,
        typer.Option(
            "--allow-anyone-to-delete",
            help="Allow --host without --read-only, so that anyone who can connect can delete studies.",
        ),
    ] = False,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the dashboard in the browser.")] = False,
    studies: Studies = STUDIES,
    storage: Storage = None,
) -> None:
    """Serve optuna-dashboard for the studies until Ctrl-C."""
    from tuner.search.study_files import artifacts_folder
    from tuner.ui.allowed_hosts import check_host_name, is_loopback
    from tuner.ui.dashboard import address, serve_dashboard

    if not (is_loopback(host) or read_only or allow_anyone):
        raise typer.BadParameter(
            f"--host {host}: the dashboard has no log-in, so anyone who reaches it could delete studies; "
            "give --read-only, or --allow-anyone-to-delete"
        )
    allow_hosts = [check_host_name(name) for name in allow_host or []]
    record = open_study(study, studies, storage)
    path = f"/dashboard/studies/{record.study_id}"
    kind = ", read-only" if read_only else ""
    where = f"optuna-dashboard of {record.name}{kind}: {address(host, port)}{path} (Ctrl-C ends it)"
    serve_dashboard(
        record.storage,
        artifacts=artifacts_folder(studies / record.name),
        port=port,
        host=host,
        allow_hosts=allow_hosts,
        read_only=read_only,
        open_browser=open_browser,
        path=path,
        on_ready=lambda: say(where),
    )
