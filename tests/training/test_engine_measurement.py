"""The choices of the engine: what is wrong or slower is left out, and said; tested with choices wrong on purpose."""

from __future__ import annotations

import pickle
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from tests.strategies import FAMILIES
from tests.training.measurements import FUSED, step_times
from tuner.architecture import fused_block
from tuner.architecture.blocks import PlainBlock, ResidualBlock
from tuner.architecture.blocks.fields import Activation, Normalization
from tuner.architecture.blocks.residual import Order, Shortcut
from tuner.errors import UnfitDevice
from tuner.training import engine_measurement
from tuner.training.engine import Engine
from tuner.training.engine_check import Check, check_engine
from tuner.training.engine_choices import CHOICES, FAILED, Choice, ChoiceVerdict, Measurement, Runners, unmet_need
from tuner.training.engine_measurement import judge, measure_engine
from tuner.training.family_networks import checked_architectures
from tuner.training.timing import StepTimes

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
    blocks = [block for architecture in checked_architectures() for block in architecture.blocks]
    assert {type(block) for block in blocks} == set(FAMILIES)
    assert {block.activation for block in blocks} == set(get_args(Activation))
    assert {block.normalization for block in blocks} == set(get_args(Normalization))
    residual = [block for block in blocks if isinstance(block, ResidualBlock)]
    assert {block.order for block in residual} == set(get_args(Order))
    assert {block.shortcut for block in residual} == set(get_args(Shortcut))
    blocks = [block for block in blocks if isinstance(block, PlainBlock)]
    assert {block.pooling for block in blocks} == {"none", "max", "average"}
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
        ("tuner.training.synthetic_step.stack_images", to_the_neighbour),
        ("tuner.training.step._mean_loss", over_all_seeds),
        ("tuner.architecture.layer_modules.LinearEach.forward", leaking),
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


@pytest.mark.parametrize("activation", list(fused_block.ACTIVATIONS), ids=lambda activation: activation.__name__)
def test_a_wrong_gradient_of_any_activation_is_found(activation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    values, gradient = fused_block.ACTIVATIONS[activation]
    monkeypatch.setitem(fused_block.ACTIVATIONS, activation, (values, wrong_gradient(gradient)))
    assert "differ" in check_engine(FUSED).problem


def test_a_wrong_value_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    values, gradient = fused_block.ACTIVATIONS[torch.nn.ReLU]
    monkeypatch.setitem(fused_block.ACTIVATIONS, torch.nn.ReLU, (lambda x: values(x) + 0.1, gradient))
    assert "losses differ" in check_engine(FUSED).problem


def test_a_value_that_is_not_finite_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    values, gradient = fused_block.ACTIVATIONS[torch.nn.ReLU]
    monkeypatch.setitem(fused_block.ACTIVATIONS, torch.nn.ReLU, (lambda x: values(x) / 0, gradient))
    assert check_engine(FUSED).problem != ""


def test_a_dropout_with_another_rate_or_scale_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.architecture.layers.keep_of_256_from", lambda p: 200)
    assert "in the head drops 2" in check_engine(FUSED).problem


def test_a_way_that_fails_is_left_out_and_the_verdict_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel here")

    monkeypatch.setattr("tuner.training.step.fast_form", fail)
    verdict = judge(Choice("blocks", "layers", "fused"), Engine(), SHAPE)
    assert not verdict.is_taken
    assert "no such kernel here" in verdict.problem
    assert (verdict.seconds_plain, verdict.seconds_fast) == (None, None)


def test_a_way_that_is_slower_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_measurement, "time_in_turn", lambda plain, fast, shape: step_times(0.010, 0.011))
    verdict = judge(Choice("channels_last", False, True), Engine(), SHAPE)
    assert (verdict.is_taken, verdict.problem) == (False, "no faster")


def test_a_way_that_is_faster_and_right_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_measurement, "time_in_turn", lambda plain, fast, shape: step_times(0.010, 0.005))
    verdict = judge(Choice("channels_last", False, True), Engine(), SHAPE)
    assert (verdict.is_taken, verdict.problem) == (True, "")


