"""Make the two pictures of README.md from a short search: `python docs/pictures.py`, from the root of the checkout.

run.svg is what a terminal shows of `tuner run`, exported by Rich. report.png is the top of the page that `tuner report`
writes, drawn by Chromium. The search runs in a temporary folder, so the pictures name no folder of this machine.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from PIL import Image
from rich.console import Console

from tuner import RunOptions, TunerError, load_study, open_storage, run_events
from tuner.deliver.retraining import ConfirmProgress
from tuner.pipeline import RunEvent, load_summary
from tuner.search.events import EpochFinished
from tuner.ui.console import ALWAYS_TOLD
from tuner.ui.event_lines import line_of
from tuner.ui.report import write_report
from tuner.ui.search_view import SearchView
from tuner.ui.winner_lines import winner_lines

PICTURES = Path(__file__).parent / "pictures"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --hide-scrollbars"
)
WIDTH, HEIGHT = 1200, 900
"""Pixels of the window that the report is opened in."""
COLUMNS = 110
NUM_COLOURS = 128
BROWSER_SECONDS = 120
MAX_STEPS = 3
"""Steps of the confirmation that are shown; a line of dots stands for the others."""
SHOWN_AFTER = 0.7
"""The live view is shown as it is once this share of the trials has ended."""
MAX_BYTES = {"run.svg": 60_000, "report.png": 150_000}


class PictureError(Exception):
    """A picture cannot be made; the message says what to do."""


def find_browser(names: Sequence[str] = BROWSERS) -> str:
    """The path of Chromium. Raises PictureError when none is installed."""
    for name in names:
        if (path := shutil.which(name)) is not None:
            return path
    raise PictureError(
        f"the report's picture needs Chromium, and none of {', '.join(names)} is on the PATH: install it"
    )


def capture_run(options: RunOptions, command: str) -> str:
    """Run a search and return what a terminal shows of it, as SVG: log lines, the live view, the winner."""
    console = Console(record=True, force_terminal=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor")
    console.print(f"[bold]$ {command}[/bold]", highlight=False)
    with closing(run_events(options)) as events:
        _print_run(events, console)
    for line in winner_lines(load_summary(options)):
        console.print(line, highlight=False)
    svg = console.export_svg(title="tuner run", unique_id="tuner-run")
    return re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)  # a picture that loads no font from the network


def _print_run(events: Iterable[RunEvent], console: Console) -> None:
    """Print the lines that `tuner run` leaves in a terminal, and once its live view, when most trials have ended."""
    view, is_shown, num_steps = SearchView(), False, 0
    for event in events:
        view.take(event)
        num_steps += isinstance(event, ConfirmProgress)
        if isinstance(event, ConfirmProgress) and num_steps > MAX_STEPS:
            if num_steps == MAX_STEPS + 1:
                console.print("...", style="dim", highlight=False)
        elif isinstance(event, ALWAYS_TOLD) and (line := line_of(event, view)):
            console.print(line, highlight=False)
        is_late = view.num_counted >= SHOWN_AFTER * view.num_trials > 0
        has_curves = all(len(trial.curve) > 1 for trial in view.running.values())
        if isinstance(event, EpochFinished) and is_late and has_curves and not is_shown:
            console.print("", view, "")
            is_shown = True


def draw_page(page: Path, picture: Path, *, browser: str) -> None:
    """Draw the top of an HTML page as a PNG of few colours. Raises PictureError when the browser draws nothing."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        drawn = Path(profile) / "page.png"
        command = [browser, *FLAGS.split(), f"--user-data-dir={profile}", f"--window-size={WIDTH},{HEIGHT}"]
        command += [f"--screenshot={drawn}", page.resolve().as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BROWSER_SECONDS, check=False)
        if not drawn.exists():
            last = "".join(done.stderr.strip().splitlines()[-1:])
            raise PictureError(f"{browser} ended with exit code {done.returncode} and drew nothing: {last}")
        with Image.open(drawn) as image:
            top = image.convert("RGB").crop((0, 0, WIDTH, HEIGHT))
            top.quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(picture, optimize=True)


def make_pictures(folder: Path, *, trials: int, epochs: int | None, workers: int | None) -> list[Path]:
    """Run the search and write both pictures into a folder, which is made where it does not exist."""
    browser = find_browser()
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    start = Path.cwd()
    with tempfile.TemporaryDirectory() as temporary:
        os.chdir(temporary)
        try:
            options = RunOptions(trials=trials, epochs=epochs, workers=workers)
            svg = capture_run(options, f"python -m tuner run --trials {trials}")
            (folder / "run.svg").write_text(svg, encoding="utf-8", newline="\n")
            record = load_study(open_storage("sqlite:///studies/tuner.db"))
            write_report(record, studies=options.studies, output=Path("report.html"))
            draw_page(Path("report.html"), folder / "report.png", browser=browser)
        finally:
            os.chdir(start)
    made = [folder / name for name in MAX_BYTES]
    for path in made:
        if path.stat().st_size > MAX_BYTES[path.name]:
            raise PictureError(f"{path.name} may have {MAX_BYTES[path.name]:,} bytes, and has {path.stat().st_size:,}")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the pictures, or say in one line why they cannot be made."""
    parser = argparse.ArgumentParser(description="Make the pictures of README.md from a short search.")
    parser.add_argument("--output", type=Path, default=PICTURES, help="folder of the pictures (default: docs/pictures)")
    parser.add_argument("--trials", type=int, default=50, help="trials of the search (default: 50)")
    parser.add_argument("--epochs", type=int, help="epochs of each trial (default: as `tuner run` chooses)")
    parser.add_argument("--workers", type=int, help="trials that train at the same time (default: one for each core)")
    chosen = parser.parse_args(arguments)
    try:
        made = make_pictures(chosen.output, trials=chosen.trials, epochs=chosen.epochs, workers=chosen.workers)
    except (PictureError, TunerError) as error:
        print(error, file=sys.stderr)
        return 2
    for path in made:
        print(f"{path}: {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
