"""What a trial of a pretrained network takes: on stored features if they fit, else on images of its own size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tuner.architecture.any_architecture import cost_of
from tuner.architecture.backbone_cost import tail_cost
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.blocks import PlainBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.pretrained import features
from tuner.search.memory_limit import memory_excess
from tuner.search.training_cost import BackboneImages, is_trained_on_features, training_cost

IMAGES = InputSpec(3, 224, 224, 2)
FROZEN = BackboneNetwork(IMAGES, "convnext_tiny", "0" * 16)
WHOLE = replace(FROZEN, trained_stages=8)
CPU = torch.device("cpu")


def test_a_traced_network_costs_what_it_always_does() -> None:
    architecture = Architecture(InputSpec(1, 8, 8, 10), (PlainBlock(4),), Head())
    assert training_cost(architecture, 100) == cost_of(architecture)


def test_features_are_stored_if_all_their_sets_take_at_most_half_of_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "FEATURES_BYTES", 2 * 3 * 100 * 768 * 4)
    for views, num_images, is_stored in ((2, 100, True), (2, 101, False), (0, 300, True), (0, 301, False)):
        network = replace(FROZEN, views=views)
        assert is_trained_on_features(network, num_images) == is_stored
        assert training_cost(network, num_images) == tail_cost(network, is_on_features=is_stored)
    assert not is_trained_on_features(WHOLE, 1)
    assert training_cost(WHOLE, 1) == tail_cost(WHOLE, is_on_features=False)


def test_a_head_on_features_fits_where_the_whole_network_does_not() -> None:
    step_bytes = 1.25 * 2**30
    assert memory_excess(training_cost(FROZEN, 400), 64, step_bytes=step_bytes, stream=None)[1] == ""
    assert memory_excess(training_cost(WHOLE, 400), 64, step_bytes=step_bytes, stream=None)[1]
    # The largest possible features of 400 images fit; without them, a batch of images passes the frozen stages.
    assert training_cost(FROZEN, 400).work < training_cost(FROZEN, 10**9).work < training_cost(WHOLE, 400).work


def test_images_are_streamed_in_the_size_that_a_backbone_takes() -> None:
    images = BackboneImages(1_000, CPU, memory_bytes=100 * 3 * 224 * 224)
    limit = images.stream_limit(WHOLE)
    assert limit is not None
    assert (limit.image_bytes, limit.memory_bytes) == (3 * 224 * 224, images.memory_bytes)
    assert limit.reason_against(64)
    assert not limit.reason_against(32)
    assert images.stream_limit(FROZEN) is None  # its features are in memory
    small = replace(WHOLE, input=replace(IMAGES, height=32, width=32))
    assert images.stream_limit(small) is None
