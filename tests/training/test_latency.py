import torch

from tests.strategies import make_space
from tuner.architecture.factory import build_model
from tuner.architecture.spec import InputSpec
from tuner.space.sampling import candidate_from, first_params
from tuner.training.engine import Engine
from tuner.training.latency import measure_latency

SPACE = make_space(name="one", block={"normalization": "batch", "dropout": 0.2}, first=[{"block": [{}, {}]}])
ARCHITECTURE = candidate_from(first_params(SPACE)[0], SPACE, InputSpec(1, 8, 8, 10), epochs=1).architecture


def test_measuring_latency_changes_neither_the_model_nor_the_random_numbers() -> None:
    model = build_model(ARCHITECTURE).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert measure_latency(model, (1, 8, 8), engine=Engine("cpu")) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_in_eval_mode_stays_in_it() -> None:
    model = build_model(ARCHITECTURE).eval()
    measure_latency(model, (1, 8, 8), engine=Engine("cpu", channels_last=True))
    assert not any(module.training for module in model.modules())


def test_a_slow_model_is_measured_less_often() -> None:
    class Slow(torch.nn.Module):
        num_passes = 0

        def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
            self.num_passes += 1
            torch.ones(1500, 1500) @ torch.ones(1500, 1500)
            return images_NCHW

    model = Slow()
    assert measure_latency(model, (1, 8, 8), engine=Engine("cpu")) > 0
    assert model.num_passes >= 4