@pytest.mark.parametrize("family", ["plain", "residual", "inverted_residual"])
def test_a_way_that_is_much_slower_on_one_family_is_left_out_however_much_others_gain(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = Choice("channels_last", False, True)
    times = {
        "a little": step_times(0.010, 0.002, **{family: 0.012}),
        "much": step_times(0.010, 0.002, **{family: 0.013}),
    }
    verdicts = {}
    for loss, one in times.items():
        monkeypatch.setattr(engine_measurement, "time_in_turn", lambda *_, one=one: one)
        verdicts[loss] = judge(choice, Engine(), SHAPE)
    assert (verdicts["a little"].is_taken, verdicts["a little"].problem) == (True, "")
    assert (verdicts["much"].is_taken, verdicts["much"].problem) == (False, f"no faster on {family} networks")
    assert verdicts["much"].seconds_fast == pytest.approx((0.002 * 0.002 * 0.013) ** (1 / 3))


def test_a_way_that_pays_on_larger_networks_is_taken_when_it_is_no_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    (optimizer,) = (choice for choice in CHOICES["cpu"] if choice.name == "optimizer")
    monkeypatch.setattr(engine_measurement, "time_in_turn", lambda plain, fast, shape: step_times(0.0100, 0.0101))
    assert judge(optimizer, Engine(), SHAPE).is_taken
    assert not judge(Choice("optimizer", "foreach", "fused"), Engine(), SHAPE).is_taken
    monkeypatch.setattr(engine_measurement, "time_in_turn", lambda plain, fast, shape: step_times(0.0100, 0.0110))
    assert not judge(optimizer, Engine(), SHAPE).is_taken


def timed_as(monkeypatch: pytest.MonkeyPatch, slower: set[str]) -> None:
    """Every choice is twice as fast as its plain way, but those that are named, which are as much slower."""

    def time_them(plain: Engine, fast: Engine, shape: object) -> StepTimes:
        changed = {name for name, value in vars(fast).items() if value != getattr(plain, name)}
        name = "blocks" if "blocks" in changed else changed.pop()
        return step_times(1.0, 2.0 if name in slower else 0.5)

    monkeypatch.setattr(engine_measurement, "time_in_turn", time_them)
    monkeypatch.setattr(engine_measurement, "measure_runners", lambda *_: Runners(1, 1, "rehearsed"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "slower",
    [set(), {"channels_last"}, {"blocks"}, {"early_pooling", "byte_dropout"}],
    ids=lambda slower: str(sorted(slower)),  # the same in every process
)
def test_the_engine_has_just_what_its_verdicts_say(monkeypatch: pytest.MonkeyPatch, slower: set[str]) -> None:
    timed_as(monkeypatch, slower)
    measured = measure_engine(CPU, SHAPE, num_threads=1)
    for verdict in measured.verdicts:
        assert getattr(measured.engine, verdict.name) == (verdict.fast if verdict.is_taken else verdict.plain)
        assert verdict.is_taken == (not verdict.problem)
    assert [verdict.name for verdict in measured.verdicts] == [choice.name for choice in CHOICES["cpu"]]


def test_a_choice_that_is_slower_by_itself_comes_with_the_one_that_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    timed_as(monkeypatch, {"channels_last"})
    measured = measure_engine(CPU, SHAPE, num_threads=1)
    (verdict,) = (verdict for verdict in measured.verdicts if verdict.name == "channels_last")
    assert (measured.engine.channels_last, verdict.is_taken, verdict.comes_with) == (True, True, "blocks")
    assert "left out" not in str(measured)


def test_a_choice_without_what_it_requires_has_a_verdict_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    timed_as(monkeypatch, {"blocks"})
    measured = measure_engine(CPU, SHAPE, num_threads=1)
    verdicts = {verdict.name: verdict for verdict in measured.verdicts}
    for name in ("early_pooling", "byte_dropout"):
        assert verdicts[name] == ChoiceVerdict(name, False, True, None, None, "needs blocks=fused", is_taken=False)
        assert f"{name} (needs blocks=fused)" in str(measured)


def wrong_where(monkeypatch: pytest.MonkeyPatch, is_wrong: Callable[[Engine], bool]) -> list[Engine]:
    """The engines that are checked, of which some come to wrong losses."""
    checked: list[Engine] = []

    def check_one(engine: Engine) -> Check:
        checked.append(engine)
        return Check(0.0, 0.0, 0.0, "its losses differ by 1" if is_wrong(engine) else "")

    monkeypatch.setattr(engine_measurement, "check_engine", check_one)
    return checked


def test_an_engine_that_came_to_be_unchecked_is_checked_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    timed_as(monkeypatch, {"early_pooling", "byte_dropout", "precision", "optimizer", "seeds_together"})
    checked = wrong_where(monkeypatch, lambda engine: False)
    measured = measure_engine(CPU, SHAPE, num_threads=1)
    assert measured.engine.blocks == "fused"
    assert not measured.engine.byte_dropout
    assert checked[-1] == measured.engine
    assert checked.count(measured.engine) == 1


def test_an_engine_that_was_checked_as_it_is_is_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    timed_as(monkeypatch, set())
    checked = wrong_where(monkeypatch, lambda engine: False)
    assert checked.count(measure_engine(CPU, SHAPE, num_threads=1).engine) == 1


def test_how_one_seed_trains_alone_is_checked_in_the_end_where_it_was_not(monkeypatch: pytest.MonkeyPatch) -> None:
    timed_as(monkeypatch, {"early_pooling", "byte_dropout", "precision", "optimizer"})
    checked = wrong_where(monkeypatch, lambda engine: False)
    measured = measure_engine(CPU, SHAPE, num_threads=1)
    assert measured.engine.seeds_together
    assert checked[-1] == replace(measured.engine, seeds_together=False)
    assert checked.count(measured.engine) == 1


def test_an_engine_that_is_wrong_for_one_seed_alone_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    timed_as(monkeypatch, {"early_pooling", "byte_dropout", "precision", "optimizer"})
    wrong_where(monkeypatch, lambda engine: not engine.byte_dropout and not engine.seeds_together)
    measured = measure_engine(CPU, SHAPE, num_threads=1)
    assert measured.engine == Engine()
    assert "not together: its losses differ by 1" in measured.problem


def test_what_does_nothing_here_is_neither_timed_nor_taken_and_the_verdict_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed_as(monkeypatch, set())
    monkeypatch.setattr("tuner.training.unused_memory._from_glibc", lambda name: None)
    monkeypatch.setattr("torch.set_flush_denormal", lambda flushes: False)
    measured = measure_engine(CPU, SHAPE, num_threads=1)
    verdicts = {verdict.name: verdict for verdict in measured.verdicts}
    for name, why in (
        ("keep_freed_memory", "the C library is not glibc"),
        ("flush_denormals", "torch does not support it"),
    ):
        assert not getattr(measured.engine, name)
        assert (verdicts[name].seconds_fast, verdicts[name].is_taken) == (None, False)
        assert verdicts[name].problem.startswith(f"has no effect: {why}")


def test_where_the_final_engine_is_wrong_the_plain_step_is_used_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed_as(monkeypatch, {"early_pooling", "byte_dropout", "precision", "optimizer", "seeds_together"})
    wrong_where(monkeypatch, lambda engine: engine.blocks == "fused" and not engine.byte_dropout)
    measured = measure_engine(CPU, SHAPE, num_threads=1)
    assert measured.engine == Engine()
    assert not any(verdict.is_taken for verdict in measured.verdicts)
    assert all(verdict.problem for verdict in measured.verdicts)
    assert str(measured).startswith(
        "engine: the plain step, as the choices pass the check one by one, but not together: "
        "its losses differ by 1; not used: "
    )


@pytest.mark.parametrize("wrong", ["early_pooling", "byte_dropout"])
def test_fused_blocks_are_taken_without_what_is_wrong_in_them(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    timed_as(monkeypatch, set())
    wrong_where(monkeypatch, lambda engine: getattr(engine, wrong))
    measured = measure_engine(CPU, SHAPE, num_threads=1)
    assert measured.engine.blocks == "fused"
    assert (measured.engine.early_pooling, measured.engine.byte_dropout) == (
        wrong != "early_pooling",
        wrong != "byte_dropout",
    )
    assert f"; not used: {wrong} (its losses differ by 1)" in str(measured)


def test_fused_blocks_that_are_wrong_themselves_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    timed_as(monkeypatch, set())
    wrong_where(monkeypatch, lambda engine: engine.blocks == "fused")
    measured = measure_engine(CPU, SHAPE, num_threads=1)
    assert (measured.engine.blocks, measured.problem) == ("layers", "")
    assert "blocks (its losses differ by 1)" in str(measured)


def test_a_graph_brings_the_optimizer_that_it_needs() -> None:
    (graph,) = (choice for choice in CHOICES["cuda"] if choice.name == "graph")
    assert graph.engine(Engine("cuda")) == Engine("cuda", graph=True, optimizer="fused")
    assert unmet_need(graph, Engine("cuda")) == ""


def test_a_way_that_fails_on_a_gpu_is_left_out_and_the_rest_is_measured_in_another_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    judged: list[str] = []
    processes: list[list[str]] = []

    def judge_one(choice: Choice, engine: Engine, shape: object) -> ChoiceVerdict:
        judged.append(choice.name)
        problem = {"graph": f"{FAILED}no capture here", "tf32": "no faster"}.get(choice.name, "")
        return ChoiceVerdict(choice.name, choice.plain, choice.fast, 1.0, 0.5, problem, not problem)

    def in_another_process(function: Callable[[], Measurement]) -> Measurement:
        judged.clear()
        try:
            return pickle.loads(pickle.dumps(function()))  # type: ignore[no-any-return]
        except engine_measurement.Spoiled as error:
            raise pickle.loads(pickle.dumps(error)) from None
        finally:
            processes.append(judged.copy())

    monkeypatch.setattr(engine_measurement, "judge", judge_one)
    monkeypatch.setattr(engine_measurement, "device_kind", str)
    monkeypatch.setattr(engine_measurement, "_require_plain_step", lambda *_: None)
    monkeypatch.setattr(engine_measurement, "measure_runners", lambda *_: Runners(1, 1, "rehearsed"))
    measured = engine_measurement.measure_with_retries(
        torch.device("cuda"), SHAPE, num_threads=1, run=in_another_process
    )
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

    def time_them(one: Engine, many: Engine, shape: object) -> StepTimes:
        timed.extend((one, many))
        return step_times(1.0, 1.0)

    monkeypatch.setattr(engine_measurement, "num_cores", lambda: 2)
    monkeypatch.setattr(engine_measurement, "time_in_turn", time_them)
    assert engine_measurement.measure_runners(Engine(seeds_together=True), SHAPE).count == 2
    assert [engine.seeds_together for engine in timed] == [False, False]
