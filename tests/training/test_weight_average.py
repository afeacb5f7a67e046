"""The moving average of weights, against its formula and in training."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from real_data import candidate, small_digits
from torch import nn

from tests.training.measurements import FUSED
from tuner.architecture.factory import build_model
from tuner.data.resident import ResidentData
from tuner.training.engine import Engine
from tuner.training.loop import evaluate, fresh_model, train
from tuner.training.results import Diverged
from tuner.training.step import place
from tuner.training.weight_average import WeightAverage


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ResidentData:
    return small_digits(tmp_path_factory.mktemp("digits"))


@pytest.mark.parametrize("engine", [Engine("cpu"), FUSED], ids=["plain", "fused"])
def test_the_average_follows_its_formula_for_weights_and_running_statistics(engine: Engine) -> None:
    model = fresh_model(candidate().architecture, 0, engine=engine)
    average = WeightAverage(model, decay=0.3)
    expected = {name: value.double() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for step in range(6):
        decay = min(0.3, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if not value.is_floating_point():
                value += 1
                expected[name] = value.double()
                continue
            value.copy_(torch.randn(value.shape, generator=generator))
            expected[name] = decay * expected[name] + (1 - decay) * value
        average.follow(step)
    found = average.model.state_dict()
    assert any("running_var" in name for name in found)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-5, atol=1e-6, msg=name)


def test_the_model_is_not_changed_by_its_average() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    average = WeightAverage(model, decay=0.9)
    nn.init.ones_(model[0].weight)  # type: ignore[arg-type]
    average.follow(0)
    assert torch.equal(model[0].weight, torch.ones(2, 2))
    assert not torch.equal(average.model[0].weight, torch.ones(2, 2))


@pytest.mark.parametrize("engine", [Engine("cpu"), FUSED], ids=["plain", "fused"])
def test_scores_and_weights_of_a_result_are_those_of_the_average_and_training_is_as_without_it(
    data: ResidentData, engine: Engine
) -> None:
    averaged = train(candidate(epochs=2, ema=0.9), data, engine=engine, seed=0)
    for result, without in zip(averaged, train(candidate(epochs=2), data, engine=engine, seed=0), strict=True):
        assert result.weights is not None
        assert without.weights is not None
        assert result.train_loss == without.train_loss
        assert not any(
            torch.equal(value, without.weights[name]) for name, value in result.weights.items() if value.dim()
        )
        model = build_model(candidate().architecture)
        model.load_state_dict(result.weights)
        place(model, engine)
        loss, correct_N, _ = evaluate(model, data, engine=engine)
        assert (loss, correct_N.mean()) == (result.validation_loss, result.validation_accuracy)


def test_a_strong_average_scores_well_after_the_first_epoch(data: ResidentData) -> None:
    first = next(train(candidate(ema=0.9999, epochs=2), data, engine=Engine("cpu"), seed=0))
    assert first.validation_accuracy > 0.5  # of the initial weights, 0.9999 ** 19 would be left


def test_a_training_that_diverges_is_noticed_in_the_average(tmp_path: Path) -> None:
    data = small_digits(tmp_path)
    stray = replace(data, std=(1e-42,))
    with pytest.raises(Diverged):
        list(train(candidate(ema=0.9), stray, engine=Engine("cpu"), seed=0))
