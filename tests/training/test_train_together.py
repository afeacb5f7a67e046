"""Seeds that train together, against the same seeds trained one after another by the plain engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from real_data import candidate, small_digits
from torch import Tensor

from tests.strategies import SMALL, candidates_of
from tests.training.measurements import FUSED
from tuner.architecture.blocks import PlainBlock, ResidualBlock
from tuner.architecture.factory import build_model
from tuner.architecture.trace import resolve
from tuner.data.resident import ResidentData
from tuner.training.candidate import Candidate
from tuner.training.engine import Engine
from tuner.training.loop import evaluate, train
from tuner.training.results import EpochResult
from tuner.training.step import place
from tuner.training.train_together import train_together

PLAIN = Engine("cpu")
SEEDS = (3, 1, 4)


def without_dropout(candidate: Candidate) -> Candidate:
    architecture = candidate.architecture
    blocks = tuple(
        replace(block, dropout=0.0) if isinstance(block, PlainBlock | ResidualBlock) else block
        for block in architecture.blocks
    )
    architecture = replace(architecture, blocks=blocks, head=replace(architecture.head, dropout=0.0))
    return replace(candidate, architecture=resolve(architecture))


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> list[ResidentData]:
    """The small digits in three splits of the same sizes, each with another mean; the last batch of 32 is smaller."""
    data = small_digits(tmp_path_factory.mktemp("digits"))
    rows_N = torch.cat([data.train_indices_N, data.validation_indices_N])
    parts = []
    for shift in range(len(SEEDS)):
        rolled_N = rows_N.roll(200 * shift)
        parts.append(
            replace(
                data, train_indices_N=rolled_N[:600], validation_indices_N=rolled_N[600:], mean=(0.3 + shift / 100,)
            )
        )
    return parts


def copied(results: Iterator[list[EpochResult]]) -> list[list[EpochResult]]:
    """All epochs, each result with weights of its own."""
    return [[with_own_weights(result) for result in epoch] for epoch in results]


def with_own_weights(result: EpochResult) -> EpochResult:
    assert result.weights is not None
    return replace(result, weights={name: weight.clone() for name, weight in result.weights.items()})


def together(candidate: Candidate, datas: Sequence[ResidentData], *, engine: Engine = PLAIN) -> list[list[EpochResult]]:
    return copied(train_together(candidate, datas, engine=engine, seeds=SEEDS[: len(datas)]))


def alone(candidate: Candidate, data: ResidentData, seed: int) -> list[EpochResult]:
    return [with_own_weights(result) for result in train(candidate, data, engine=PLAIN, seed=seed)]


def distance(one: dict[str, Tensor] | None, other: dict[str, Tensor] | None) -> float:
    """Of two state dicts, as a share of the length of the other."""
    assert one is not None
    assert other is not None
    assert one.keys() == other.keys()
    apart = sum(float((one[name] - other[name]).double().square().sum()) for name in one)
    return (apart / sum(float(weight.double().square().sum()) for weight in other.values())) ** 0.5


def same(one: EpochResult, other: EpochResult) -> bool:
    return replace(one, seconds=0.0) == replace(other, seconds=0.0) and distance(one.weights, other.weights) == 0


RECIPES: list[dict[str, Any]] = [
    {"optimizer": "adam", "weight_decay": 1e-3, "label_smoothing": 0.1},
    {"optimizer": "adamw", "weight_decay": 1e-2, "schedule": "one_cycle"},
    {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "schedule": "cosine", "weight_decay": 1e-3},
    {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.0},
    {
        "optimizer": "sgdw",
        "learning_rate": 0.05,
        "schedule": "cosine",
        "weight_decay": 1e-2,
        "warm_up": 0.1,
        "ema": 0.9,
    },
    {"optimizer": "adamw", "weight_decay": 1e-2, "class_weights": "balanced", "label_smoothing": 0.1, "ema": 0.99},
    {"flip": "horizontal", "translate": 0.125, "cutout": 0.25, "brightness": 0.2, "contrast": 0.2},
    {"mixup": 0.4, "cutmix": 1.0, "label_smoothing": 0.1},
]


@pytest.mark.parametrize("engine", [PLAIN, FUSED], ids=["plain", "fused"])
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.get("optimizer", "-".join(recipe)))
def test_seeds_on_splits_of_their_own_learn_together_what_each_learns_alone(
    splits: list[ResidentData], recipe: dict[str, Any], engine: Engine
) -> None:
    plain = without_dropout(candidate(**recipe, epochs=2))
    epochs = together(plain, splits, engine=engine)
    assert [[result.seed_index for result in epoch] for epoch in epochs] == [[0, 1, 2]] * 2
    for number, (data, seed) in enumerate(zip(splits, SEEDS, strict=True)):
        for epoch, expected in zip(epochs, alone(plain, data, seed), strict=True):
            result = epoch[number]
            assert result.epoch == expected.epoch
            assert result.train_loss == pytest.approx(expected.train_loss, abs=2e-3)
            assert result.validation_loss == pytest.approx(expected.validation_loss, abs=5e-3)
            assert result.validation_accuracy == pytest.approx(expected.validation_accuracy, abs=0.01)
            assert distance(result.weights, expected.weights) < 1e-2


def noise(candidate: Candidate, *, num_train: int, seed: int) -> ResidentData:
    """Images of the candidate's shape, a few more of them to validate."""
    input_spec = candidate.architecture.input
    generator = torch.Generator().manual_seed(seed)
    size = (num_train + 5, *input_spec.shape)
    return ResidentData(
        name="noise",
        digest="",
        class_names=tuple(map(str, range(input_spec.num_classes))),
        images_NCHW=torch.randint(256, size, generator=generator, dtype=torch.uint8),
        labels_N=torch.randint(input_spec.num_classes, size[:1], generator=generator),
        train_indices_N=torch.arange(num_train),
        validation_indices_N=torch.arange(num_train, num_train + 5),
        mean=(0.5,) * input_spec.channels,
        std=(0.3,) * input_spec.channels,
    )


