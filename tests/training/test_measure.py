"""The choices of the engine: what is wrong or slower is left out, and said; tested with choices wrong on purpose."""

from __future__ import annotations

import json
import pickle
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tuner.architecture import fused
from tuner.errors import UnfitDevice
from tuner.training import measure
from tuner.training.check import check_architectures, check_engine
from tuner.training.engine import Engine
from tuner.training.measure import (
    CHOICES,
    Choice,
    Measurement,
    Runners,
    Verdict,
    judge,
    load_or_measure,
    measure_engine,
)

FUSED = Engine(channels_last=True, blocks="fused", early_pooling=True, byte_dropout=True, optimizer="fused")
SHAPE = (1, 8, 8)
CPU = torch.device("cpu")


@pytest.mark.parametrize("choice", CHOICES["cpu"], ids=lambda choice: choice.name)
def test_every_fast_way_of_a_cpu_agrees_with_the_plain_step(choice: Choice) -> None:
    base = replace(FUSED, precision="fp32") if choice.requires else Engine()
    assert check_engine(choice.engine(base)).problem == ""


def test_the_whole_fast_engine_agrees_in_both_precisions() -> None:
    exact, rough = (check_engine(replace(FUSED, precision=precision)) for precision in ("fp32", "bf16"))
    assert exact.problem == rough.problem == ""
    assert exact.loss_difference < rough.loss_difference
    assert exact.weight_difference < rough.weight_difference
    assert exact.tensor_difference < rough.tensor_difference


def test_between_them_the_checked_networks_have_everything_that_a_block_may_have() -> None:
    blocks = [block for architecture in check_architectures() for block in architecture.blocks]
    assert {block.activation for block in blocks} == {
        "relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid",
    }  # fmt: skip
    assert {block.pooling for block in blocks} == {"none", "max", "average"}
    assert {block.normalization for block in blocks} == {"none", "batch"}
    for pooling in ("max", "average"):
        windows = {(block.pool_size, block.pool_stride) for block in blocks if block.pooling == pooling}
        assert windows >= {(2, 2), (3, 2)}
    early = {block.activation in ("gelu", "silu") for block in blocks if block.pooling == "max"}
    assert early == {True, False}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("base", [Engine(), FUSED], ids=["plain", "fused"])
def test_seeds_that_train_together_agree_with_the_plain_step_of_each(base: Engine, precision: Any) -> None:
    assert check_engine(replace(base, precision=precision, seeds_together=True)).problem == ""


