"""Backbones of torchvision and timm: their stages and a head are the library's network, exactly."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tuner.architecture.backbone_modules import num_stages
from tuner.architecture.backbones import (
    Backbone,
    build_backbone,
    input_of,
    known_backbones,
    rebuild_source,
    stages_with_parameters,
)
from tuner.architecture.backbones.backbone import LEAST_CROP_FRACTION
from tuner.architecture.backbones.timm_backbones import timm_input
from tuner.data import resizing
from tuner.data.resizing import Resizing
from tuner.errors import BackboneError, TunerError

SMALL = [
    ("convnext_tiny", 32),
    ("densenet121", 32),
    ("efficientnet_b0", 32),
    ("googlenet", 32),
    ("mnasnet0_5", 32),
    ("mobilenet_v2", 32),
    ("mobilenet_v3_small", 32),
    ("regnet_y_400mf", 32),
    ("resnet18", 32),
    ("resnext50_32x4d", 32),
    ("shufflenet_v2_x0_5", 32),
    ("timm/tf_efficientnet_lite0", 32),
    ("timm/mobilenetv3_small_050.lamb_in1k", 32),
    ("timm/resnet18", 32),
    ("timm/convnext_atto", 32),
    ("timm/vit_tiny_patch16_224", 224),
    ("timm/regnetx_002", 32),
    ("timm/ghostnet_050", 32),
]
LARGE = [
    ("alexnet", 63),
    ("inception_v3", 75),
    ("maxvit_t", 224),
    ("swin_t", 32),
    ("swin_v2_t", 32),
    ("vgg11_bn", 32),
    ("vit_b_32", 224),
    ("wide_resnet50_2", 32),
    ("efficientnet_v2_s", 32),
    ("timm/swin_tiny_patch4_window7_224", 224),
    ("timm/mobilenetv4_conv_small", 32),
]
NETWORKS = [
    *(pytest.param(name, side, id=name) for name, side in SMALL),
    *(pytest.param(name, side, id=name, marks=pytest.mark.slow) for name, side in LARGE),
]


def backbone_with_head(name: str) -> tuple[Backbone, nn.Module, nn.Sequential]:
    """A backbone with random weights, its model with a head for three classes, and this head, ready to evaluate."""
    torch.manual_seed(0)
    backbone = build_backbone(name)
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(backbone.num_features, 3))
    model = backbone.attach_head(head)
    for module in [model, *backbone.stages]:
        module.eval()
    return backbone, model, head


def apply(stages: tuple[nn.Module, ...], maps: Tensor) -> Tensor:
    for stage in stages:
        maps = stage(maps)
    return maps


@torch.no_grad()
@pytest.mark.parametrize(("name", "side"), NETWORKS)
def test_the_stages_and_a_head_give_exactly_the_logits_of_the_model(name: str, side: int) -> None:
    backbone, model, head = backbone_with_head(name)
    images_NCHW = torch.randn(2, 3, side, side)
    logits_NK = model(images_NCHW)
    maps = images_NCHW
    for stage in backbone.stages:
        kept = maps.clone()
        after = stage(maps)
        assert torch.equal(maps, kept)  # a stage must not change its input, which may be kept for other trials
        maps = after
    assert maps.shape == (2, backbone.num_features)
    assert torch.equal(head(maps), logits_NK)


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "timm/tf_efficientnet_lite0"])
def test_a_network_that_is_split_after_any_stage_gives_the_same_logits(name: str) -> None:
    backbone, model, head = backbone_with_head(name)
    images_NCHW = torch.randn(2, 3, 32, 32)
    logits_NK = model(images_NCHW)
    for k in range(len(backbone.stages) + 1):
        maps = apply(backbone.stages[:k], images_NCHW)
        tail = nn.Sequential(*backbone.stages[k:], head).eval()
        assert torch.equal(tail(maps), logits_NK)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "timm/vit_tiny_patch16_224", "timm/convnext_atto"])
def test_the_stages_share_all_weights_of_the_model_but_those_of_the_head(name: str) -> None:
    backbone, model, head = backbone_with_head(name)
    in_stages = {id(one) for stage in backbone.stages for one in stage.parameters()}
    in_head = {id(one) for one in head.parameters()}
    assert in_stages | in_head == {id(one) for one in model.parameters()}
    assert not in_stages & in_head
    assert model.get_submodule(backbone.head_name) is head
    assert {f"{backbone.head_name}.1.weight", f"{backbone.head_name}.1.bias"} <= set(model.state_dict())


def test_a_change_of_the_models_weights_changes_the_features_of_its_stages() -> None:
    name = "timm/vit_tiny_patch16_224"  # its class token and position embedding are parameters of the model itself
    backbone, model, _ = backbone_with_head(name)
    images_NCHW = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        before = apply(backbone.stages, images_NCHW)
        model.load_state_dict({key: value + 0.01 for key, value in model.state_dict().items()})
        assert not torch.equal(apply(backbone.stages, images_NCHW), before)


@pytest.mark.parametrize("name", [name for name, _ in [*SMALL, *LARGE]])
def test_a_backbone_is_built_without_memory_and_each_stage_can_be_trained(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
    assert {one.device.type for one in backbone.model.parameters()} == {"meta"}
    assert stages_with_parameters(backbone) == len(backbone.stages)


@torch.no_grad()
@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "timm/tf_efficientnet_lite0"])
def test_features_have_their_shape_on_the_meta_device(name: str) -> None:
    with torch.device("meta"):
        backbone = build_backbone(name)
        backbone.model.eval()
        assert apply(backbone.stages, torch.empty(2, 3, 64, 64)).shape == (2, backbone.num_features)


@pytest.mark.slow
def test_every_backbone_of_torchvision_can_be_built_and_has_an_input() -> None:
    assert len(known_backbones()) > 70
    for name in known_backbones():
        with torch.device("meta"):
            assert build_backbone(name).num_features > 100
        assert 0.8 < input_of(name).crop_fraction <= 1


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "googlenet", "timm/resnet18.a1_in1k"])
def test_the_source_builds_the_same_network(name: str) -> None:
    import timm
    import torchvision

    with torch.device("meta"):
        model = eval(rebuild_source(name), {"timm": timm, "torchvision": torchvision})
        expected = build_backbone(name).model
    assert repr(model) == repr(expected)
    assert list(model.state_dict()) == list(expected.state_dict())


def test_the_input_is_that_of_the_librarys_weights() -> None:
    resnet = input_of("resnet18")
    assert (resnet.height, resnet.width, resnet.interpolation, resnet.crop_fraction) == (224, 224, "bilinear", 0.875)
    assert resnet.mean == (0.485, 0.456, 0.406)
    assert resnet.std == (0.229, 0.224, 0.225)
    assert input_of("efficientnet_b0").interpolation == "bicubic"
    lite = input_of("timm/tf_efficientnet_lite0")
    assert (lite.height, lite.interpolation, lite.mean, lite.std) == (224, "bicubic", (0.5,) * 3, (0.5,) * 3)
    assert not lite.fixed_size
    assert input_of("vit_b_32").fixed_size
    assert input_of("timm/vit_tiny_patch16_224").fixed_size


@torch.no_grad()
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"crop_mode": "squash"}, "the crop mode 'squash'"),
        ({"crop_mode": "border"}, "the crop mode 'border'"),
        ({"crop_pct": 1.15}, "the crop fraction 1.15"),
        ({"crop_pct": float("nan")}, "the crop fraction nan"),
        ({"crop_pct": float("inf")}, "the crop fraction inf"),
        ({"crop_pct": 0.0}, "the crop fraction 0.0"),
        ({"interpolation": "lanczos"}, "the interpolation 'lanczos'"),
        ({"input_size": (1, 32, 32)}, "the number of channels 1"),
    ],
)
def test_weights_whose_images_cannot_be_prepared_exactly_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, object], words: str
) -> None:
    import timm

    own = timm.models.get_pretrained_cfg("resnet18")
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda name: replace(own, **change))
    with pytest.raises(BackboneError, match=rf"of timm/resnet18 expect {re.escape(words)}, which is not") as caught:
        input_of("timm/resnet18")
    assert "\n" not in str(caught.value)


def test_every_backbone_of_timm_has_an_input_or_is_refused_in_one_line() -> None:
    import timm

    refused = []
    for name in timm.list_models(pretrained=True):
        try:
            own = timm_input(f"timm/{name}")
        except BackboneError:
            refused.append(name)
        else:
            Resizing(own.interpolation, own.crop_fraction)
            assert len(own.mean) == len(own.std) == 3
            assert min(own.std) > 0
    assert "volo_d5_512.sail_in1k" in refused  # a crop fraction of 1.15
    assert "tf_efficientnet_lite0.in1k" not in refused


def test_the_smallest_crop_fraction_of_a_backbone_is_that_of_images() -> None:
    assert LEAST_CROP_FRACTION == resizing.LEAST_CROP_FRACTION


def test_the_input_of_googlenet_replaces_the_conversion_in_torchvisions_network() -> None:
    from torchvision.models import googlenet

    torch.manual_seed(0)
    own = build_backbone("googlenet").model.eval()
    theirs = googlenet(weights=None, aux_logits=False, transform_input=True, init_weights=False).eval()
    theirs.load_state_dict(own.state_dict())
    pixels_NCHW = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    own_input = input_of("googlenet")
    own_mean, own_std = (torch.tensor(value).view(3, 1, 1) for value in (own_input.mean, own_input.std))
    torch.testing.assert_close(own((pixels_NCHW - own_mean) / own_std), theirs((pixels_NCHW - mean) / std))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "'resnet19' is not the name of a backbone: did you mean .*resnet18"),
        ("ResNet18", "did you mean resnet18"),
        ("squeezenet1_0", "not the name of a backbone"),
        ("", "'' is not the name of a backbone: torchvision's classifiers and timm/NAME are known"),
        ("timm/resnet18.nosuch", "did you mean timm/resnet18"),
        ("timm/hf-hub:timm/resnet18", "not the name of a backbone"),
        ("timm/../resnet18", "not the name of a backbone"),
        ("timm/dla34", "must end with one linear classifier, and timm/dla34 does not"),
    ],
)
def test_an_unknown_name_is_an_error_with_similar_names(name: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message) as caught, torch.device("meta"):
        build_backbone(name)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, TunerError)


def test_weights_that_expect_a_margin_around_each_image_are_refused() -> None:
    with pytest.raises(BackboneError, match=r"timm/volo_d4_448 expect the crop fraction 1\.15, .* not supp") as caught:
        input_of("timm/volo_d4_448")
    assert "\n" not in str(caught.value)


def test_without_timm_the_error_is_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # as Python marks a package that cannot be imported
    for function in (build_backbone, input_of, rebuild_source):
        with pytest.raises(BackboneError, match=r'pip install "tuner\[pretrained\]"'):
            function("timm/resnet18")
    assert input_of("resnet18").height == 224


@pytest.mark.slow
def test_the_document_lists_the_stages_of_each_family() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "pretrained.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|`]+ \| (`[^|]+) \| (\d+)(?: (?:or|to) (\d+))? \|$", text, flags=re.MULTILINE)
    assert len(rows) == 12
    for examples, least, most in rows:
        for name, number in re.findall(r"`([^`]+)`(?: \((\d+)\))?", examples):
            found = num_stages(name)
            assert found == int(number) if number else int(least) <= found <= int(most or least), name