PLAIN_SPACES = [space for space in SMALL.values() if space.block is not None]
"""Deeper networks, with normalization over a few values, make much of rounding within some steps; one step of theirs is
compared in tests/architecture/test_stacked.py."""


@settings(max_examples=40)
@given(
    candidate=st.sampled_from(PLAIN_SPACES).flatmap(lambda space: candidates_of(space, max_side=10)),
    num_train=st.integers(20, 70),
)
def test_whatever_is_sampled_learns_together_what_it_learns_alone(candidate: Candidate, num_train: int) -> None:
    # SGD, since Adam takes a step of the same length where a gradient is nothing but rounding.
    rate = min(candidate.recipe.learning_rate, 1e-3)
    recipe = replace(candidate.recipe, epochs=1, learning_rate=rate, optimizer="sgd")
    candidate = without_dropout(replace(candidate, recipe=recipe))
    datas = [noise(candidate, num_train=num_train, seed=number) for number in range(2)]
    ((first, second),) = together(candidate, datas)
    for result, data, seed in zip((first, second), datas, SEEDS, strict=False):
        (expected,) = alone(candidate, data, seed)
        # Rounding grows over the steps, the more where batch normalization sees few values.
        assert result.train_loss == pytest.approx(expected.train_loss, rel=3e-3)
        assert distance(result.weights, expected.weights) < 1e-3


def test_each_result_carries_the_weights_that_had_its_score_and_no_seed_has_anothers(
    splits: list[ResidentData],
) -> None:
    for epoch in train_together(candidate(epochs=2), splits, engine=FUSED, seeds=SEEDS):
        for result in epoch:
            assert result.weights is not None
            model = build_model(candidate().architecture)
            model.load_state_dict(result.weights)
            place(model, FUSED)
            scored = evaluate(model, splits[result.seed_index], engine=FUSED)
            assert (scored[0], scored[1].mean()) == (result.validation_loss, result.validation_accuracy)
        assert distance(epoch[0].weights, epoch[1].weights) > 0.1


@pytest.mark.parametrize("engine", [PLAIN, FUSED], ids=["plain", "fused"])
def test_with_dropout_every_seed_learns_the_digits(splits: list[ResidentData], engine: Engine) -> None:
    epochs = together(candidate(epochs=5), splits, engine=engine)
    assert all(result.validation_accuracy > 0.9 for result in epochs[-1])  # chance is 0.1
    assert [result.latency_ms is not None for epoch in epochs for result in epoch] == [False] * 12 + [True] * 3


def test_the_same_seeds_together_give_the_same_bit_for_bit_whatever_was_drawn_before(
    splits: list[ResidentData],
) -> None:
    torch.manual_seed(1)
    once = together(candidate(epochs=2), splits)
    torch.rand(10)
    again = together(candidate(epochs=2), splits)
    assert all(same(one, other) for epochs in zip(once, again, strict=True) for one, other in zip(*epochs, strict=True))


def test_a_seed_whose_loss_is_not_finite_has_no_more_results_and_the_others_are_as_without_it(
    splits: list[ResidentData],
) -> None:
    plain = without_dropout(candidate(epochs=2))
    stray = replace(splits[1], std=(1e-42,))
    epochs = together(plain, [splits[0], stray, splits[2]])
    assert [[result.seed_index for result in epoch] for epoch in epochs] == [[0, 2]] * 2
    for epoch, expected in zip(epochs, together(plain, splits), strict=True):
        assert same(epoch[0], expected[0])
        assert same(epoch[1], expected[2])


def test_when_no_seed_is_left_the_training_ends(splits: list[ResidentData]) -> None:
    strays = [replace(data, std=(1e-42,)) for data in splits]
    assert together(candidate(epochs=3), strays) == [[]]


def test_only_the_last_epoch_is_scored_when_that_is_asked_for(splits: list[ResidentData]) -> None:
    first, last = train_together(candidate(epochs=2), splits, engine=PLAIN, seeds=SEEDS, scores_all=False)
    assert not any(result.validation_accuracy >= 0 for result in first)
    assert all(result.validation_accuracy >= 0 for result in last)


def test_seeds_with_different_numbers_of_images_are_refused(splits: list[ResidentData]) -> None:
    shorter = replace(splits[1], train_indices_N=splits[1].train_indices_N[1:])
    with pytest.raises(ValueError, match="equally many images"):
        together(candidate(), [splits[0], shorter])
