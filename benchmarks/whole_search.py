"""The whole search on MNIST, 50,000 images to train on and 10,000 to validate: ours, then the textbook's."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import torch

from benchmarks.subset import Rows
from benchmarks.textbook import train_textbook
from tuner.data.development_part import load_development
from tuner.data.splits import split_development
from tuner.hardware import device_name, num_cores
from tuner.options import RunOptions, complete_options
from tuner.pipeline import run_events
from tuner.search.events import EpochFinished, SearchEnded, SearchStarted, TrialEnded
from tuner.search.study_runners import input_spec_of
from tuner.space.sampling import suggest
from tuner.space.toml_file import load_space
from tuner.training.device import choose_device

GOAL = 0.986
SPACE = str(Path(__file__).with_name("whole_search.toml"))
Say = Callable[[str], None]


def measure(data_dir: Path, *, num_trials: int, epochs: int, patience: float, say: Say) -> dict[str, Any]:
    """Ours from the call to the last trial, processes and measurements included; then the textbook's."""
    say(f"{device_name(choose_device('auto'))}, {num_cores()} cores, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        options = RunOptions(
            dataset="mnist",
            data_dir=data_dir,
            space=SPACE,
            studies=Path(folder),
            trials=num_trials,
            epochs=epochs,
            confirm="no",
        )
        seconds_ours, best_ours, first_ours, first_ours_sampled, coordinator_share = run_ours(options, say)
        seconds_textbook, best_textbook, first_textbook, finished = run_textbook(
            options, limit=patience * seconds_ours, say=say
        )
    return {
        "seconds_ours": seconds_ours,
        "best_ours": best_ours,
        "first_ours": first_ours,
        "first_ours_sampled": first_ours_sampled,
        "seconds_textbook": seconds_textbook,
        "textbook_finished": finished,
        "best_textbook": best_textbook,
        "first_textbook": first_textbook,
        "coordinator_share": coordinator_share,
        "ratio_seconds": seconds_textbook / seconds_ours,
        "ratio_first": first_textbook / first_ours if first_textbook and first_ours else None,
    }


def run_ours(options: RunOptions, say: Say) -> tuple[float, float, float | None, float | None, float]:
    """Seconds, best accuracy of a complete trial, and seconds until any trial reached the goal.

    Then the seconds until a trial other than trial 0 did: that one is the space's own first configuration, written by
    hand, which the textbook does not know. Last, what this process takes while its runners train, as a share of a core.
    """
    started, best, first, first_sampled, seconds = time.perf_counter(), 0.0, None, None, 0.0
    began = (0.0, 0.0)
    with closing(run_events(options)) as events:
        for event in events:
            elapsed = time.perf_counter() - started
            if isinstance(event, SearchStarted):
                began = (time.perf_counter(), time.process_time())
            if isinstance(event, EpochFinished) and event.result.validation_accuracy >= GOAL:
                first = elapsed if first is None else first
                first_sampled = elapsed if first_sampled is None and event.number != 0 else first_sampled
            if isinstance(event, TrialEnded):
                best = max(best, event.best.validation_accuracy if event.best else 0.0)
                accuracy = event.validation_accuracy or 0.0
                say(f"ours {elapsed:6.0f} s  trial {event.number} {event.outcome} {accuracy:.2%}")
            if isinstance(event, SearchEnded):
                seconds = elapsed
    share = (time.process_time() - began[1]) / (time.perf_counter() - began[0])
    return seconds, best, first, first_sampled, share


def run_textbook(options: RunOptions, *, limit: float, say: Say) -> tuple[float, float, float | None, bool]:
    """Optuna's TPE and MedianPruner with their defaults, one trial after another, until done or out of time."""
    wanted = complete_options(options, None)
    space, spec = load_space(wanted.space), wanted.data_spec
    dataset = load_development(spec)
    split = split_development(dataset, seed=wanted.seed)
    rows = Rows(tuple(split.train_indices_N.tolist()), tuple(split.validation_indices_N.tolist()))
    device = choose_device(options.device)
    torch.set_num_threads(num_cores())
    torch.set_flush_denormal(False)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=wanted.seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    started, first = time.perf_counter(), None

    def objective(trial: optuna.Trial) -> float:
        nonlocal first
        candidate = suggest(trial, space, input_spec_of(dataset), epochs=wanted.epochs or 1)
        best = 0.0
        epochs = train_textbook(candidate, dataset.folder, rows, seed=wanted.seed, device=device)
        for epoch, (_, accuracy) in enumerate(epochs, start=1):
            best = max(best, accuracy)
            elapsed = time.perf_counter() - started
            if accuracy >= GOAL and first is None:
                first = elapsed
            trial.report(accuracy, epoch)
            if elapsed > limit:
                study.stop()
                raise optuna.TrialPruned
            if trial.should_prune():
                raise optuna.TrialPruned
        return best

    def tell(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        accuracy = max(trial.intermediate_values.values(), default=0.0)
        say(f"textbook {time.perf_counter() - started:6.0f} s  trial {trial.number} {trial.state.name} {accuracy:.2%}")

    study.optimize(objective, n_trials=wanted.trials, callbacks=[tell])
    seconds = time.perf_counter() - started
    done = [trial for trial in study.trials if trial.state.is_finished()]
    best = max((trial.value for trial in done if trial.value is not None), default=0.0)
    return seconds, best, first, len(done) == wanted.trials and seconds <= limit
