"""Train a stored trial again for a given number of epochs on the study's own split, and save its best epoch."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.data.dataset import Report
from tuner.data.splits import split_development
from tuner.deliver.export_formats import FORMATS
from tuner.errors import CheckpointError, OptionError, StudyError, reason_of
from tuner.search.confirmation_sentences import counted
from tuner.search.events import EpochFinished, TrialPreparing
from tuner.search.folder_owner import claim_folder
from tuner.search.locks import hold
from tuner.search.objective import is_better, value_of
from tuner.search.older_studies import refuse_older_version
from tuner.search.record import StudyRecord
from tuner.search.settings import stored_space
from tuner.search.study_backbones import decode_for_backbones, restore_weights_of
from tuner.search.study_data import device_of, load_study_images
from tuner.search.study_files import trained_path
from tuner.search.study_runners import prepare_trainer
from tuner.search.tasks import LongerTask, training_seed
from tuner.search.trial_record import TrialRecord
from tuner.temporary import remove_leftovers, temporary_beside
from tuner.training.caller_settings import generates_with_own_settings
from tuner.training.candidate import Candidate
from tuner.training.failures import is_out_of_memory
from tuner.training.results import Diverged, EpochResult, Preparing

MAX_EPOCHS = 100_000
OTHER_SUFFIXES = {Path(one.file_name).suffix for one in FORMATS.values()} - {".pt"}
"""How the names of files in the other export formats end."""


@dataclass(frozen=True)
class TrainingStarted:
    """The images are loaded, and training begins. `device`: name of the torch device. `notes` are about the images."""

    study: str
    number: int
    candidate: Candidate
    dataset: str
    num_train: int
    num_validation: int
    device: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Trained:
    """The checkpoint is at its final path. Accuracies are on validation images, between 0 and 1.

    epoch: the first epoch with the best validation accuracy, whose weights the checkpoint has. search_accuracy: the
    best accuracy of the trial in the search, None if it was never trained.
    """

    study: str
    number: int
    checkpoint: Path
    epochs: int
    epoch: int
    validation_accuracy: float
    search_accuracy: float | None


TrainingEvent = TrainingStarted | TrialPreparing | EpochFinished | Trained


def train_trial(record: StudyRecord, number: int, *, epochs: int, studies: Path, output: Path | None = None) -> Trained:
    """Train a stored trial for `epochs` epochs and return the result; see `train_trial_events`."""
    *_, last = train_trial_events(record, number, epochs=epochs, studies=studies, output=output)
    assert isinstance(last, Trained)
    return last


@generates_with_own_settings
def train_trial_events(
    record: StudyRecord,
    number: int,
    *,
    epochs: int,
    studies: Path,
    output: Path | None = None,
    report: Report | None = None,
) -> Generator[TrainingEvent]:
    """Train a stored trial of a study for `epochs` epochs, yield events, and save the weights of the best epoch.

    The trial must have a candidate, and may have been stopped early. Its schedule spans the new number of epochs.
    Engine, device and split are the study's. As in the search, the seed derives from the study's seed and the
    candidate, so training for the trial's own number of epochs reproduces the trial. The score is validation accuracy,
    since the test set stays sealed.

    output: a new file; by default `trained-NNNNN.pt` in the study's folder, which replaces the trial's earlier one. It
    is written at the end, so training that is interrupted or fails changes nothing.

    Raises StudyError for a trial that does not exist, images that have changed, a loss that is not finite, or a lack of
    memory; CheckpointError for a file that already exists or cannot be written; OptionError, DataError and DeviceError.
    """
    if type(epochs) is not int or not 1 <= epochs <= MAX_EPOCHS:
        raise OptionError(f"epochs must be a whole number from 1 to {MAX_EPOCHS:,}, got {epochs!r}")
    refuse_older_version(record)
    trial = _find(record, number)
    device = device_of(record)
    folder = studies / record.name
    target = trained_path(folder, number) if output is None else output
    if output is not None:
        _refuse(output)
    # A search may write to its folder, and so may somebody who deletes it; a file elsewhere is nobody else's.
    held = hold(folder, record.name, otherwise="give -o FILE") if output is None else nullcontext()
    with held:
        if output is None:
            claim_folder(folder, record)
        spec, dataset = load_study_images(record, studies=studies, report=report)
        split = split_development(dataset, seed=record.settings.seed)
        candidate = replace(trial.candidate, recipe=replace(trial.candidate.recipe, epochs=epochs))
        seed = training_seed(record.settings.seed, candidate)
        best: EpochResult | None = None
        with _beside(target) as unfinished:
            restore_weights_of([candidate.architecture], spec.cache_dir, report=report)
            decoded = decode_for_backbones(stored_space(record.settings), spec, dataset, report=report)
            trainer = prepare_trainer(record, dataset, split, folder, device=device, decoded=decoded)
            sizes = len(split.train_indices_N), len(split.validation_indices_N)
            yield TrainingStarted(
                record.name, number, candidate, str(spec.dataset), *sizes, str(device), dataset.repairs
            )
            with _told(number, epochs):
                for result in trainer(LongerTask(number, candidate, seed, unfinished)):
                    if isinstance(result, Preparing):
                        yield TrialPreparing(number, result)
                        continue
                    result = replace(result, weights=None)
                    if best is None or is_better(value_of(result), value_of(best)):
                        best = result
                    yield EpochFinished(number, result)
            assert best is not None
            if output is not None:
                _refuse(output)  # what has come there meanwhile is not ours either
            unfinished.replace(target)
    yield Trained(
        study=record.name,
        number=number,
        checkpoint=target,
        epochs=epochs,
        epoch=best.epoch,
        validation_accuracy=best.validation_accuracy,
        search_accuracy=trial.validation_accuracy,
    )


def _find(record: StudyRecord, number: int) -> TrialRecord:
    stored = {trial.number: trial for trial in record.trials()}
    if number not in stored:
        last = f"its last is trial {max(stored)}" if stored else "it has none yet"
        raise StudyError(f"study {record.name!r} has no trial {number}: {last}")
    return stored[number]


def _refuse(output: Path) -> None:
    """Raise CheckpointError if a file already exists, or if its name has the extension of another format."""
    if output.suffix.lower() in OTHER_SUFFIXES:
        raise CheckpointError(f"-o {output}: a checkpoint is written here, whose name ends with .pt; give another name")
    if output.exists():
        raise CheckpointError(
            f"-o {output}: already exists and will not be overwritten; give another name, or remove it"
        )


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Yield a temporary file beside the target, and remove it at the end unless it was moved."""
    unfinished = temporary_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent, target.name)
        unfinished.touch()
    except OSError as error:
        raise CheckpointError(f"{target}: cannot be written: {reason_of(error)}") from error
    try:
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def _told(number: int, epochs: int) -> Iterator[None]:
    """Raise StudyError if training diverges or runs out of memory, even if it did not do so in the search."""
    failed = f"trial {number} cannot be trained for {counted(epochs, 'epoch')}"
    try:
        yield
    except Diverged as error:
        raise StudyError(f"{failed}: {error}; nothing was written") from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise StudyError(f"{failed}: there is not enough memory for it on this device; nothing was written") from error
