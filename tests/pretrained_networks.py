"""Pretrained networks for tests: random weights made on the spot, and digits decoded for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.backbones import build_backbone
from tuner.architecture.spec import Head, InputSpec
from tuner.data.dataset import DataSpec
from tuner.data.development_part import load_development
from tuner.data.image_rule import spec_for
from tuner.data.training_data import TrainingData
from tuner.pretrained.weights import find_weights
from tuner.search.backbone_data import DecodedFolders, preprocessing_of
from tuner.search.image_trainer import ImageTrainer
from tuner.search.tasks import SearchTask
from tuner.training.candidate import Candidate, Recipe, resolve_candidate
from tuner.training.engine import Engine

NAME, SIDE = "shufflenet_v2_x0_5", 32
NUM_STAGES = 5


@dataclass(frozen=True)
class Pretrained:
    """Weights of NAME, found for a study, and the digest that identifies them. file: as a user gives it."""

    file: Path
    digest: str
    cache_dir: Path

    def network(self, trained_stages: int = 0, **others: Any) -> BackboneNetwork:
        """A network over digits."""
        head = others.pop("head", Head(pooling="average"))
        return BackboneNetwork(InputSpec(3, SIDE, SIDE, 10), NAME, self.digest, trained_stages, head=head, **others)

    def candidate(
        self, trained_stages: int = 0, *, views: int = 0, head: Head | None = None, **recipe: Any
    ) -> Candidate:
        """A resolved candidate that trains for two epochs, if the recipe does not say otherwise."""
        network = self.network(trained_stages, views=views, **({} if head is None else {"head": head}))
        given = {"optimizer": "adamw", "learning_rate": 3e-3, "epochs": 2, "batch_size": 64, **recipe}
        return resolve_candidate(Candidate(network, Recipe(**given)))

    def trainer(self, folder: Path, **others: Any) -> ImageTrainer:
        """A trainer of a study of digits."""
        spec = DataSpec("digits", folder / "data", self.cache_dir)
        dataset = load_development(spec)
        preprocessing = preprocessing_of(self.network(), dataset.reading)
        decoded = DecodedFolders(
            {preprocessing: load_development(spec_for(spec, preprocessing)).folder}, self.cache_dir
        )
        return ImageTrainer(dataset.folder, "study", folder / "study", 0, Engine("cpu"), decoded=decoded, **others)


def make_pretrained(folder: Path) -> Pretrained:
    """Make weights as a user would give them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state: dict[str, Tensor] = build_backbone(NAME).model.state_dict()
    # A fresh network has running variances of 1, with which its outputs would hardly differ between images.
    file, cache_dir = folder / "weights.pth", folder / "cache"
    torch.save(state, file)
    (found,), _ = find_weights([NAME], {NAME: file}, cache_dir=cache_dir)
    return Pretrained(file, found.digest, cache_dir)


def opened_data(trainer: ImageTrainer, task: SearchTask) -> TrainingData:
    """What a task with a backbone is trained on."""
    opening = trainer._open_backbone(task)
    while True:
        try:
            next(opening)
        except StopIteration as end:
            _, data = end.value
            return data
