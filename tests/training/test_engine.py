import gc
import json
import weakref
from typing import Any

import pytest
import torch

from tuner.errors import DeviceError
from tuner.formats import NewerFormatError
from tuner.training.candidate import Recipe
from tuner.training.device import choose_device
from tuner.training.engine import ENGINE_FORMAT, Engine
from tuner.training.optimizers import build_optimizer
from tuner.training.process_settings import give_back_memory, prepare_process


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_a_device_that_is_there_is_chosen(name: str) -> None:
    device = choose_device(name)
    assert torch.ones(1, device=device).item() == 1.0


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:3", "meta", "", "cpu cuda"])
def test_a_device_that_is_not_there_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(DeviceError, match="--device") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)


def test_an_engine_survives_json() -> None:
    engine = Engine("cpu", precision="bf16", channels_last=False, num_threads=3)
    assert engine.to_json()["format"] == ENGINE_FORMAT
    assert Engine.from_json(json.loads(json.dumps(engine.to_json()))) == engine


def test_a_stored_engine_without_a_format_is_of_the_first_and_without_a_field_trains_in_the_plain_way() -> None:
    assert Engine.from_json({"device": "cuda", "num_threads": 2}) == Engine("cuda", num_threads=2)


def test_an_engine_of_a_newer_format_or_with_a_field_of_a_newer_version_is_refused() -> None:
    with pytest.raises(NewerFormatError, match="format 2 of engines, and this version reads format 1"):
        Engine.from_json(Engine().to_json() | {"format": ENGINE_FORMAT + 1})
    with pytest.raises(TypeError, match="way_of_a_newer_version"):
        Engine.from_json(Engine().to_json() | {"way_of_a_newer_version": True})
    with pytest.raises(ValueError, match="the format of engines must be a whole number from 1, got 0"):
        Engine.from_json({"format": 0})


def test_a_cpu_runner_takes_the_threads_of_its_engine() -> None:
    prepare_process(Engine("cpu", num_threads=2))
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("recipe", "optimizer_class", "settings"),
    [
        (Recipe("adam", 0.01, weight_decay=0.1), torch.optim.Adam, {"lr": 0.01, "weight_decay": 0.1}),
        (Recipe("adamw", 0.01, weight_decay=0.1), torch.optim.AdamW, {"lr": 0.01, "weight_decay": 0.1}),
        (Recipe("sgd", 0.01, momentum=0.8), torch.optim.SGD, {"lr": 0.01, "momentum": 0.8, "nesterov": True}),
        (Recipe("sgd", 0.01, momentum=0.0), torch.optim.SGD, {"momentum": 0.0, "nesterov": False}),
    ],
)
def test_a_recipe_names_torchs_optimizer_and_its_settings(
    recipe: Recipe, optimizer_class: type[torch.optim.Optimizer], settings: dict[str, Any]
) -> None:
    optimizer = build_optimizer(torch.nn.BatchNorm2d(1), recipe, engine=Engine())
    assert type(optimizer) is optimizer_class
    assert {name: optimizer.param_groups[0][name] for name in settings} == settings


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_hangs_in_cycles_is_freed_before_a_gpus_memory_is_given_back(device: str) -> None:
    tensor = torch.zeros(1)
    tensor.itself = tensor  # type: ignore[attr-defined]
    is_there = weakref.ref(tensor)
    gc.collect()
    gc.disable()
    try:
        del tensor
        give_back_memory(Engine(device))
        assert (is_there() is None) == (device == "cuda")
    finally:
        gc.enable()
