"""Read pretrained weights from a file as data, check that they fit a backbone, and compute their digest."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tuner.architecture.backbones import Backbone, build_backbone
from tuner.errors import BackboneError, reason_of
from tuner.names import first_few

_NESTED_IN = ("state_dict", "model_state_dict", "model")
_MOST_NESTED = 3
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel, of torch.compile
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")  # classifiers of GoogLeNet and Inception that only training uses


def read_weights(path: Path, backbone_name: str) -> dict[str, Tensor]:
    """Read the weights of a backbone without its classifier: CPU tensors, with the library's names and types.

    The file is a state dict that torch saved (.pth, .pt), alone or inside a checkpoint, or a safetensors file. No code
    in it runs. Its classifier may be missing or have any number of classes. Raises BackboneError, in one line, if the
    file cannot be read or if anything else in it does not fit the backbone.
    """
    with torch.device("meta"):
        backbone = build_backbone(backbone_name)
    return _fitting(_state_dict_in(_contents_of(path), path), backbone, path)


def weights_digest(state: Mapping[str, Tensor]) -> str:
    """16 hex digits of the names, types, shapes and bytes of weights, in any order: of what `read_weights` returns."""
    digest = blake2b(digest_size=8)
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _contents_of(path: Path) -> object:
    """What a file contains, which is decided by its first bytes, not by its name."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if start[8:9] == b"{":  # the JSON header of safetensors, after its length
            return _safetensors_in(path)
        # torch maps only files of its present format, and only those whose names are text
        mmap = zipfile.is_zipfile(path) and str(path).isprintable()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about details of the file; what matters is checked here
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except OSError as error:
        raise BackboneError(f"{path}: cannot be read: {reason_of(error)}") from error
    except BackboneError:
        raise
    except Exception as error:  # torch.load raises whatever the damaged bytes lead to
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            message = (
                f"{path}: weights are read as data, and this file needs code to be unpickled: "
                "save only the state dict, with torch.save(model.state_dict(), FILE)"
            )
        else:
            message = f"{path}: not a file of weights, or damaged ({type(error).__name__})"
        raise BackboneError(message) from error


def _safetensors_in(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load
    except ImportError as error:
        message = f'{path}: safetensors is not installed, which reads this file: pip install "tuner[pretrained]"'
        raise BackboneError(message) from error
    weights: dict[str, Tensor] = load(path.read_bytes())  # safetensors opens no file whose name is not UTF-8
    return weights


def _state_dict_in(contents: object, path: Path) -> dict[str, Tensor]:
    """The state dict in a file's contents, without the prefix of a wrapper."""
    for _ in range(_MOST_NESTED):
        if isinstance(contents, Mapping):
            inner = (contents[key] for key in _NESTED_IN if isinstance(contents.get(key), Mapping))
            contents = next(inner, contents)
    if not isinstance(contents, Mapping) or not contents:
        raise BackboneError(f"{path}: contains no state dict, but {type(contents).__name__}: save model.state_dict()")
    state = dict(contents)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise BackboneError(f"{path}: not a state dict: the value of {name!r} is {type(value).__name__}")
    while prefix := next((one for one in _PREFIXES if all(name.startswith(one) for name in state)), ""):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _fitting(state: Mapping[str, Tensor], backbone: Backbone, path: Path) -> dict[str, Tensor]:
    """The weights in the order and types of the backbone. Raises BackboneError if they do not fit exactly."""
    classifier = f"{backbone.head_name}."
    expected = {name: one for name, one in backbone.model.state_dict().items() if not name.startswith(classifier)}
    dropped = (classifier, *_AUXILIARY)
    given = _with_present_names({name: one for name, one in state.items() if not name.startswith(dropped)}, expected)
    if missing := [name for name in expected if name not in given]:
        raise BackboneError(f"{path}: not weights of {backbone.name}: the file lacks {first_few(missing, most=3)}")
    if unknown := [name for name in given if name not in expected]:
        raise BackboneError(f"{path}: not weights of {backbone.name}, which has no {first_few(unknown, most=3)}")
    fitting = {}
    for name, wanted in expected.items():
        value = given[name]
        if value.shape != wanted.shape:
            raise BackboneError(
                f"{path}: not weights of {backbone.name}: {name!r} has shape {tuple(value.shape)} in the file and "
                f"{tuple(wanted.shape)} in the network"
            )
        is_plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
        if not is_plain or value.is_floating_point() != wanted.is_floating_point() or value.is_complex():
            raise BackboneError(f"{path}: {name!r} must be a plain tensor of type {wanted.dtype}; it is {value.dtype}")
        fitting[name] = value.detach().to(wanted.dtype)
    return fitting


def _with_present_names(state: Mapping[str, Tensor], expected: Mapping[str, Any]) -> dict[str, Tensor]:
    """Rename weights of earlier versions of the libraries, as the libraries do when they load them.

    Sources: `_load_state_dict` in torchvision.models.densenet, `MLPBlock` in torchvision.models.vision_transformer, and
    `_NormBase` in torch, whose earlier state dicts have no number of batches.
    """
    present = {}
    for name, value in state.items():
        new = re.sub(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", name)
        new = re.sub(r"\.mlp\.linear_([12])\.", lambda match: f".mlp.{3 * (int(match[1]) - 1)}.", new)
        present[name if name in expected else new] = value
    for name in expected:
        if name.endswith(".num_batches_tracked") and name not in present:
            present[name] = torch.tensor(0)
    return present