def to_the_neighbour(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Each seed sees the images of another."""
    return lambda images, **layout: function([images[-1], *images[:-1]], **layout)


def over_all_seeds(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The right losses, but gradients too small by the number of seeds."""

    def wrong(*arguments: Tensor, **options: float) -> Tensor:
        loss = function(*arguments, **options)
        return loss if loss.dim() == 0 else loss / len(loss) + (loss - loss / len(loss)).detach()

    return wrong


def leaking(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Nothing times the sum over all seeds: right unless one of them is no number."""
    return lambda layer, x: function(layer, x) + 0 * x.sum()


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("tuner.training.rehearsal.stack_images", to_the_neighbour),
        ("tuner.training.engine._mean_loss", over_all_seeds),
        ("tuner.architecture.stacked.LinearEach.forward", leaking),
    ],
)
def test_a_wrong_step_of_seeds_together_is_found(
    place: str, wrong: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, wrong(pkgutil.resolve_name(place)))
    assert check_engine(Engine()).problem == ""
    assert "differ" in check_engine(Engine(seeds_together=True)).problem


def wrong_gradient(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda grad, x, y: function(grad, x, y) * 0.5


@pytest.mark.parametrize("activation", list(fused.ACTIVATIONS), ids=lambda activation: activation.__name__)
def test_a_wrong_gradient_of_any_activation_is_found(activation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values, gradient = fused.ACTIVATIONS[activation]
    monkeypatch.setitem(fused.ACTIVATIONS, activation, (values, wrong_gradient(gradient)))
    assert "differ" in check_engine(FUSED).problem


def test_a_wrong_value_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    values, gradient = fused.ACTIVATIONS[torch.nn.ReLU]
    monkeypatch.setitem(fused.ACTIVATIONS, torch.nn.ReLU, (lambda x: values(x) + 0.1, gradient))
    assert "losses differ" in check_engine(FUSED).problem


def test_a_value_that_is_not_finite_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    values, gradient = fused.ACTIVATIONS[torch.nn.ReLU]
    monkeypatch.setitem(fused.ACTIVATIONS, torch.nn.ReLU, (lambda x: values(x) / 0, gradient))
    assert check_engine(FUSED).problem != ""


def test_a_dropout_with_another_rate_or_scale_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.architecture.layers.keep_of_256_from", lambda p: 200)
    assert "in the head drops 2" in check_engine(FUSED).problem


def test_a_way_that_fails_is_left_out_and_the_verdict_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel here")

    monkeypatch.setattr("tuner.training.engine.fast_form", fail)
    verdict = judge(Choice("blocks", "layers", "fused", {}), Engine(), SHAPE)
    assert not verdict.is_taken
    assert "no such kernel here" in verdict.problem


def test_a_way_that_is_slower_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "time_in_turn", lambda plain, fast, shape: (0.010, 0.011))
    verdict = judge(Choice("channels_last", False, True, {}), Engine(), SHAPE)
    assert (verdict.is_taken, verdict.problem) == (False, "no faster")


def test_a_way_that_is_faster_and_right_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "time_in_turn", lambda plain, fast, shape: (0.010, 0.005))
    verdict = judge(Choice("channels_last", False, True, {}), Engine(), SHAPE)
    assert (verdict.is_taken, verdict.problem) == (True, "")


def test_a_way_that_pays_on_larger_networks_is_taken_when_it_is_no_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    (optimizer,) = (choice for choice in CHOICES["cpu"] if choice.name == "optimizer")
    monkeypatch.setattr(measure, "time_in_turn", lambda plain, fast, shape: (0.0100, 0.0101))
    assert judge(optimizer, Engine(), SHAPE).is_taken
    assert not judge(Choice("optimizer", "foreach", "fused", {}), Engine(), SHAPE).is_taken
    monkeypatch.setattr(measure, "time_in_turn", lambda plain, fast, shape: (0.0100, 0.0110))
    assert not judge(optimizer, Engine(), SHAPE).is_taken


def test_a_measurement_is_made_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_or_measure(CPU, SHAPE, num_threads=1, cache_dir=tmp_path)
    assert [type(verdict) for verdict in first.verdicts] == [Verdict] * len(first.verdicts)
    monkeypatch.setattr(measure, "measure_engine", lambda *_, **__: pytest.fail("measured again"))
    assert load_or_measure(CPU, SHAPE, num_threads=1, cache_dir=tmp_path) == first


def test_what_doctor_keeps_is_what_a_study_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = measure.measure_engine(CPU, SHAPE, num_threads=1)
    measure.keep_measurement(measured, SHAPE, cache_dir=tmp_path)
    monkeypatch.setattr(measure, "measure_engine", None)
    assert load_or_measure(CPU, SHAPE, num_threads=1, cache_dir=tmp_path) == measured


def test_a_measurement_for_another_number_of_cores_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cores in (1, 1, 3):
        monkeypatch.setattr(measure, "num_cores", lambda cores=cores: cores)
        load_or_measure(CPU, SHAPE, num_threads=1, cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_kept_measurement_that_is_damaged_is_made_anew(tmp_path: Path) -> None:
    load_or_measure(CPU, SHAPE, num_threads=1, cache_dir=tmp_path)
    (path,) = tmp_path.glob("engine-*.json")
    path.write_text(path.read_text()[:20])
    assert isinstance(load_or_measure(CPU, SHAPE, num_threads=1, cache_dir=tmp_path), Measurement)
    assert Measurement.from_json(json.loads(path.read_text())).engine.device == "cpu"


def test_the_engine_has_just_what_its_verdicts_say() -> None:
    measured = measure_engine(CPU, SHAPE, num_threads=1)
    for verdict in measured.verdicts:
        assert getattr(measured.engine, verdict.name) == (verdict.fast if verdict.is_taken else verdict.plain)
        assert verdict.is_taken == (not verdict.problem)
    assert measured.runners.count >= 1


GPUS = [torch.device("cuda", index) for index in range(3)]


def test_gpus_of_one_kind_share_a_measurement_and_each_has_its_own_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = dict(zip(GPUS, ("large", "small", "large"), strict=True))
    measured = []

    def measure_one(device: torch.device, *_: object, num_threads: int, **__: object) -> Measurement:
        measured.append(device)
        engine = Engine(str(device), num_threads=num_threads, tf32=kinds[device] == "large")
        return Measurement(engine, (), Runners(1, 1, "rehearsed"), kinds[device])

    monkeypatch.setattr(measure, "device_kind", kinds.__getitem__)
    monkeypatch.setattr(measure, "measure_engine", measure_one)
    for _ in range(2):
        found = [load_or_measure(gpu, SHAPE, num_threads=1, cache_dir=tmp_path) for gpu in GPUS]
        assert [(one.kind, one.engine.device, one.engine.tf32) for one in found] == [
            ("large", "cuda:0", True),
            ("small", "cuda:1", False),
            ("large", "cuda:2", True),
        ]
    assert measured == GPUS[:2]


def test_a_way_that_fails_on_a_gpu_is_left_out_and_the_rest_is_measured_in_another_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged: list[str] = []
    processes: list[list[str]] = []

    def judge_one(choice: Choice, engine: Engine, shape: object) -> Verdict:
        judged.append(choice.name)
        problem = {"graph": f"{measure.FAILED}no capture here", "tf32": "no faster"}.get(choice.name, "")
        return Verdict(choice.name, choice.plain, choice.fast, 1.0, 0.5, problem, not problem)

    def in_another_process(function: Callable[[], Measurement]) -> Measurement:
        judged.clear()
        try:
            return pickle.loads(pickle.dumps(function()))  # type: ignore[no-any-return]
        except measure.Spoiled as error:
            raise pickle.loads(pickle.dumps(error)) from None
        finally:
            processes.append(judged.copy())

    monkeypatch.setattr(measure, "judge", judge_one)
    monkeypatch.setattr(measure, "device_kind", str)
    monkeypatch.setattr(measure, "_require_plain_step", lambda *_: None)
    monkeypatch.setattr(measure, "measure_runners", lambda *_: Runners(1, 1, "rehearsed"))
    measured = measure.measure_anew(torch.device("cuda"), SHAPE, num_threads=1, run=in_another_process)
    assert processes == [["channels_last", "tf32", "precision", "optimizer", "graph"], ["seeds_together"]]
    assert (measured.engine.graph, measured.engine.optimizer, measured.engine.seeds_together) == (False, "fused", True)
    assert "graph (failed: no capture here)" in str(measured)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="needs a machine without MPS")
def test_a_device_that_cannot_compute_the_plain_step_is_refused_in_one_line() -> None:
    with pytest.raises(UnfitDevice, match=r"^mps \(.*\) cannot compute a training step: \w+: ") as caught:
        measure_engine(torch.device("mps"), SHAPE, num_threads=1)
    assert "\n" not in str(caught.value)


def test_runners_are_counted_for_candidates_that_train_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[Engine] = []

    def time_them(one: Engine, many: Engine, shape: object) -> tuple[float, float]:
        timed.extend((one, many))
        return 1.0, 1.0

    monkeypatch.setattr(measure, "num_cores", lambda: 2)
    monkeypatch.setattr(measure, "time_in_turn", time_them)
    assert measure.measure_runners(Engine(seeds_together=True), SHAPE).count == 2
    assert [engine.seeds_together for engine in timed] == [False, False]
