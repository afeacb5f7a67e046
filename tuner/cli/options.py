"""Options that several commands share, how they are parsed, and how a study is found."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuner.interrupts import leave_in_order
from tuner.names import shown_name

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.search.record import StudyRecord

StudyName = Annotated[str | None, typer.Argument(metavar="[STUDY]", help="Name of a study; the latest by default.")]
Studies = Annotated[Path, typer.Option("--studies", help="Folder that holds the studies and their database.")]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar="TUNER_STORAGE",
        help="Optuna storage URL to use instead of the folder's SQLite file. Passwords are never printed.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the output as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only errors.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="NAME",
        help="Accept what would make the scores meaningless: duplicates, constant or labels; can be repeated.",
    ),
]
Dataset = Annotated[
    str, typer.Option(help="Data set: digits, mnist, cifar10, ... or the path of a folder, an .npz or a .csv file.")
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder that data sets are read from and downloaded to; data by default.")
]
ImageSize = Annotated[str | None, typer.Option(help="Size to scale the images to, in pixels: N or HEIGHTxWIDTH.")]
Download = Annotated[bool, typer.Option(help="Download the data set, and pretrained weights, if they are missing.")]
ImageColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Column of a .csv file that holds the paths of the images.")
]
LabelColumn = Annotated[str | None, typer.Option(metavar="NAME", help="Column of a .csv file that holds the labels.")]
SplitColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="Column of a .csv file that holds the part: train, val or test.")
]
GroupColumn = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Column of a .csv file that holds the group of each image; a group stays on one side of every split.",
    ),
]
Group = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help="Regular expression that finds the group of an image, such as its patient, in its file name.",
    ),
]
Weights = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=FILE",
        help="File (.pth, .pt, .safetensors) with the pretrained weights of a backbone; can be repeated.",
    ),
]
STUDIES, DATA_DIR = Path("studies"), Path("data")


def parse_duration(text: str) -> float:
    """Parse a duration such as `90s`, `30m`, `2h` or `1h30m` to seconds. Raises typer.BadParameter."""
    match = re.fullmatch(r"(?:(\d{1,6})h)?(?:(\d{1,8})m)?(?:(\d{1,9})s)?", text)
    seconds = 0
    if match:
        hours, minutes, rest = (int(part or 0) for part in match.groups())
        seconds = 3600 * hours + 60 * minutes + rest
    if not seconds:
        raise typer.BadParameter(f"--budget must be a time such as 90s, 30m or 1h30m, got {text!r}")
    return float(seconds)


def parse_image_size(text: str) -> tuple[int, int]:
    """Parse `64` or `48x64` to (height, width). Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if match is None:
        raise typer.BadParameter(f"--image-size must be N or HEIGHTxWIDTH, got {text!r}")
    height, width = match.groups()
    return int(height), int(width or height)


def parse_shape(text: str) -> tuple[int, int, int]:
    """Parse `3x32x32` to (channels, height, width). Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)", text)
    if match is None or not all(1 <= int(side) <= 65_536 for side in match.groups()):
        raise typer.BadParameter(f"--input must be CHANNELSxHEIGHTxWIDTH, such as 3x32x32, got {text!r}")
    channels, height, width = map(int, match.groups())
    return channels, height, width


def parse_weights(given: list[str] | None) -> tuple[str, ...]:
    """Check that every `--weights` has a name and a file. Raises typer.BadParameter."""
    for one in given or []:
        if not all(one.partition("=")):
            raise typer.BadParameter(f"--weights must be NAME=FILE with the name of a backbone, got {one!r}")
    return tuple(given or ())


def parse_allowed(names: list[str] | None) -> tuple[str, ...]:
    """Check the values of --allow. Raises typer.BadParameter for an unknown one."""
    from tuner.data.data_checks import PROBLEMS

    for name in names or ():
        if name not in PROBLEMS:
            raise typer.BadParameter(f"--allow must be one of {', '.join(PROBLEMS)}, got {name!r}")
    return tuple(names or ())


def parse_workers(text: str) -> int | None:
    """Parse a number of runners, or `auto` to None. Raises typer.BadParameter."""
    if text == "auto":
        return None
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text) <= 1024:
        raise typer.BadParameter(f"--workers must be auto or a number from 1 to 1024, got {text!r}")
    return int(text)


def open_study(name: str | None, studies: Path, storage: str | None, *, silent: bool = False) -> StudyRecord:
    """Open the named study or the latest, whose name is then printed at the end of the command.

    After this call, Ctrl-C lets the command clean up.
    """
    from tuner.search.study_location import existing_storage
    from tuner.search.study_lookup import load_study

    silence_optuna()
    leave_in_order()
    record = load_study(existing_storage(studies, storage), name)
    if name is None and not silent:
        _notes.append(f"study {record.name} (the latest)")
    return record


_notes: list[str] = []


def say(text: str, *, err: bool = False) -> None:
    """Print a line.

    Typer alone writes UTF-8 to terminals that do not support it, and `?` for undecodable bytes of names.
    """
    typer.echo(text, file=sys.stderr if err else sys.stdout)


def add_note(text: str) -> None:
    """Add a line that `print_notes` prints when the command has ended."""
    _notes.append(text)


def print_notes() -> None:
    """Print the notes of a command on standard error; a command that fails prints only its error there."""
    for note in _notes:
        say(note, err=True)


@contextmanager
def cache_folder(studies: Path) -> Iterator[Path]:
    """Yield the folder for decoded images: beside the studies, or temporary if there are none or they are read-only."""
    if studies.is_dir() and os.access(studies, os.W_OK):
        yield studies / ".cache"
    else:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            yield Path(folder)


WIDE_ENOUGH = 200
"""Width in columns of an output that is not a terminal and has no width set; nothing is cut at this width."""


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is: brackets and colons in file names have no meaning."""
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE_ENOUGH
    return console


def limit_threads() -> None:
    """Limit torch in commands that use networks to the cores that the process may use, as in containers."""
    from tuner import hardware

    hardware.limit_threads()


def silence_optuna() -> None:
    """Hide Optuna's log messages for as long as this process runs."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)


def folder_arguments(studies: Path, storage: str | None) -> str:
    """Arguments with which the next commands find the study.

    They omit a storage that is set in the environment. Secrets in any other storage URL are printed as `***`.
    """
    from tuner.search.secrets import shown_url

    arguments = [] if studies == STUDIES else ["--studies", str(studies)]
    if storage is not None and storage != os.environ.get("TUNER_STORAGE"):
        arguments += ["--storage", shown_url(storage)]
    return "".join(f" {_typed(argument)}" for argument in arguments)


def _typed(argument: str) -> str:
    """Quote an argument for a shell; bytes that are not valid UTF-8 become escapes that bash understands."""
    if shown_name(argument) == argument:
        return shlex.quote(argument)
    escaped = argument.replace("\\", r"\\").replace("'", r"\'")
    return f"$'{escaped}'"
