"""The command line: parse, call, print. Heavy imports are inside the commands, so that --help is instant."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

import typer

from tuner import interrupts
from tuner.cli.delivering import evaluate, export, predict, train
from tuner.cli.options import print_notes
from tuner.cli.searching import confirm, doctor, inspect, run, spaces
from tuner.cli.studies import compare, dashboard, delete, list_, report, show
from tuner.errors import TunerError

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""What Typer raises for options it cannot parse; its own class, which Typer does not export."""

app = typer.Typer(
    name="tuner",
    help="Neural architecture search and hyperparameter tuning for image classifiers.",
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
app.command()(run)
app.command()(confirm)
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
    """Run the command line; whatever the user can mend is one line on standard error and exit code 2."""
    arguments = sys.argv[1:] or ["--help"]
    if isinstance(sys.stdout, TextIOWrapper):  # a name that the terminal cannot show is no reason to fail
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _refuse_empty(arguments)
        code = app(args=arguments, standalone_mode=False)
        if not interrupts.was_heard():
            print_notes()
        if sys.stdout is not None:
            sys.stdout.flush()
    except BaseException as error:
        if interrupts.was_heard() or isinstance(error, KeyboardInterrupt):
            interrupts.end()
        if isinstance(error, TunerError):
            _fail(str(error))
        if isinstance(error, USAGE_ERROR):
            _fail(error.format_message() if hasattr(error, "format_message") else str(error))
        if isinstance(error, OSError):
            _drop_output()
            if isinstance(error, BrokenPipeError):  # whoever read has enough, as `head` has
                sys.exit(1)
            _fail(str(error))
        if isinstance(error, MemoryError | RuntimeError):
            _fail_out_of_memory(error)
        raise
    if interrupts.was_heard():  # Typer gives its own exit code for a KeyboardInterrupt that it has caught itself
        interrupts.end()
    sys.exit(code if isinstance(code, int) else 0)


def _refuse_empty(arguments: Sequence[str]) -> None:
    """No option and no argument of any command takes an empty text, and it must not pass for one that is left out."""
    for before, argument in zip(["tuner", *arguments], arguments, strict=False):
        if not argument or (argument.startswith("--") and argument.endswith("=")):
            raise TunerError(f"{argument.rstrip('=') or before}: an empty value; give one, or leave it out")


def _fail(message: str) -> None:
    print(f"tuner: error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(2)


def _fail_out_of_memory(error: MemoryError | RuntimeError) -> None:
    """End the command for want of memory; give way to any other error."""
    from tuner.training.failures import is_out_of_memory

    if is_out_of_memory(error):
        _fail("there is not enough memory for this; give smaller images, or fewer --workers")


def _drop_output() -> None:
    """Drop what could not be written, which Python would try again. Source: the note on SIGPIPE in its signal docs."""
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
