"""Export formats: how each one is written, and the code that uses it.

The README shows this code, and the check of an export runs it: it reads images.pt or images.npy, and leaves the logits
of all images in `logits_NK`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch.export import ExportedProgram

from tuner.deliver import onnx_file, safetensors_file
from tuner.deliver.backbone_source import BUILD_HEAD, import_lines, library_of, rebuilt_model
from tuner.deliver.source_file import literal, named_weights, source_of
from tuner.training.checkpoint import Checkpoint, description_of, save_checkpoint

FormatName = Literal["pt", "safetensors", "onnx", "pt2", "python"]
FORMAT_NAMES: tuple[FormatName, ...] = get_args(FormatName)
WEIGHTS = "weights.pt"
"""The file beside model.py that it loads."""

Program = Callable[[], ExportedProgram]
"""Function that returns the traced network. It is called only if needed, because tracing takes seconds."""


@dataclass(frozen=True)
class Format:
    """One export format.

    file_name: default name of its file. about: description for a README; about_backbone: the same for a network with a
    backbone, where it differs, with LIBRARY for the package that builds the backbone.
    write: writes to a path; python writes its weights beside it. snippet: the code that uses the file, named `FILE` in
    it.
    images: the file of images that the code reads. needs: packages of the extra `export`.
    """

    file_name: str
    about: str
    write: Callable[[Checkpoint, Path, Program], None]
    snippet: str
    images: Literal["images.pt", "images.npy"] = "images.pt"
    needs: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    about_backbone: str = ""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files that it writes into a folder."""
        return (self.file_name, *self.companions)

    def description(self, *, backbone: str = "") -> str:
        """What the file is. backbone: as in `usage`."""
        if not backbone:
            return self.about
        return (self.about_backbone or self.about).replace("LIBRARY", library_of(backbone))

    def usage(self, file_name: str, *, flip_test: bool = False, backbone: str = "") -> str:
        """The code that uses a file with this name.

        Networks that it builds itself need other code for a flip test, and for a backbone. backbone: name of the
        network's backbone, empty for a traced network.
        """
        code = self.snippet.replace(_ONE_PASS, _TWO_PASSES) if flip_test else self.snippet
        if backbone and _BUILD in code:
            code = code.replace("import torch\n", import_lines(backbone)).replace(_BUILD, BUILD_HEAD)
            code = code.replace(_BUILT_MODEL, rebuilt_model(backbone))
        return code.replace("FILE", literal(file_name))


def _write_pt(checkpoint: Checkpoint, path: Path, _: Program) -> None:
    save_checkpoint(checkpoint, path)


def _write_safetensors(checkpoint: Checkpoint, path: Path, _: Program) -> None:
    safetensors_file.save_safetensors(checkpoint, path)


def _write_onnx(checkpoint: Checkpoint, path: Path, program: Program) -> None:
    onnx_file.save_onnx(checkpoint, program(), path)


def _write_pt2(checkpoint: Checkpoint, path: Path, program: Program) -> None:
    extra_files = {"checkpoint.json": json.dumps(description_of(checkpoint))}
    with path.open("wb") as file:
        torch.export.save(program(), file, extra_files=extra_files)


def _write_python(checkpoint: Checkpoint, path: Path, _: Program) -> None:
    path.write_text(source_of(checkpoint), encoding="utf-8", newline="\n")
    torch.save(named_weights(checkpoint), path.with_name(WEIGHTS))


_BUILD = """

class Joined(nn.ModuleDict):
    def forward(self, x):
        return self.join(self["main"](x), self["shortcut"](x))


def build(layer):
    if isinstance(layer, list):
        return nn.Sequential(*map(build, layer))
    if "type" in layer:
        return getattr(nn, layer["type"])(**layer["arguments"])
    joined = Joined({name: build(layer[name]) for name in ("main", "shortcut")})
    joined.join = getattr(torch, layer["join"])
    return joined


"""
_ONE_PASS = """\
    logits_NK = torch.cat([model((batch_NCHW / 255 - mean) / std) for batch_NCHW in images_NCHW.split(64)])
"""
_TWO_PASSES = """\
    batches = [(batch_NCHW / 255 - mean) / std for batch_NCHW in images_NCHW.split(64)]
    logits_NK = torch.cat([(model(batch_NCHW) + model(batch_NCHW.flip(3))) / 2 for batch_NCHW in batches])
"""
_BUILT_MODEL = """\
model = build(checkpoint["layers"])
"""
_REBUILD = (
    _BUILT_MODEL
    + """\
model.load_state_dict({weights})
model.eval()

images_NCHW = torch.load("images.pt", weights_only=True)
mean, std = (torch.tensor(checkpoint["preprocessing"][key]).view(-1, 1, 1) for key in ("mean", "std"))
with torch.inference_mode():
{passes}print([checkpoint["class_names"][index] for index in logits_NK.argmax(1)])
"""
)

