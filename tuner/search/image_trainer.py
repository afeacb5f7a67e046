"""ImageTrainer: trains a task on the cached images of a study, and saves the weights that the task needs."""

from __future__ import annotations

import math
import sys
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from tuner.architecture.backbone_modules import SplitNetwork
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.backbones import is_timm
from tuner.architecture.spec import Architecture
from tuner.data.dataset import ImageDataset, Report
from tuner.data.development_part import load_cached
from tuner.data.feature_data import FeatureData
from tuner.data.images import Preprocessing
from tuner.data.reading import DEFAULT, Reading
from tuner.data.resident import ResidentData, Statistics
from tuner.data.resizing import DEFAULT_RESIZING, Resizing
from tuner.data.splits import Split, fresh_split, split_development
from tuner.data.training_data import TrainingData, measure_statistics, open_data
from tuner.search.backbone_data import BackboneData, DecodedFolders, preprocessing_of
from tuner.search.objective import is_better, rank_key, value_of
from tuner.search.study_files import NUM_KEPT, checkpoint_path
from tuner.search.tasks import (
    AllImagesTask,
    FreshSplitTask,
    LongerTask,
    SearchTask,
    SeedGroup,
    SingleTask,
    TrialTask,
)
from tuner.search.turns import in_turns
from tuner.training.checkpoint import Checkpoint, save_checkpoint
from tuner.training.engine import Engine
from tuner.training.loop import train
from tuner.training.process_settings import give_back_memory, prepare_process
from tuner.training.results import EpochResult, Preparing
from tuner.training.train_together import train_together
from tuner.versions import package_versions


