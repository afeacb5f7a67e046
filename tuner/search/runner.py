"""TrialRunner: one place where one trial at a time trains, an epoch whenever it is asked for one."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from tuner.data.dataset import ImageDataset
from tuner.data.images import Preprocessing
from tuner.data.opening import TrainingData, measure_statistics, open_data
from tuner.data.resident import ResidentData, Statistics
from tuner.data.sources import load_cached
from tuner.data.splits import Split, fresh_split, split_development
from tuner.search.objective import is_better, value_of
from tuner.training.candidate import Candidate
from tuner.training.checkpoint import Checkpoint, save_checkpoint
from tuner.training.engine import Engine, give_back_memory, prepare_process
from tuner.training.failures import is_device_broken, is_out_of_memory
from tuner.training.loop import Diverged, EpochResult, train
from tuner.training.seeds import derive_seed
from tuner.training.stacked import train_together
from tuner.versions import package_versions


@dataclass(frozen=True)
class TrialTask:
    """What a runner is asked to train.

    split: the study's own split into train and validation, whose best epoch is kept; a fresh one of the same sizes (of
    `split_seed`; the source's own validation part stays), of which the last epoch alone is scored; or `none`: train and
    validation together, and no score.
    save_to: where weights are kept. Without it those of the study's own split go among the study's checkpoints, and
    those of other splits, of the last epoch, are not kept.
    """

    number: int
    candidate: Candidate
    seed: int
    split: Literal["study", "fresh", "none"] = "study"
    split_seed: int = 0
    save_to: Path | None = None
    others: tuple[TrialTask, ...] = ()


@dataclass(frozen=True)
class TrainingEnded:
    """No more epochs come: the last one is done, or something went wrong; `details` is a traceback for the latter.

    lost: the process that trained is gone, which says little of the trial.
    device_is_broken: the process may be unable to use its device again, and should train nothing more.
    """

    kind: Literal["finished", "diverged", "out of memory", "failed", "lost"]
    reason: str = ""
    details: str = field(default="", repr=False)
    device_is_broken: bool = False


Trainer = Callable[[TrialTask], Iterator[EpochResult]]
"""Anything that trains: the real thing, recorded curves, or nothing at all."""


class TrialRunner:
    """Drives a trainer through one trial at a time."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._epochs: Iterator[EpochResult] = iter(())

    def start(self, task: TrialTask) -> None:
        """Make a trial the current one; nothing is trained yet."""
        self._epochs = self._trainer(task)

    def next_epoch(self) -> EpochResult | TrainingEnded:
        """Train one epoch of the current trial; what goes wrong comes back as a value."""
        try:
            return replace(next(self._epochs), weights=None)
        except StopIteration:
            return TrainingEnded("finished")
        except Diverged as error:
            return TrainingEnded("diverged", str(error))
        except Exception as error:  # noqa: BLE001 - a trial that fails must not end the search; it is stored with its traceback
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            return TrainingEnded(
                "out of memory" if is_out_of_memory(error) else "failed",
                reason,
                traceback.format_exc(),
                device_is_broken=is_device_broken(error),
            )

    def stop(self) -> None:
        """Drop the current trial."""
        self._epochs = iter(())