FORMATS: dict[FormatName, Format] = {
    "pt": Format(
        file_name="best.pt",
        about="Weights, layers, preprocessing, classes, scores and origin; plain torch loads it and runs no code in it",
        about_backbone="Weights, layers of the head, preprocessing, classes, scores and origin; loading it runs no "
        "code in it, and LIBRARY builds the backbone",
        write=_write_pt,
        snippet="""\
import torch
from torch import nn
"""
        + _BUILD
        + """\
checkpoint = torch.load(FILE, weights_only=True)
"""
        + _REBUILD.format(weights='checkpoint["weights"]', passes=_ONE_PASS),
    ),
    "safetensors": Format(
        file_name="best.safetensors",
        about="The same as safetensors; all but the weights is JSON in its metadata",
        write=_write_safetensors,
        needs=safetensors_file.NEEDS,
        snippet="""\
import json

import torch
from safetensors import safe_open
from torch import nn
"""
        + _BUILD
        + """\
with safe_open(FILE, framework="pt") as file:
    checkpoint = {name: json.loads(value) for name, value in file.metadata().items()}
    weights = {name: file.get_tensor(name) for name in file.keys()}
"""
        + _REBUILD.format(weights="weights", passes=_ONE_PASS),
    ),
    "onnx": Format(
        file_name="best.onnx",
        about="From any number of uint8 images to logits, by onnxruntime; the preprocessing is inside, the rest "
        "is JSON in its metadata",
        write=_write_onnx,
        needs=onnx_file.NEEDS_TO_WRITE,
        images="images.npy",
        snippet="""\
import json

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(FILE, providers=["CPUExecutionProvider"])
class_names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])

images_NCHW = np.load("images.npy")
batches = np.split(images_NCHW, range(64, len(images_NCHW), 64))
logits_NK = np.concatenate([session.run(None, {"images_NCHW": batch_NCHW})[0] for batch_NCHW in batches])
print([class_names[index] for index in logits_NK.argmax(1)])
""",
    ),
    "pt2": Format(
        file_name="best.pt2",
        about="From any number of uint8 images to logits, as a program of torch.export; the preprocessing is inside. "
        "Loading it unpickles, so load only a file that you trust",
        write=_write_pt2,
        snippet="""\
import json

import torch

files = {"checkpoint.json": ""}
model = torch.export.load(FILE, extra_files=files).module()
class_names = json.loads(files["checkpoint.json"])["class_names"]

images_NCHW = torch.load("images.pt", weights_only=True)
with torch.inference_mode():
    logits_NK = torch.cat([model(batch_NCHW) for batch_NCHW in images_NCHW.split(64)])
print([class_names[index] for index in logits_NK.argmax(1)])
""",
    ),
    "python": Format(
        file_name="model.py",
        about=f"The network as source to read and change, which imports torch alone, with its weights in {WEIGHTS}; "
        "`python model.py` names the classes of the images in images.pt",
        about_backbone=f"The network as source to read and change, which imports torch and LIBRARY, with its weights "
        f"in {WEIGHTS}; `python model.py` names the classes of the images in images.pt",
        write=_write_python,
        companions=(WEIGHTS,),
        snippet="""\
import torch
from model import CLASS_NAMES, load

network = load("weights.pt")
images_NCHW = torch.load("images.pt", weights_only=True)
with torch.inference_mode():
    logits_NK = torch.cat([network(batch_NCHW) for batch_NCHW in images_NCHW.split(64)])
print([CLASS_NAMES[index] for index in logits_NK.argmax(1)])
""",
    ),
}
"""Formats by name, in the order in which `all` writes them."""
