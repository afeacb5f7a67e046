"""Show a trial that is trained for longer: one live line in a terminal, otherwise a line for each epoch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Column, Table

from tuner.deliver.train_trial import Trained, TrainingEvent, TrainingStarted
from tuner.search.confirmation_sentences import counted
from tuner.search.events import EpochFinished, TrialPreparing
from tuner.search.objective import BELOW_ALL, best_value, value_of
from tuner.ui.console import REFRESH_PER_SECOND
from tuner.ui.search_view import CURVE_WIDTH, WIDE, describe_preparing, format_seconds, sparkline


@dataclass
class TrainingView:
    """The content of the live line, gathered from the events seen so far."""

    number: int = 0
    epochs: int = 0
    seconds: float = 0.0
    curve: list[float] = field(default_factory=list)
    preparing: str = ""
    trained: Trained | None = None

    def take(self, event: TrainingEvent) -> None:
        """Update the view with an event."""
        match event:
            case TrainingStarted():
                self.number, self.epochs = event.number, event.candidate.recipe.epochs
            case TrialPreparing():
                self.preparing = describe_preparing(event.progress)
            case EpochFinished():
                self.preparing = ""
                self.curve.append(value_of(event.result))
                self.seconds += event.result.seconds
            case Trained():
                self.trained = event

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the line. Numbers come first; a narrow terminal shows neither the progress bar nor the curve."""
        if not self.epochs:
            return
        done = len(self.curve)
        cells: list[RenderableType] = [f"trial {self.number}", f"{done}/{self.epochs} epochs"]
        if done:
            left = format_seconds(self.seconds / done * (self.epochs - done))
            cells += [
                f"{self.curve[-1]:.2%}, best {best_value(self.curve, default=BELOW_ALL):.2%}",
                f"about {left} left",
            ]
        cells += [self.preparing] * bool(self.preparing)
        if options.max_width >= WIDE:
            cells.insert(1, ProgressBar(total=self.epochs, completed=done, width=20))
        if options.max_width >= WIDE + CURVE_WIDTH:
            cells.append(sparkline(self.curve))
        line = Table.grid(*(Column(no_wrap=True) for _ in cells), padding=(0, 2, 0, 0))
        line.add_row(*cells)
        yield line


def watch_training(events: Iterable[TrainingEvent], console: Console, *, quiet: bool = False) -> Trained | None:
    """Show a training run while it continues, and return its result; None if the events end before there is one."""
    view = TrainingView()
    if quiet or not console.is_terminal:
        for event in events:
            view.take(event)
            if isinstance(event, TrialPreparing):
                continue
            if not quiet and not isinstance(event, Trained):
                console.print(training_line(event, epochs=view.epochs), highlight=False, soft_wrap=True)
    else:
        with Live(view, console=console, refresh_per_second=REFRESH_PER_SECOND) as live:
            for event in events:
                view.take(event)
                if isinstance(event, TrainingStarted):
                    live.console.print(training_line(event, epochs=view.epochs), highlight=False)
    return view.trained


def training_line(event: TrainingStarted | EpochFinished, *, epochs: int) -> str:
    """Format an event as a line of a log."""
    if isinstance(event, TrainingStarted):
        return (
            f"{event.dataset}: {event.num_train:,} images to train on, {event.num_validation:,} to validate; "
            f"device {event.device}\n"
            + "".join(f"{note}\n" for note in event.notes)
            + f"study {event.study}: trial {event.number} for {counted(epochs, 'epoch')}: "
            + str(event.candidate.architecture)
        )
    result = event.result
    return (
        f"[{result.epoch}/{epochs}] {result.validation_accuracy:.2%} validation accuracy, losses "
        f"{result.train_loss:.4f} (train) and {result.validation_loss:.4f} (validation), {result.seconds:.1f} s"
    )


def trained_lines(trained: Trained) -> list[str]:
    """Describe the result of a training run: its score, its checkpoint path, and that the test set was not used."""
    before = trained.search_accuracy
    compared = "it had none in the search" if before is None else f"{before:.2%} in the search"
    return [
        "",
        f"score    {trained.validation_accuracy:.2%} validation accuracy at epoch {trained.epoch}, the best of "
        f"{trained.epochs}, and so optimistic; {compared}",
        "test     not scored: the test set stays sealed",
        f"file     {trained.checkpoint}",
    ]
