from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.training.measurements import measurement_of
from tuner.architecture import fused_block, fused_network
from tuner.errors import DeviceError, OptionError
from tuner.training.engine import Engine
from tuner.training.engine_option import force, parse_forced, refuse_without_effect

CPU = torch.device("cpu")
FUSED = Engine(channels_last=True, blocks="fused", early_pooling=True, byte_dropout=True, precision="bf16")


def forced_engine(engine: Engine, text: str) -> Engine:
    return force(measurement_of(engine), parse_forced(text, CPU)).engine


def test_nothing_asked_for_changes_nothing() -> None:
    found = measurement_of(FUSED)
    assert force(found, parse_forced("auto", CPU)) == found


@pytest.mark.parametrize(
    ("engine", "text", "expected"),
    [
        (FUSED, "precision=fp32", replace(FUSED, precision="fp32")),
        (FUSED, "byte_dropout=off, optimizer=fused", replace(FUSED, byte_dropout=False, optimizer="fused")),
        # What a choice needs comes with it, and what cannot be without another goes with that.
        (Engine(), "blocks=fused", replace(FUSED, precision="fp32")),
        (Engine(), "blocks=fused,early_pooling=off", replace(FUSED, precision="fp32", early_pooling=False)),
        (FUSED, "blocks=layers", Engine(channels_last=True, precision="bf16")),
        (FUSED, "channels_last=off", Engine(precision="bf16")),
    ],
)
def test_what_is_asked_for_is_taken_and_the_rest_stays_where_it_can(
    engine: Engine, text: str, expected: Engine
) -> None:
    assert forced_engine(engine, text) == expected


def test_the_verdicts_say_what_was_asked_for() -> None:
    found = force(measurement_of(FUSED), parse_forced("precision=fp32,optimizer=fused", CPU))
    verdicts = {verdict.name: (verdict.is_taken, verdict.problem) for verdict in found.verdicts}
    assert verdicts["precision"] == (False, "as asked")
    assert verdicts["optimizer"] == (True, "")
    assert verdicts["flush_denormals"] == (False, "no faster")
    assert "precision (as asked)" in str(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no choice on cpu"),
        ("speed=9", "'speed' is no choice on cpu; there are keep_freed_memory, "),
        ("graph=on", "'graph' is no choice on cpu"),
        ("precision=fp32,precision=bf16", "precision must be given once, got fp32 and bf16"),
        ("precision=fp16", "precision must be fp32 or bf16, got 'fp16'"),
        ("channels_last=yes", "channels_last must be off or on, got 'yes'"),
        ("channels_last", "channels_last must be off or on, got ''"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        parse_forced(text, CPU)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("blocks=fused,channels_last=off", "blocks=fused needs channels_last=on"),
        ("blocks=layers,byte_dropout=on", "byte_dropout=on needs blocks=fused"),
    ],
)
def test_what_excludes_each_other_is_refused(text: str, words: str) -> None:
    with pytest.raises(DeviceError, match=words):
        forced_engine(Engine(), text)


@pytest.mark.parametrize(
    "text", ["precision=bf16", "blocks=fused", "early_pooling=on", "channels_last=on,byte_dropout=on"]
)
def test_what_pretrained_networks_cannot_have_is_refused_for_them(text: str) -> None:
    last = text.rpartition(",")[-1]
    with pytest.raises(OptionError, match=f"engine: {last} has no effect on pretrained networks: omit it"):
        refuse_without_effect(parse_forced(text, CPU))


def test_what_pretrained_networks_can_have_is_not_refused_for_them() -> None:
    refuse_without_effect(parse_forced("precision=fp32,blocks=layers,byte_dropout=off,channels_last=on", CPU))


def test_what_trains_otherwise_than_plain_pytorch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    values, gradient = fused_block.ACTIVATIONS[torch.nn.ReLU]
    monkeypatch.setitem(fused_block.ACTIVATIONS, torch.nn.ReLU, (lambda x: values(x) + 0.1, gradient))
    with pytest.raises(DeviceError, match="does not train as plain PyTorch does here: its losses differ"):
        forced_engine(Engine(), "blocks=fused")


@pytest.mark.parametrize("base", [FUSED, replace(FUSED, seeds_together=True)], ids=["alone", "together"])
def test_what_is_wrong_for_one_seed_alone_is_refused(base: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stacked network has linear layers of its own."""
    right = fused_network._in_any_precision

    def wrong(module: torch.nn.Module, form: fused_network.FastForm) -> fused_network.Forward:
        layer = right(module, form)
        return (lambda x: layer(x) * 0.3) if isinstance(module, torch.nn.Linear) else layer

    monkeypatch.setattr(fused_network, "_in_any_precision", wrong)
    with pytest.raises(DeviceError, match="does not train as plain PyTorch does here: its losses differ"):
        forced_engine(base, "early_pooling=off")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("keep_freed_memory", "tuner.training.engine_choices.keep_freed_memory"),
        ("flush_denormals", "torch.set_flush_denormal"),
    ],
)
def test_what_does_nothing_here_is_refused(name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, lambda asked: False)
    with pytest.raises(DeviceError, match=f"engine {name}=on: {name}=on has no effect: "):
        forced_engine(Engine(), f"{name}=on")
    assert forced_engine(Engine(), f"{name}=off") == Engine()


def test_what_fails_here_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel here\nand more")

    monkeypatch.setattr("tuner.training.step.fast_form", fail)
    with pytest.raises(DeviceError, match=r"failed: RuntimeError: no such kernel here$"):
        forced_engine(Engine(), "blocks=fused")
