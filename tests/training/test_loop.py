import gc
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from real_data import candidate, small_digits
from torch import Tensor
from torch.nn import functional

from tuner.architecture.blocks import PlainBlock
from tuner.architecture.factory import build_model, initialise
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve
from tuner.data.resident import ResidentData
from tuner.training.engine import Engine
from tuner.training.loop import evaluate, evaluation_batch, train
from tuner.training.results import Diverged, EpochResult
from tuner.training.seeds import derive_seed
from tuner.training.step import place

ENGINE = Engine("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ResidentData:
    return small_digits(tmp_path_factory.mktemp("digits"))


def trained(data: ResidentData, *, seed: int = 0, **recipe: Any) -> tuple[list[EpochResult], dict[str, Tensor]]:
    """Every result, and a copy of the last weights."""
    results = list(train(candidate(**recipe), data, engine=ENGINE, seed=seed))
    assert results[-1].weights is not None
    return results, {name: weight.clone() for name, weight in results[-1].weights.items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": "adam"},
        {"optimizer": "adamw", "weight_decay": 1e-2, "schedule": "one_cycle", "learning_rate": 2e-2},
        {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "schedule": "cosine"},
        {"optimizer": "sgd", "learning_rate": 0.2, "momentum": 0.0},
        {"label_smoothing": 0.1},
        {"optimizer": "sgdw", "learning_rate": 0.05, "weight_decay": 1e-2, "schedule": "cosine", "warm_up": 0.2},
        {"optimizer": "muon", "learning_rate": 0.01, "weight_decay": 1e-2, "class_weights": "balanced"},
        {"ema": 0.99},
    ],
    ids=[
        "adam",
        "adamw one-cycle",
        "sgd cosine",
        "sgd without momentum",
        "label smoothing",
        "sgdw with warm-up",
        "muon with class weights",
        "moving average",
    ],
)
def test_a_network_learns_real_digits(data: ResidentData, recipe: dict[str, Any]) -> None:
    results, _ = trained(data, **recipe, epochs=6)
    assert [result.epoch for result in results] == [1, 2, 3, 4, 5, 6]
    assert results[-1].train_loss < 0.6 * results[0].train_loss
    assert max(result.validation_accuracy for result in results) > 0.9  # chance is 0.1
    assert all(result.seconds > 0 for result in results)


def test_one_seed_gives_the_same_weights_bit_for_bit_whatever_was_drawn_before(data: ResidentData) -> None:
    torch.manual_seed(1)
    results, weights = trained(data)
    torch.manual_seed(2)
    torch.rand(10)
    results_again, weights_again = trained(data)
    assert same(weights, weights_again)
    assert [replace(result, seconds=0.0) for result in results] == [
        replace(result, seconds=0.0) for result in results_again
    ]


def test_another_seed_gives_other_weights(data: ResidentData) -> None:
    assert not same(trained(data, epochs=1)[1], trained(data, epochs=1, seed=1)[1])


def test_two_trainings_that_take_turns_do_not_disturb_each_other(data: ResidentData) -> None:
    alone = [result.train_loss for result in trained(data, epochs=3)[0]]
    turns: list[Iterator[EpochResult]] = [train(candidate(epochs=3), data, engine=ENGINE, seed=seed) for seed in (0, 5)]
    together = [result.train_loss for result, _ in zip(*turns, strict=True)]
    assert together == alone


def test_the_weights_of_a_result_are_those_that_had_its_score(data: ResidentData) -> None:
    for result in train(candidate(epochs=3), data, engine=ENGINE, seed=0):
        assert result.weights is not None
        model = build_model(candidate().architecture)
        model.load_state_dict(result.weights)
        place(model, ENGINE)
        loss, correct_N, _ = evaluate(model, data, engine=ENGINE)
        assert (loss, correct_N.mean()) == (result.validation_loss, result.validation_accuracy)


def test_nothing_is_trained_before_an_epoch_is_asked_for_and_after_the_last(data: ResidentData) -> None:
    epochs = train(candidate(epochs=3), data, engine=ENGINE, seed=0)
    first = next(epochs)
    assert first.weights is not None
    before = {name: weight.clone() for name, weight in first.weights.items()}
    epochs.close()  # type: ignore[attr-defined]
    assert same(before, first.weights)


@pytest.mark.parametrize(
    ("side", "out_channels", "on_gpu", "on_cpu"),
    [(8, 4, 2_048, 64), (32, 32, 2_048, 64), (32, 64, 1_024, 64), (64, 64, 256, 16), (224, 8, 41, 10), (512, 64, 4, 1)],
)
def test_fewer_images_are_scored_at_once_that_are_larger_or_in_a_wider_network(
    side: int, out_channels: int, on_gpu: int, on_cpu: int
) -> None:
    architecture = resolve(Architecture(InputSpec(3, side, side, 10), (PlainBlock(out_channels),), Head()))
    assert evaluation_batch(torch.device("cuda"), architecture) == on_gpu
    assert evaluation_batch(torch.device("cpu"), architecture) == on_cpu


def test_evaluation_is_mean_cross_entropy_and_accuracy_over_the_validation_part(data: ResidentData) -> None:
    model = build_model(candidate().architecture)
    initialise(model, seed=3)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    images_NCHW = (data.images_NCHW[data.validation_indices_N] / 255 - mean) / std
    labels_N = data.labels_N[data.validation_indices_N]
    loss, correct_N, _ = evaluate(model, data, engine=ENGINE)
    with torch.no_grad():
        logits_NK = model.eval()(images_NCHW)
    assert loss == pytest.approx(functional.cross_entropy(logits_NK, labels_N).item(), rel=1e-4)
    assert correct_N.tolist() == (logits_NK.argmax(1) == labels_N).tolist()


