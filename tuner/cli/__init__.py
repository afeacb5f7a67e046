"""The command line: parse, call, print. Heavy imports are inside the commands, so that --help is instant."""

from __future__ import annotations

import sys

import typer

from tuner.cli.delivering import evaluate, export, predict
from tuner.cli.searching import confirm, doctor, inspect, run, spaces
from tuner.cli.studies import dashboard, list_, show
from tuner.errors import TunerError

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""What Typer raises for options it cannot parse; its own class, which Typer does not export."""
INTERRUPTED = 130

app = typer.Typer(
    name="tuner",
    help="Neural architecture search and hyperparameter tuning for image classifiers.",
    no_args_is_help=True,
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
app.command()(dashboard)
app.command()(export)
app.command()(evaluate)
app.command()(predict)


def main() -> None:
    """Run the command line; whatever the user can mend is one line on standard error and exit code 2."""
    try:
        code = app(standalone_mode=False)
    except TunerError as error:
        _fail(str(error))
    except USAGE_ERROR as error:
        _fail(error.format_message() if hasattr(error, "format_message") else str(error))
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:  # Typer gives this for a KeyboardInterrupt that it has caught itself
        print("interrupted; the same command goes on from here", file=sys.stderr)  # noqa: T201
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str) -> None:
    print(f"tuner: error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
