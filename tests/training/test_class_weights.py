"""Class weights, against scikit-learn's formula and torch's weighted loss."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from real_data import candidate, small_digits
from torch.nn import functional

from tuner.architecture.factory import build_model, initialise
from tuner.data.resident import ResidentData
from tuner.training.class_weights import balanced_weights, class_weights_of
from tuner.training.engine import Engine
from tuner.training.loop import train
from tuner.training.seeds import derive_seed
from tuner.training.step import _mean_loss
from tuner.training.train_together import train_together

PLAIN = Engine("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ResidentData:
    """Digits of which the training part has many of some classes, few of others and none of 7."""
    whole = small_digits(tmp_path_factory.mktemp("digits"))
    labels_N = whole.labels_N[whole.train_indices_N]
    kept = [whole.train_indices_N[labels_N == digit][: 4 * digit + 8] for digit in range(10) if digit != 7]
    return replace(whole, train_indices_N=torch.cat(kept).sort().values)


def test_balanced_weights_are_those_of_scikit_learn(data: ResidentData) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = data.labels_N[data.train_indices_N].numpy()
    there = np.unique(labels)
    expected = torch.zeros(10)
    # scikit-learn counts only the classes that there are, so its weights are larger by 10 / 9 here.
    expected[torch.from_numpy(there)] = (
        torch.tensor(compute_class_weight("balanced", classes=there, y=labels)).float() * 9 / 10
    )
    torch.testing.assert_close(balanced_weights(data), expected)
    assert balanced_weights(data)[7] == 0
    assert class_weights_of(candidate().recipe, data) is None


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_loss_of_a_step_is_torchs_weighted_loss_and_the_validation_loss_has_no_weights(
    data: ResidentData, label_smoothing: float
) -> None:
    recipe = candidate(
        class_weights="balanced", batch_size=600, epochs=1, label_smoothing=label_smoothing, learning_rate=1e-30
    )
    blocks = tuple(replace(block, dropout=0.0) for block in recipe.architecture.blocks)
    plain = replace(recipe, architecture=replace(recipe.architecture, blocks=blocks))
    (result,) = train(plain, data, engine=PLAIN, seed=0)

    model = build_model(plain.architecture).train()
    initialise(model, seed=derive_seed(0, "weights"))
    images_NCHW = (data.images_NCHW / 255 - data.mean[0]) / data.std[0]
    rows_N = data.train_indices_N
    loss = functional.cross_entropy(
        model(images_NCHW[rows_N]),
        data.labels_N[rows_N],
        weight=balanced_weights(data),
        label_smoothing=label_smoothing,
    )
    assert result.train_loss == pytest.approx(loss.item(), rel=1e-4)
    rows_N = data.validation_indices_N
    unweighted = functional.cross_entropy(model.eval()(images_NCHW[rows_N]), data.labels_N[rows_N])
    assert result.validation_loss == pytest.approx(unweighted.item(), rel=1e-3)


def test_each_of_several_models_has_its_own_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(3, 20, 4, generator=generator), torch.randint(4, (3, 20), generator=generator)
    weights_MK = torch.rand(3, 4, generator=generator)
    losses_M = _mean_loss(logits, labels, label_smoothing=0.1, class_weights=weights_MK)
    for number in range(3):
        alone = _mean_loss(logits[number], labels[number], label_smoothing=0.1, class_weights=weights_MK[number])
        assert losses_M[number].item() == pytest.approx(alone.item(), rel=1e-6)


def test_seeds_that_train_together_are_weighted_by_their_own_images(tmp_path: Path, data: ResidentData) -> None:
    whole = small_digits(tmp_path, num_train=len(data.train_indices_N))
    recipe = candidate(class_weights="balanced", epochs=1, batch_size=600)
    ((first, second),) = train_together(recipe, [data, whole], engine=PLAIN, seeds=[0, 1])
    for result, one, seed in ((first, data, 0), (second, whole, 1)):
        (alone,) = train(recipe, one, engine=PLAIN, seed=seed)
        (unweighted,) = train(candidate(epochs=1, batch_size=600), one, engine=PLAIN, seed=seed)
        assert result.train_loss == pytest.approx(alone.train_loss, rel=2e-2)
        assert abs(result.train_loss - unweighted.train_loss) > 0
