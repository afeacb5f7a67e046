"""The command line, which parses options, calls the library and prints. Imports inside commands keep --help fast."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper

import typer

from tuner import interrupts
from tuner.cli.check_command import check
from tuner.cli.exit_codes import run_and_exit
from tuner.cli.inspect_command import inspect
from tuner.cli.network_commands import evaluate, export, predict, train
from tuner.cli.options import print_notes
from tuner.cli.search_commands import confirm, doctor, run, spaces
from tuner.cli.study_commands import compare, dashboard, delete, list_, report, show
from tuner.errors import TunerError
from tuner.names import SHOWN

app = typer.Typer(
    name="tuner",
    help="Neural architecture search and hyperparameter tuning for image classifiers.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_show_locals=False,  # the storage's password may be among them
)
app.command()(run)
app.command()(confirm)
app.command()(check)
app.command()(spaces)
app.command()(inspect)
app.command()(doctor)
app.command("list")(list_)
app.command()(show)
app.command()(report)
app.command()(compare)
app.command()(dashboard)
app.command()(train)
app.command()(export)
app.command()(evaluate)
app.command()(predict)
app.command()(delete)


def main() -> None:
    """Run the command line. An error that the user can fix is one line on standard error and exit code 2."""
    arguments = sys.argv[1:] or ["--help"]
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that the terminal cannot show is no reason to fail
            stream.reconfigure(errors=SHOWN)

    def command() -> object:
        _refuse_empty(arguments)
        code = app(args=arguments, standalone_mode=False)
        if not interrupts.was_heard():
            print_notes()
        return code

    run_and_exit(command, name="tuner")


def _refuse_empty(arguments: Sequence[str]) -> None:
    """Refuse empty arguments: no command accepts one, and it must not be mistaken for an option that is not given."""
    for before, argument in zip(["tuner", *arguments], arguments, strict=False):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            raise TunerError(f"{argument.rstrip('=') or before}: an empty value; give a value, or omit the option")
