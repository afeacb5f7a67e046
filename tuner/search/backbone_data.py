"""BackboneData: what a runner needs to train networks with pretrained weights, opened once and kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from tuner.architecture.backbone_modules import SplitNetwork
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.backbones import input_of
from tuner.data.dataset import ImageDataset, Report
from tuner.data.development_part import load_cached
from tuner.data.feature_data import FeatureData
from tuner.data.images import Preprocessing
from tuner.data.reading import DEFAULT, Reading
from tuner.data.splits import Split
from tuner.data.training_data import TrainingData, open_data
from tuner.errors import BackboneError
from tuner.pretrained.features import FEATURES_BYTES, LARGEST_SHARE, FeatureKey, cached_features, delete_features
from tuner.pretrained.weights import load_weights
from tuner.training.augmentation import augmentation_of, draw_augmentation
from tuner.training.candidate import Candidate
from tuner.training.checkpoint import Checkpoint
from tuner.training.engine import Engine
from tuner.training.latency import measure_latency
from tuner.training.process_settings import exact_arithmetic
from tuner.training.results import EpochResult
from tuner.training.tail import head_alone, pretrained_network, train_tail
from tuner.training.whole_network import disagreement

VIEW_SEED = 0
"""Random seed of the augmented views. It is the same for all trials, so that they share the features of a view."""


@dataclass(frozen=True)
class DecodedFolders:
    """The development part of a study, decoded for its backbones.

    folders: cache folder by preprocessing. cache_dir: folder of weights and features.
    """

    folders: Mapping[Preprocessing, Path]
    cache_dir: Path


@dataclass(frozen=True)
class BackboneData:
    """Opens images and features for candidates with a backbone, and keeps what several candidates share.

    report: is called while features are computed.
    """

    decoded: DecodedFolders
    engine: Engine
    image_bytes: int
    reading: Reading = DEFAULT
    report: Report | None = None
    _datasets: dict[Path, ImageDataset] = field(default_factory=dict)
    _weights: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    _features: dict[FeatureKey, Tensor | None] = field(default_factory=dict)
    _latencies: dict[str, float] = field(default_factory=dict)

    def network(self, candidate: Candidate, *, seed: int) -> SplitNetwork:
        """Build a candidate's network with its pretrained weights and a head of random weights."""
        network = _backbone_of(candidate)
        if network.weights not in self._weights:
            self._weights[network.weights] = load_weights(
                network.weights, self.decoded.cache_dir, backbone=network.backbone
            )
        return pretrained_network(network, self._weights[network.weights], seed=seed, engine=self.engine)

    def train_head_first(
        self, candidate: Candidate, network: SplitNetwork, split_of: Callable[[ImageDataset], Split], *, seed: int
    ) -> None:
        """Train the head alone on frozen features, if stages are to be trained after it.

        A random head would first spoil the stages behind it. Source: Kumar et al., Fine-Tuning can Distort Pretrained
        Features and Underperform Out-of-Distribution, 2022, section 3.4 (LP-FT).
        """
        if not _backbone_of(candidate).trained_stages:
            return
        alone = head_alone(candidate)
        frozen = self.network(alone, seed=seed)
        for result in self.train(alone, frozen, self.open(alone, frozen, split_of), seed=seed, scores_all=False):
            if self.report is not None:
                self.report("training the head", result.epoch, alone.recipe.epochs)
        network.head.load_state_dict(frozen.head.state_dict())

    def open(
        self, candidate: Candidate, network: SplitNetwork, split_of: Callable[[ImageDataset], Split]
    ) -> TrainingData:
        """Open the features of a candidate's frozen stages; its images if it has none, or if features are too large."""
        architecture = _backbone_of(candidate)
        preprocessing = preprocessing_of(architecture, self.reading)
        dataset = self._dataset(self.decoded.folders[preprocessing])
        split = split_of(dataset)
        views = self._views(candidate, network, dataset, preprocessing) if len(network.frozen) else None
        device = torch.device(self.engine.device)
        if views is None:
            return open_data(
                dataset,
                split,
                device=device,
                memory_bytes=self.image_bytes,
                statistics=(preprocessing.mean, preprocessing.std),
            )
        return FeatureData(
            name=dataset.name,
            digest=dataset.digest,
            class_names=dataset.class_names,
            views_NX=views,
            labels_N=dataset.labels_N,
            train_indices_N=split.train_indices_N,
            validation_indices_N=split.validation_indices_N,
            mean=preprocessing.mean,
            std=preprocessing.std,
            device=device,
        )

    def train(
        self, candidate: Candidate, network: SplitNetwork, data: TrainingData, *, seed: int, scores_all: bool
    ) -> Iterator[EpochResult]:
        """Train a candidate on its opened data, as `train` does."""
        for result in train_tail(
            candidate,
            network,
            data,
            is_on_features=isinstance(data, FeatureData),
            engine=self.engine,
            seed=seed,
            scores_all=scores_all,
        ):
            is_last = result.epoch == candidate.recipe.epochs
            yield replace(result, latency_ms=self._latency(candidate, network)) if is_last else result

    def check(self, checkpoint: Checkpoint, network: SplitNetwork, data: FeatureData) -> None:
        """Compare the whole network of a checkpoint with the features that it was trained on.

        network: the modules that were trained. Raises BackboneError if they disagree, and deletes the features, so that
        they are computed again.
        """
        candidate = checkpoint.candidate
        dataset = self._dataset(self.decoded.folders[checkpoint.preprocessing])
        reason = disagreement(checkpoint, data, dataset.images_NCHW, engine=self.engine)
        if not reason:
            return
        for key in self._keys(candidate, network, dataset):
            self._features.pop(key, None)
            delete_features(key, self.decoded.cache_dir)
        raise BackboneError(
            f"the whole network does not agree with the cached features of its frozen stages ({reason}): its features "
            "were deleted, and will be computed again for the next trial"
        )

    def _latency(self, candidate: Candidate, network: SplitNetwork) -> float:
        """Milliseconds of the whole network for one image, measured once for a backbone and an image size."""
        architecture = _backbone_of(candidate)
        key = f"{architecture.backbone} {architecture.input_shape}"
        if key not in self._latencies:
            self._latencies[key] = measure_latency(network.model, architecture.input_shape, engine=self.engine)
        return self._latencies[key]

    def _dataset(self, folder: Path) -> ImageDataset:
        if folder not in self._datasets:
            self._datasets[folder] = load_cached(folder)
        return self._datasets[folder]

    def _views(
        self, candidate: Candidate, network: SplitNetwork, dataset: ImageDataset, preprocessing: Preprocessing
    ) -> list[Tensor] | None:
        """Features of the images and of each augmented view; None if they are too large to be kept."""
        keys = self._keys(candidate, network, dataset)
        found = []
        for view, key in enumerate(keys):
            if key not in self._features:
                self._make_room()
                drawn = draw_augmentation(
                    candidate, engine=self.engine, seed=VIEW_SEED, epoch=view, num_images=len(dataset.labels_N)
                )
                with exact_arithmetic():
                    self._features[key] = cached_features(
                        key,
                        dataset,
                        network.frozen,
                        mean=preprocessing.mean,
                        std=preprocessing.std,
                        device=torch.device(self.engine.device),
                        cache_dir=self.decoded.cache_dir,
                        augmentation=drawn if view else None,
                        num_sets=len(keys),
                        report=_naming_view(self.report, view, len(keys) - 1) if view else self.report,
                    )
            features_NX = self._features[key]
            if features_NX is None:
                return None
            found.append(features_NX)
        return found

    def _keys(self, candidate: Candidate, network: SplitNetwork, dataset: ImageDataset) -> list[FeatureKey]:
        """The keys of the features of the images, and of those of each augmented view."""
        architecture = _backbone_of(candidate)
        keys = []
        for view in range(architecture.views + 1):
            augmentation = augmentation_of(candidate.recipe, seed=VIEW_SEED, epoch=view) if view else None
            keys.append(
                FeatureKey(
                    dataset.folder.name,
                    architecture.backbone,
                    architecture.weights,
                    len(network.frozen),
                    json.dumps(asdict(augmentation), sort_keys=True) if augmentation else "",
                )
            )
        return keys

    def _make_room(self) -> None:
        """Close the features of earlier candidates, since the disk keeps deleted files that are open."""
        mapped = [one for one in self._features.values() if one is not None]
        if sum(one.numel() * one.element_size() for one in mapped) > LARGEST_SHARE * FEATURES_BYTES:
            self._features.clear()


def _naming_view(report: Report | None, view: int, num_views: int) -> Report | None:
    """Report the progress of the features of one augmented view under a name that says which."""
    if report is None:
        return None
    return lambda what, done, total: report(f"{what} of view {view} of {num_views}", done, total)


def _backbone_of(candidate: Candidate) -> BackboneNetwork:
    assert isinstance(candidate.architecture, BackboneNetwork)
    return candidate.architecture


def preprocessing_of(network: BackboneNetwork, reading: Reading) -> Preprocessing:
    """Return how images become the input of a backbone: as its weights expect, except for its own size and crop."""
    own = input_of(network.backbone)
    channels, height, width = network.input_shape
    return Preprocessing(
        channels,
        height,
        width,
        own.mean,
        own.std,
        reading,
        interpolation=own.interpolation,
        crop_fraction=network.crop_fraction or own.crop_fraction,
    )
