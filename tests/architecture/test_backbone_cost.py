"""What training a network with a backbone costs: its tail on features or on images, counted as torch counts."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tuner.architecture.backbone_cost import (
    COPIES_OF_ACTIVATIONS,
    COPIES_OF_FROZEN,
    FEATURES_AT_ONCE,
    FORWARD_SHARE,
    backbone_cost,
    features_shape,
    tail_cost,
)
from tuner.architecture.backbone_modules import split_network
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.cost import COPIES_OF_ENDS, COPIES_OF_PARAMETERS
from tuner.architecture.spec import Head, InputSpec
from tuner.pretrained import features

NETWORK = BackboneNetwork(InputSpec(3, 64, 64, 4), "resnet18", "0" * 16, 2, head=Head("average", 8))
FROZEN = replace(NETWORK, trained_stages=0)


def flops_of(module: torch.nn.Module, images: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(images)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "convnext_tiny", "timm/test_vit"])
@pytest.mark.parametrize("trained_stages", [0, 1])
def test_the_tail_costs_what_torch_counts_of_it(name: str, trained_stages: int) -> None:
    side = 160 if name == "timm/test_vit" else 64
    network = replace(NETWORK, backbone=name, trained_stages=trained_stages, input=InputSpec(3, side, side, 4))
    with torch.device("meta"):  # on a CPU, torch does not count the attention of a transformer
        split = split_network(network)
        image_1CHW = torch.zeros(1, *network.input_shape)
    split.model.requires_grad_(False)  # torch's counter cannot follow a parameter that is passed on as an input
    with torch.no_grad():
        features_1X = split.frozen.eval()(image_1CHW)
    cost = tail_cost(network, is_on_features=True)
    if not len(split.frozen):
        assert cost.tail == backbone_cost(network)
        return
    assert features_shape(network) == tuple(features_1X.shape[1:])
    assert cost.tail.flops == flops_of(split.tail, features_1X)
    assert cost.tail.num_parameters == sum(one.numel() for one in split.tail.parameters())
    assert cost.num_frozen == sum(one.numel() for one in split.frozen.parameters())
    assert cost.tail.ends == features_1X.numel() + 4
    assert (cost.frozen_flops, cost.work) == (0, cost.tail.work)
    on_images = tail_cost(network, is_on_features=False)
    assert on_images.frozen_flops == flops_of(split.frozen, image_1CHW)
    assert on_images.work == cost.work + FORWARD_SHARE * on_images.frozen_flops
    assert on_images.tail.ends == prod(network.input_shape) + 4


def test_a_network_without_frozen_stages_costs_what_the_whole_of_it_costs() -> None:
    whole = replace(NETWORK, trained_stages=5)
    cost, of_whole = tail_cost(whole, is_on_features=False), backbone_cost(whole)
    assert (cost.tail, cost.work) == (of_whole, of_whole.work)
    assert cost.training_bytes(8) == of_whole.training_bytes(8, copies=COPIES_OF_ACTIVATIONS)


def test_frozen_parameters_take_no_gradients_and_their_layers_keep_nothing() -> None:
    cost = tail_cost(FROZEN, is_on_features=True)
    small, large = cost.training_bytes(1), cost.training_bytes(1_001)
    assert large - small == 4 * 1_000 * (COPIES_OF_ACTIVATIONS * cost.tail.activations + COPIES_OF_ENDS * (512 + 4))
    assert small < backbone_cost(FROZEN).training_bytes(1)
    extra = cost.training_bytes(1, has_average=True) - small
    assert extra == 4 * cost.tail.num_parameters  # the head alone has an average
    parameters = COPIES_OF_FROZEN * cost.num_frozen + COPIES_OF_PARAMETERS * cost.tail.num_parameters
    assert small > 4 * (parameters + 2 * FEATURES_AT_ONCE * cost.widest)
    # Images that pass the frozen stages in each step need memory by the size of the batch.
    on_images = tail_cost(FROZEN, is_on_features=False)
    assert on_images.training_bytes(256) - on_images.training_bytes(128) > 4 * 2 * 128 * cost.widest


def test_features_are_computed_for_as_many_images_at_once_as_the_estimate_assumes() -> None:
    assert features.BATCH_SIZE == FEATURES_AT_ONCE