@dataclass(frozen=True)
class ImageTrainer:
    """Trains a task on a cached data set, and saves the weights of its best epoch to a file.

    It is small enough to be sent to another process, which then opens the data set from the same memory-mapped file.
    `image_bytes` is the memory limit for images; larger sets are streamed. `statistics` are the mean and standard
    deviation of the pixels, if they are already known. `reading` says how the values of image files became pixels,
    and `resizing` how the images were resized. `decoded` are the images as pretrained backbones expect them; None for a
    study without any. progress_seconds: time between two reports while features are computed before the first epoch.
    """

    dataset_folder: Path
    study: str
    study_folder: Path
    split_seed: int
    engine: Engine
    image_bytes: int = sys.maxsize
    statistics: Statistics | None = None
    reading: Reading = DEFAULT
    resizing: Resizing = DEFAULT_RESIZING
    decoded: DecodedFolders | None = None
    progress_seconds: float = math.inf
    _opened: dict[tuple[str, int], TrainingData] = field(default_factory=dict, compare=False, repr=False)
    _backbones: list[BackboneData] = field(default_factory=list, compare=False, repr=False)
    _complete: list[tuple[float, int]] = field(default_factory=list, compare=False, repr=False)

    def __call__(self, task: TrialTask) -> Iterator[EpochResult | Preparing]:
        """Train a task; the data set is opened for the first one."""
        give_back_memory(self.engine)  # of a training that was stopped
        match task:
            case SearchTask() | LongerTask():
                path = checkpoint_path(self.study_folder, task.number) if isinstance(task, SearchTask) else task.output
                is_traced = isinstance(task.candidate.architecture, Architecture)
                yield from (self._keep_best if is_traced else self._keep_best_in_memory)(task, path)
            case FreshSplitTask() | AllImagesTask():
                yield from self._keep_last(task)
            case SeedGroup():
                yield from self._train_together(task)
        give_back_memory(self.engine)

    def _keep_best(self, task: SearchTask | LongerTask, path: Path) -> Iterator[EpochResult | Preparing]:
        """Score every epoch, and save the weights whenever the score is the best so far."""
        data, results = yield from self._train(task)
        best: float | None = None
        for result in results:
            if is_better(value_of(result), best):
                best = value_of(result)
                self._save(task, data, result, path)
            yield result

    def _keep_best_in_memory(self, task: SearchTask | LongerTask, path: Path) -> Iterator[EpochResult | Preparing]:
        """As `_keep_best`, but the best weights are saved after the last epoch, and checked if they may be kept.

        A backbone's weights take longer to save than an epoch of its head takes to train. The check compares the whole
        network with the features that it was trained on. Raises BackboneError if they disagree.
        """
        backbones = self._open_backbones()
        network, data = yield from self._open_backbone(task)
        best: EpochResult | None = None
        for result in backbones.train(task.candidate, network, data, seed=task.seed, scores_all=True):
            if best is None or is_better(value_of(result), value_of(best)):
                assert result.weights is not None
                best = replace(result, weights={name: value.clone() for name, value in result.weights.items()})
            if result.epoch == task.candidate.recipe.epochs:
                rank = rank_key(value_of(best), task.number)
                if isinstance(data, FeatureData) and self._may_be_kept(task, rank):
                    assert best.weights is not None
                    backbones.check(self._checkpoint(task, data, best, best.weights), network, data)
                self._save(task, data, best, path)
                self._complete.append(rank)
            yield result

    def _may_be_kept(self, task: SearchTask | LongerTask, rank: tuple[float, int]) -> bool:
        """Whether a complete trial may be among those that keep their checkpoints, as far as this runner knows."""
        return isinstance(task, LongerTask) or sum(one < rank for one in self._complete) < NUM_KEPT

    def _keep_last(self, task: FreshSplitTask | AllImagesTask) -> Iterator[EpochResult | Preparing]:
        """Score only the last epoch, since the search's own split is not used."""
        data, results = yield from self._train(task, scores_all=False)
        for result in results:
            self._save_last(task, data, result)
            yield result

    def _train(
        self, task: SingleTask, *, scores_all: bool = True
    ) -> Generator[Preparing, None, tuple[TrainingData, Iterator[EpochResult]]]:
        """Open the data of a task, and return it with the epochs of its training; yield how far its features are."""
        candidate = task.candidate
        if isinstance(candidate.architecture, Architecture):
            data: TrainingData = self._open(task)
            return data, train(candidate, data, engine=self.engine, seed=task.seed, scores_all=scores_all)
        backbones = self._open_backbones()
        network, data = yield from self._open_backbone(task)
        return data, backbones.train(candidate, network, data, seed=task.seed, scores_all=scores_all)

    def _open_backbone(self, task: SingleTask) -> Generator[Preparing, None, tuple[SplitNetwork, TrainingData]]:
        """Build the network of a task with a backbone, and open the data that it is trained on."""
        backbones, candidate = self._open_backbones(), task.candidate
        network = backbones.network(candidate, seed=task.seed)

        def open_with(report: Report) -> TrainingData:
            def split_of(dataset: ImageDataset) -> Split:
                return self._split(dataset, task)

            reporting = replace(backbones, report=report)
            reporting.train_head_first(candidate, network, split_of, seed=task.seed)
            return reporting.open(candidate, network, split_of)

        return network, (yield from in_turns(open_with, seconds=self.progress_seconds))

    def _open_backbones(self) -> BackboneData:
        if not self._backbones:
            assert self.decoded is not None
            prepare_process(self.engine)
            self._backbones.append(BackboneData(self.decoded, self.engine, self.image_bytes, self.reading))
        return self._backbones[0]

    def _train_together(self, group: SeedGroup) -> Iterator[EpochResult]:
        """Train several seeds of one candidate in the same steps, each as it would be trained alone."""
        datas, seeds = [self._open(task) for task in group.tasks], [task.seed for task in group.tasks]
        for results in train_together(group.candidate, datas, engine=self.engine, seeds=seeds, scores_all=False):
            for result in results:
                self._save_last(group.tasks[result.seed_index], datas[result.seed_index], result)
                yield result

    def _save_last(self, task: FreshSplitTask | AllImagesTask, data: TrainingData, result: EpochResult) -> None:
        if isinstance(task, AllImagesTask) and result.epoch == task.candidate.recipe.epochs:
            self._save(task, data, result, task.output)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": {}, "_backbones": [], "_complete": []}

    def _open(self, task: SingleTask) -> TrainingData:
        """Open the images with the split of the task; all data sets in memory share one mapped file."""
        key = _split_key(task)
        if key not in self._opened:
            prepare_process(self.engine)
            dataset = load_cached(self.dataset_folder)
            split = self._split(dataset, task)
            known = self.statistics if isinstance(task, SearchTask | LongerTask) else None
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

    def _split(self, dataset: ImageDataset, task: SingleTask) -> Split:
        own = split_development(dataset, seed=self.split_seed)
        match task:
            case SearchTask() | LongerTask():
                return own
            case AllImagesTask():
                everything = torch.arange(len(dataset.labels_N))
                return Split(everything, everything[:0])
            case FreshSplitTask():
                return fresh_split(dataset, seed=task.split_seed, num_validation=len(own.validation_indices_N))

    def _save(
        self, task: SearchTask | LongerTask | AllImagesTask, data: TrainingData, result: EpochResult, path: Path
    ) -> None:
        assert result.weights is not None
        save_checkpoint(self._checkpoint(task, data, result, result.weights), path)

    def _checkpoint(
        self,
        task: SearchTask | LongerTask | AllImagesTask,
        data: TrainingData,
        result: EpochResult,
        weights: Mapping[str, Tensor],
    ) -> Checkpoint:
        architecture = task.candidate.architecture
        input_spec = architecture.input
        scores = {"validation_accuracy": result.validation_accuracy, "validation_loss": result.validation_loss}
        if isinstance(task, AllImagesTask):
            scores = {}
        is_of_timm = isinstance(architecture, BackboneNetwork) and is_timm(architecture.backbone)
        return Checkpoint(
            candidate=task.candidate,
            weights=weights,
            preprocessing=preprocessing_of(architecture, self.reading)
            if isinstance(architecture, BackboneNetwork)
            else Preprocessing(
                channels=input_spec.channels,
                height=input_spec.height,
                width=input_spec.width,
                mean=data.mean,
                std=data.std,
                reading=self.reading,
                interpolation=self.resizing.interpolation,
                crop_fraction=self.resizing.crop_fraction,
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
                "split_seed": self.split_seed,
            },
            versions=package_versions("timm") if is_of_timm else package_versions(),
        )


def _split_key(task: SingleTask) -> tuple[str, int]:
    """Return a key that is different for different splits."""
    match task:
        case SearchTask() | LongerTask():
            return "study", 0
        case FreshSplitTask():
            return "fresh", task.split_seed
        case AllImagesTask():
            return "none", 0