def tf32_is_allowed() -> tuple[bool, bool]:
    """In matrix products, and in convolutions."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def allow_tf32(products: bool, convolutions: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions


@pytest.mark.parametrize("blocks", ["layers", "fused"])
def test_scores_are_in_fp32_where_training_is_allowed_tf32(
    data: ResidentData, blocks: Literal["layers", "fused"]
) -> None:
    """Only a GPU computes in it, but the process is told everywhere, and a module sees what holds while it scores."""
    before = tf32_is_allowed()
    seen = []
    model = build_model(candidate().architecture)
    for layer in model:
        layer.register_forward_pre_hook(lambda *_: seen.append(tf32_is_allowed()))
    allow_tf32(True, True)
    try:
        evaluate(model, data, engine=Engine("cpu", blocks=blocks))
        afterwards = tf32_is_allowed()
    finally:
        allow_tf32(*before)
    assert set(seen) == {(False, False)}
    assert afterwards == (True, True)


@pytest.mark.slow
def test_scoring_keeps_nothing_of_a_batch_while_the_next_is_scored(data: ResidentData) -> None:
    """Small blocks that are kept would fill gaps that feature maps leave, and the heap would grow with every batch."""
    counts = []

    class Watched(ResidentData):
        def validation_batches(self, *args: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
            for batch in super().validation_batches(*args, **options):
                yield batch
                counts.append(sum(type(value) is Tensor for value in gc.get_objects()))

    watched = Watched(**{field.name: getattr(data, field.name) for field in fields(data)})
    evaluate(build_model(candidate().architecture), watched, engine=ENGINE, batch_size=5)
    assert len(counts) == 20
    assert len(set(counts[:-1])) == 1


def test_the_confusion_matrix_counts_every_validation_image_once_by_its_class(data: ResidentData) -> None:
    *earlier, last = train(candidate(epochs=2), data, engine=ENGINE, seed=0)
    confusion = torch.tensor(last.confusion)
    labels_N = data.labels_N[data.validation_indices_N]
    assert confusion.sum(1).tolist() == torch.bincount(labels_N, minlength=10).tolist()
    assert confusion.diagonal().sum().item() / len(labels_N) == last.validation_accuracy
    assert [(result.latency_ms, result.correct_N) for result in earlier] == [(None, None)]
    assert last.correct_N is not None
    assert last.correct_N.shape == labels_N.shape
    assert last.correct_N.mean() == last.validation_accuracy
    assert last.latency_ms is not None
    assert last.latency_ms > 0


def test_more_classes_than_anybody_reads_have_no_confusion_matrix(
    data: ResidentData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.training.loop.MAX_CONFUSION_CLASSES", 9)
    model = build_model(candidate().architecture)
    assert evaluate(model, data, engine=ENGINE)[2] is None


def test_a_step_of_one_batch_is_the_step_torch_takes(data: ResidentData) -> None:
    """One epoch of one batch, no dropout, plain SGD: weights minus rate times gradient, worked out apart."""
    recipe = candidate(optimizer="sgd", momentum=0.0, learning_rate=0.1, weight_decay=0.01, batch_size=600, epochs=1)
    blocks = tuple(replace(block, dropout=0.0) for block in recipe.architecture.blocks)
    plain = replace(recipe, architecture=replace(recipe.architecture, blocks=blocks))
    (result,) = train(plain, data, engine=Engine("cpu", channels_last=False), seed=0)

    model = build_model(plain.architecture).train()
    initialise(model, seed=derive_seed(0, "weights"))
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    images_NCHW = (data.images_NCHW[data.train_indices_N] / 255 - mean) / std
    loss = functional.cross_entropy(model(images_NCHW), data.labels_N[data.train_indices_N])
    loss.backward()
    assert result.weights is not None
    assert result.train_loss == pytest.approx(loss.item(), rel=1e-4)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        expected = parameter - 0.1 * (parameter.grad + 0.01 * parameter)
        assert torch.allclose(result.weights[name], expected, atol=1e-5), name


def test_a_loss_that_is_not_finite_ends_the_training_and_says_so(data: ResidentData) -> None:
    blown_up = candidate(optimizer="sgd", learning_rate=100.0)
    blocks = tuple(replace(block, normalization="none", activation="elu") for block in blown_up.architecture.blocks)
    blown_up = replace(blown_up, architecture=replace(blown_up.architecture, blocks=blocks))
    with pytest.raises(Diverged, match=r"^the (training|validation) loss of epoch \d+ is (nan|inf)$"):
        list(train(blown_up, data, engine=ENGINE, seed=0))


def test_a_last_step_that_ruins_the_weights_is_noticed_where_nothing_is_scored(data: ResidentData) -> None:
    everything = torch.arange(len(data.labels_N))
    whole = replace(data, train_indices_N=everything, validation_indices_N=everything[:0])
    one_step = candidate(optimizer="sgd", learning_rate=3e38, weight_decay=100.0, batch_size=len(everything), epochs=1)
    with pytest.raises(Diverged, match=r"^the weights after epoch 1 are not finite$"):
        list(train(one_step, whole, engine=ENGINE, seed=0))


def test_a_last_batch_of_one_image_trains_with_batch_normalization_over_one_pixel(tmp_path: Path) -> None:
    data = small_digits(tmp_path, num_train=33)
    tiny = candidate(batch_size=32, epochs=1)
    blocks = tuple(replace(block, stride=8, pooling="none") for block in tiny.architecture.blocks)
    (result,) = train(
        replace(tiny, architecture=replace(tiny.architecture, blocks=blocks)),
        data,
        engine=ENGINE,
        seed=0,
    )
    assert result.train_loss > 0