@dataclass(frozen=True)
class ImageTrainer:
    """The real trainer: trains a task on a cached data set, and keeps the weights of its best epoch in a file.

    Small enough to be sent to another process, which opens the data set by itself from the same memory-mapped file.
    `image_bytes` is what the images may take; more are streamed. `statistics` are the pixels' mean and standard
    deviation, where they are known already.
    """

    dataset_folder: Path
    study: str
    study_folder: Path
    split_seed: int
    engine: Engine
    image_bytes: int = sys.maxsize
    statistics: Statistics | None = None
    _opened: dict[tuple[str, int], TrainingData] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, task: TrialTask) -> Iterator[EpochResult]:
        """Train a task; the data set is opened with the first one."""
        give_back_memory(self.engine)  # of a training that was stopped
        yield from self._train_together([task, *task.others]) if task.others else self._train(task)
        give_back_memory(self.engine)

    def _train(self, task: TrialTask) -> Iterator[EpochResult]:
        data = self._open(task)
        is_search = task.split == "study"
        path = task.save_to
        if is_search and path is None:
            path = checkpoint_path(self.study_folder, task.number)
        best: float | None = None
        for result in train(task.candidate, data, engine=self.engine, seed=task.seed, scores_all=is_search):
            assert result.weights is not None
            is_kept = is_better(value_of(result), best) if is_search else result.epoch == task.candidate.recipe.epochs
            if is_kept:
                best = value_of(result)
            if is_kept and path is not None:
                save_checkpoint(self._checkpoint(task, data, result, result.weights), path)
            yield result

    def _train_together(self, tasks: Sequence[TrialTask]) -> Iterator[EpochResult]:
        """Tasks of one candidate in the same steps; only the last epoch is scored, as the search's own split is not."""
        candidate = tasks[0].candidate
        datas, seeds = [self._open(task) for task in tasks], [task.seed for task in tasks]
        for results in train_together(candidate, datas, engine=self.engine, seeds=seeds, scores_all=False):
            for result in results:
                assert result.weights is not None
                task, data = tasks[result.seed_index], datas[result.seed_index]
                if task.save_to is not None and result.epoch == candidate.recipe.epochs:
                    save_checkpoint(self._checkpoint(task, data, result, result.weights), task.save_to)
                yield result

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": {}}

    def _open(self, task: TrialTask) -> TrainingData:
        """The images, split as the task has it; a data set in memory is one mapped file however often it is opened."""
        key = (task.split, task.split_seed)
        if key not in self._opened:
            prepare_process(self.engine)
            dataset = load_cached(self.dataset_folder)
            split = self._split(dataset, task)
            known = self.statistics if task.split == "study" else None
            statistics = known or measure_statistics(dataset, split, memory_bytes=self.image_bytes)
            for data in self._opened.values():
                if isinstance(data, ResidentData):  # its images are on the device already
                    dataset = replace(dataset, images_NCHW=data.images_NCHW)
            self._opened[key] = open_data(
                dataset,
                split,
                device=torch.device(self.engine.device),
                memory_bytes=self.image_bytes,
                statistics=statistics,
            )
        return self._opened[key]

    def _split(self, dataset: ImageDataset, task: TrialTask) -> Split:
        own = split_development(dataset, seed=self.split_seed)
        if task.split == "study":
            return own
        if task.split == "none":
            everything = torch.arange(len(dataset.labels_N))
            return Split(everything, everything[:0])
        return fresh_split(dataset, seed=task.split_seed, num_validation=len(own.validation_indices_N))

    def _checkpoint(
        self, task: TrialTask, data: TrainingData, result: EpochResult, weights: Mapping[str, Tensor]
    ) -> Checkpoint:
        input_spec = task.candidate.architecture.input
        scores = {"validation_accuracy": result.validation_accuracy, "validation_loss": result.validation_loss}
        if task.split == "none":
            scores = {}
        return Checkpoint(
            candidate=task.candidate,
            weights=weights,
            preprocessing=Preprocessing(
                channels=input_spec.channels,
                height=input_spec.height,
                width=input_spec.width,
                mean=data.mean,
                std=data.std,
            ),
            class_names=data.class_names,
            scores=scores,
            origin={
                "dataset": data.name,
                "dataset_digest": data.digest,
                "study": self.study,
                "trial": task.number,
                "epoch": result.epoch,
                "seed": task.seed,
                "split_seed": task.split_seed if task.split == "fresh" else self.split_seed,
            },
            versions=package_versions(),
        )


def checkpoint_path(study_folder: Path, number: int) -> Path:
    """Where the weights of a trial's best epoch lie."""
    return study_folder / f"trial-{number:05}.pt"


def confirmed_path(study_folder: Path) -> Path:
    """Where the confirmed winner's weights lie, which are what a study delivers."""
    return study_folder / "confirmed.pt"


def training_seed(seed: int, candidate: Candidate) -> int:
    """The seed that a candidate trains with in a study of this seed."""
    return derive_seed(seed, "training", candidate.fingerprint)
