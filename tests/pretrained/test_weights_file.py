"""Files of pretrained weights: every form that people have, and everything that is none."""

from __future__ import annotations

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tuner.architecture.backbones import build_backbone
from tuner.errors import BackboneError
from tuner.pretrained.weights_file import read_weights, weights_digest

NAME = "shufflenet_v2_x0_5"  # a small one, 5 MB


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(build_backbone(NAME).model.state_dict())


@pytest.fixture(scope="module")
def digest(state: dict[str, Tensor]) -> str:
    return weights_digest({name: one for name, one in state.items() if not name.startswith("fc.")})


def saved(tmp_path: Path, contents: object, **options: Any) -> Path:
    path = tmp_path / "weights.pth"
    torch.save(contents, path, **options)
    return path


FORMS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "state dict": lambda state: state,
    "as parameters": lambda state: {
        name: nn.Parameter(one) if one.is_floating_point() else one for name, one in state.items()
    },
    "in another order": lambda state: dict(sorted(state.items(), reverse=True)),
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "arch": NAME},
    "model": lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": []}},
    "module.": lambda state: {"state_dict": {f"module.{name}": one for name, one in state.items()}},
    "module._orig_mod.": lambda state: {f"module._orig_mod.{name}": one for name, one in state.items()},
    "no classifier": lambda state: {name: one for name, one in state.items() if not name.startswith("fc.")},
    "7 classes": lambda state: {**state, "fc.weight": torch.zeros(7, 1024), "fc.bias": torch.zeros(7)},
    "a head of several layers": lambda state: {
        **{name: one for name, one in state.items() if not name.startswith("fc.")},
        "fc.1.weight": torch.zeros(7, 1024),
    },
    "no batch counts": lambda state: {name: one for name, one in state.items() if "num_batches" not in name},
    "double precision": lambda state: {
        name: one.double() if one.is_floating_point() else one for name, one in state.items()
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_has_the_same_weights_and_digest(
    form: str, state: dict[str, Tensor], digest: str, tmp_path: Path
) -> None:
    weights = read_weights(saved(tmp_path, FORMS[form](state)), NAME)
    assert weights_digest(weights) == digest
    assert list(weights) == [name for name in state if not name.startswith("fc.")]
    assert all(torch.equal(one, state[name]) and type(one) is Tensor for name, one in weights.items())


def test_torchs_earlier_format_and_safetensors_have_the_same_digest(
    state: dict[str, Tensor], digest: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, state, _use_new_zipfile_serialization=False)
    assert weights_digest(read_weights(path, NAME)) == digest
    for name in ("weights.safetensors", "renamed.pth"):
        save_file(state, tmp_path / name)
        assert weights_digest(read_weights(tmp_path / name, NAME)) == digest


def test_a_file_whose_name_is_not_text_can_be_read(state: dict[str, Tensor], digest: str, tmp_path: Path) -> None:
    path = saved(tmp_path, state)
    renamed = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.pth"))
    try:
        path.rename(renamed)
    except OSError:
        return  # this system has no such names
    assert weights_digest(read_weights(renamed, NAME)) == digest


def test_half_precision_becomes_the_precision_of_the_network(state: dict[str, Tensor], tmp_path: Path) -> None:
    halves = {name: one.half() if one.is_floating_point() else one for name, one in state.items()}
    weights = read_weights(saved(tmp_path, halves), NAME)
    assert weights["conv1.0.weight"].dtype is torch.float32
    assert torch.equal(weights["conv1.0.weight"], halves["conv1.0.weight"].float())


def test_the_digest_depends_on_names_types_shapes_and_values() -> None:
    one = {"a": torch.arange(6.0), "b": torch.tensor(3)}
    changed: list[dict[str, Tensor]] = [
        {"a": one["a"], "c": one["b"]},
        {"a": one["a"].reshape(2, 3), "b": one["b"]},
        {"a": one["a"].double(), "b": one["b"]},
        {"a": one["a"].view(torch.int32), "b": one["b"]},
        {"a": one["a"] + 1, "b": one["b"]},
        {"a": one["a"]},
    ]
    digests = {weights_digest(state) for state in [one, *changed]}
    assert len(digests) == 1 + len(changed)
    assert all(len(digest) == 16 and int(digest, 16) >= 0 for digest in digests)
    strided = {"a": torch.stack([one["a"], one["a"]], dim=1)[:, 0], "b": one["b"]}
    assert weights_digest(strided) == weights_digest(one)


def test_weights_with_names_of_earlier_versions_of_torchvision_fit(tmp_path: Path) -> None:
    import re

    state = build_backbone("densenet121").model.state_dict()
    earlier = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): one for name, one in state.items()}
    earlier = {name: one for name, one in earlier.items() if "num_batches" not in name}
    assert "features.denseblock1.denselayer1.norm.1.weight" in earlier
    weights = read_weights(saved(tmp_path, earlier), "densenet121")
    assert all(torch.equal(one, state[name]) for name, one in weights.items())


