"""A backbone with a head as a value, and the modules and the cost that it stands for."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from tuner.architecture.any_architecture import build_any, cost_of, kind_of, resolve_any
from tuner.architecture.backbone_modules import has_frozen_stages, num_stages, split_network
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.backbones import input_of
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.errors import BackboneError
from tuner.training.candidate import Candidate, Recipe, resolve_candidate

NETWORK = BackboneNetwork(
    InputSpec(3, 32, 32, 4), "resnet18", "0123456789abcdef", 2, head=Head("average", 8, "silu", 0.25)
)


def test_a_candidate_of_a_backbone_survives_json() -> None:
    candidate = resolve_candidate(Candidate(NETWORK, Recipe(stage_decay=0.3)))
    assert Candidate.from_json(candidate.to_json()) == candidate
    assert BackboneNetwork.from_json(NETWORK.to_json()) == NETWORK


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": "0123"},
        {"weights": "0123456789ABCDEF"},
        {"trained_stages": -1},
        {"crop_fraction": 1.5},
        {"blocks": []},
    ],
)
def test_a_network_that_cannot_be_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        BackboneNetwork.from_json(NETWORK.to_json() | changes)


def test_a_network_is_described_in_one_line() -> None:
    assert str(NETWORK) == "resnet18 32x32, 2 stages trained | 8 silu d0.25 4"
    assert str(replace(NETWORK, trained_stages=0, head=Head("average"))) == "resnet18 32x32, frozen | 4"
    one = replace(NETWORK, trained_stages=1, head=Head("average"))
    assert str(one) == "resnet18 32x32, 1 stage trained | 4"
    assert str(replace(one, views=1)) == "resnet18 32x32, 1 stage trained, 1 view | 4"
    assert str(replace(one, crop_fraction=1.0)) == "resnet18 32x32 (crop fraction 1), 1 stage trained | 4"
    assert str(replace(one, trained_stages=0, views=4)) == "resnet18 32x32, frozen, 4 views | 4"


def test_the_kind_of_a_network_is_how_much_of_it_is_trained() -> None:
    kinds = [kind_of(replace(NETWORK, trained_stages=number)) for number in (0, 1, 4, 5)]
    partly = "partly frozen networks"
    assert kinds == ["frozen networks", partly, partly, "networks trained as a whole"]
    assert kind_of(Architecture(InputSpec(1, 8, 8, 10), (PlainBlock(4),), Head())) == ""


def test_fields_without_effect_do_not_change_the_fingerprint() -> None:
    frozen = replace(NETWORK, trained_stages=0, head=Head("average"))
    same = [
        Candidate(frozen, Recipe()),
        Candidate(replace(frozen, head=Head("flatten", 0, "silu")), Recipe()),
        Candidate(frozen, Recipe(stage_decay=0.1)),
        Candidate(frozen, Recipe(flip="horizontal", translate=0.1, mixup=1.0)),
    ]
    same.append(Candidate(replace(frozen, crop_fraction=input_of(frozen.backbone).crop_fraction), Recipe()))
    same.append(Candidate(replace(frozen, views=4), Recipe(mixup=1.0)))  # its views would be the images themselves
    assert len({one.fingerprint for one in same}) == 1
    whole = [replace(NETWORK, trained_stages=number, views=views) for number, views in ((5, 0), (9, 3), (5, 1))]
    assert len({Candidate(one, Recipe(flip="horizontal")).fingerprint for one in whole}) == 1
    others = [
        Candidate(replace(frozen, views=1), Recipe(flip="horizontal")),
        Candidate(replace(frozen, weights="f" * 16), Recipe()),
        Candidate(replace(frozen, crop_fraction=1.0), Recipe()),
        Candidate(replace(frozen, trained_stages=1), Recipe()),
        Candidate(replace(frozen, trained_stages=1), Recipe(stage_decay=0.1)),
        Candidate(replace(frozen, backbone="resnet34"), Recipe()),
    ]
    assert len({one.fingerprint for one in (*others, same[0])}) == 7


@pytest.mark.parametrize("trained_stages", [0, 1, 5])
def test_frozen_stages_and_tail_are_the_model(trained_stages: int) -> None:
    torch.manual_seed(0)
    split = split_network(replace(NETWORK, trained_stages=trained_stages))
    assert num_stages("resnet18") == 5
    assert len(split.frozen) == 5 - trained_stages
    assert has_frozen_stages(replace(NETWORK, trained_stages=trained_stages)) == (trained_stages < 5)
    split.model.eval()
    images_NCHW = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(split.tail(split.frozen(images_NCHW)), split.model(images_NCHW))
    own = {id(parameter) for parameter in [*split.frozen.parameters(), *split.tail.parameters()]}
    assert own == {id(parameter) for parameter in split.model.parameters()}


def test_the_cost_is_what_torch_counts() -> None:
    model = build_any(NETWORK).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 32, 32))
    cost = cost_of(NETWORK)
    assert cost.num_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert cost.flops == counter.get_total_flops()
    frozen = cost_of(replace(NETWORK, trained_stages=0))
    assert frozen.num_parameters == cost.num_parameters
    # A frozen backbone leaves a head of 512 features: two linear layers, an activation and a dropout.
    assert frozen.activations == 8 + 8 + 8 + 4
    assert frozen.activations < cost.activations < cost_of(replace(NETWORK, trained_stages=5)).activations


def test_more_trained_stages_than_there_are_mean_all_of_them() -> None:
    resolved = resolve_any(replace(NETWORK, trained_stages=99))
    assert isinstance(resolved, BackboneNetwork)
    assert resolved.trained_stages == 5
    assert resolve_any(resolved) == resolved


@pytest.mark.parametrize(("name", "side"), [("alexnet", 32), ("vit_b_16", 96)])
def test_images_that_a_backbone_cannot_take_are_an_error_in_one_line(name: str, side: int) -> None:
    network = BackboneNetwork(InputSpec(3, side, side, 4), name, "0" * 16)
    with pytest.raises(BackboneError, match=rf"{name} cannot take images of {side}x{side} pixels") as caught:
        cost_of(network)
    assert "\n" not in str(caught.value)


def test_a_backbone_that_passes_a_parameter_to_a_layer_is_counted() -> None:
    side = input_of("timm/test_vit3").height
    assert cost_of(BackboneNetwork(InputSpec(3, side, side, 4), "timm/test_vit3", "0" * 16)).flops > 0
