"""Train the tail of a pretrained network on the features of its frozen stages, or the whole network on images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from tuner.architecture.backbone_modules import SplitNetwork, split_network
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.factory import initialise
from tuner.data.training_data import TrainingData
from tuner.training.candidate import Candidate, Recipe, resolve_candidate
from tuner.training.engine import Engine, tail_engine
from tuner.training.loop import train
from tuner.training.results import EpochResult
from tuner.training.seeds import derive_seed
from tuner.training.step import place

HEAD_RECIPE = Recipe(
    optimizer="adamw", learning_rate=3e-3, schedule="one_cycle", batch_size=32, epochs=10, weight_decay=1e-2
)
"""How the head is trained alone before stages are trained with it."""


class Frozen(nn.Sequential):
    """Frozen stages in front of a tail: always in eval mode, so that batch normalization keeps its statistics."""

    def train(self, mode: bool = True) -> Frozen:
        """Stay in eval mode."""
        return super().train(False)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Compute the features without gradients."""
        with torch.no_grad():
            features_NX: Tensor = super().forward(images_NCHW)  # type: ignore[no-untyped-call]
        return features_NX


class Tail(nn.Sequential):
    """What is trained: its batch normalization keeps the statistics of the pretrained weights, and learns its scale.

    Batches of a few images of another kind would spoil these statistics. Source: Keras, Transfer learning and
    fine-tuning, section "An important note about BatchNormalization".
    """

    def train(self, mode: bool = True) -> Tail:
        """Set the mode of everything but the batch normalizations, which stay in eval mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def pretrained_network(
    network: BackboneNetwork, weights: Mapping[str, Tensor], *, seed: int, engine: Engine
) -> SplitNetwork:
    """Build a placed network with the weights of its backbone, and with a head of random weights.

    weights: of the backbone without its classifier, with the library's names.
    """
    split = split_network(network)
    missing, unexpected = split.model.load_state_dict(dict(weights), strict=False)
    of_head = [name for name in split.model.state_dict() if name.startswith(f"{split.head_name}.")]
    assert not unexpected, f"weights that the network does not have: {unexpected}"
    assert set(missing) <= set(of_head), f"weights that are missing: {sorted(set(missing) - set(of_head))}"
    initialise(split.head, seed=derive_seed(seed, "weights"))
    place(split.model, engine)
    split.frozen.requires_grad_(False)
    split.frozen.eval()
    return split


def head_alone(candidate: Candidate) -> Candidate:
    """Return the resolved candidate that trains only the head of a backbone, on features without augmentation."""
    assert isinstance(candidate.architecture, BackboneNetwork)
    return resolve_candidate(Candidate(replace(candidate.architecture, trained_stages=0, views=0), HEAD_RECIPE))


def train_tail(
    candidate: Candidate,
    split: SplitNetwork,
    data: TrainingData,
    *,
    is_on_features: bool,
    engine: Engine,
    seed: int,
    scores_all: bool = True,
) -> Iterator[EpochResult]:
    """Train a resolved candidate, and yield a result with the weights of the whole network after each epoch.

    split: from `pretrained_network`. data: features of the frozen stages if `is_on_features`, otherwise images. Raises
    Diverged as `train` does.
    """
    model = Tail(*split.tail)
    if not is_on_features and len(split.frozen):
        model = Tail(Frozen(*split.frozen), *split.tail)
    for result in train(candidate, data, engine=tail_engine(engine), seed=seed, scores_all=scores_all, model=model):
        yield replace(result, weights=_whole_weights(split, result, model))


def _whole_weights(split: SplitNetwork, result: EpochResult, model: nn.Sequential) -> dict[str, Tensor]:
    """Return the state dict of the whole network with the tail's weights, which may be those of a moving average."""
    whole: dict[str, Tensor] = split.model.state_dict()
    assert result.weights is not None
    name_of = {id(tensor): name for name, tensor in split.model.state_dict(keep_vars=True).items()}
    own = model.state_dict(keep_vars=True)
    for name, value in result.weights.items():
        whole[name_of[id(own[name])]] = value
    return whole