def test_auxiliary_classifiers_are_dropped(tmp_path: Path) -> None:
    from torchvision.models import googlenet

    state = googlenet(weights=None, aux_logits=True, init_weights=False).state_dict()
    assert any(name.startswith("aux1.") for name in state)
    weights = read_weights(saved(tmp_path, state), "googlenet")
    assert not any(name.startswith(("aux", "fc.")) for name in weights)


def test_weights_of_timm_fit_by_its_names(tmp_path: Path) -> None:
    state = build_backbone("timm/mobilenetv3_small_050").model.state_dict()
    path = tmp_path / "model.safetensors"
    save_file(dict(state), path)
    weights = read_weights(path, "timm/mobilenetv3_small_050")
    assert set(state) - set(weights) == {"classifier.weight", "classifier.bias"}


class RunsCode:
    """A value whose unpickling would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_file_that_needs_code_is_refused_and_its_code_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    legacy = tmp_path / "plain.pickle"
    legacy.write_bytes(pickle.dumps(RunsCode(trace), protocol=2))
    whole = tmp_path / "whole.pth"
    torch.save(build_backbone(NAME).model, whole)
    for path in (
        saved(tmp_path, {"state_dict": RunsCode(trace)}),
        legacy,
        whole,
    ):
        with pytest.raises(BackboneError, match=r"needs code to be unpickled: save only the state dict") as caught:
            read_weights(path, NAME)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    assert not trace.exists()
    with pytest.raises(BackboneError, match="needs code"):
        read_weights(saved(tmp_path, {"model": {}, "args": argparse.Namespace(lr=1)}), NAME)


def recursive() -> dict[str, Any]:
    contents: dict[str, Any] = {}
    contents["model"] = contents
    return contents


MISFITS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "no dictionary": (lambda state: [1, 2], "contains no state dict, but list"),
    "a tensor": (lambda state: torch.zeros(3), "contains no state dict, but Tensor"),
    "nothing": (lambda state: {}, "contains no state dict"),
    "itself": (lambda state: recursive(), "the value of 'model' is dict"),
    "numbers": (lambda state: {"conv1.0.weight": 3.0}, "the value of 'conv1.0.weight' is float"),
    "no names": (lambda state: {1: torch.zeros(1)}, "the value of 1 is Tensor"),
    "one missing": (
        lambda state: {name: one for name, one in state.items() if name != "conv5.0.weight"},
        "not weights of shufflenet_v2_x0_5: the file lacks 'conv5.0.weight'$",
    ),
    "one too many": (lambda state: {**state, "more\nlines": torch.zeros(1)}, r"which has no 'more\\nlines'$"),
    "another shape": (
        lambda state: {**state, "conv1.0.weight": torch.zeros(24, 1, 3, 3)},
        r"'conv1.0.weight' has shape \(24, 1, 3, 3\) in the file and \(24, 3, 3, 3\) in the network",
    ),
    "integers": (
        lambda state: {**state, "conv1.0.weight": torch.zeros(24, 3, 3, 3, dtype=torch.int64)},
        r"'conv1.0.weight' must be a plain tensor of type torch.float32; it is torch.int64",
    ),
    "complex": (
        lambda state: {**state, "conv1.0.weight": torch.zeros(24, 3, 3, 3, dtype=torch.complex64)},
        "it is torch.complex64",
    ),
    "sparse": (lambda state: {**state, "conv1.0.weight": torch.zeros(24, 3, 3, 3).to_sparse()}, "must be a plain"),
    "without values": (
        lambda state: {**state, "conv1.0.weight": torch.zeros(24, 3, 3, 3, device="meta")},
        "must be a plain tensor",
    ),
    "huge": (lambda state: {**state, "conv1.0.bias": torch.zeros(1).expand(10**12)}, "which has no 'conv1.0.bias'"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_one_line_with_the_file_and_the_name(
    case: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    make, message = MISFITS[case]
    path = saved(tmp_path, make(state))
    with pytest.raises(BackboneError, match=message) as caught:
        read_weights(path, NAME)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_truncated_or_unrelated_file_is_one_line(state: dict[str, Tensor], tmp_path: Path) -> None:
    zipped = saved(tmp_path, state).read_bytes()
    legacy = saved(tmp_path, state, _use_new_zipfile_serialization=False).read_bytes()
    save_file(state, tmp_path / "whole.safetensors")
    safe = (tmp_path / "whole.safetensors").read_bytes()
    broken = tmp_path / "broken.pth"
    for data in (
        b"",
        b"not weights",
        b"<html><title>404 Not Found</title></html>",
        zipped[: len(zipped) // 2],
        zipped[:4] + bytes(len(zipped) // 2),
        legacy[: len(legacy) // 2],
        safe[: len(safe) // 2],
        safe[:100],
        b"\xff" * 8 + b"{",
        b"\x80\x02" + bytes(100),
    ):
        broken.write_bytes(data)
        with pytest.raises(BackboneError, match="not a file of weights, or damaged") as caught:
            read_weights(broken, NAME)
        assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"none\.pth: cannot be read: No such file"):
        read_weights(tmp_path / "none.pth", NAME)
    with pytest.raises(BackboneError, match="cannot be read"):
        read_weights(tmp_path, NAME)
