"""Python source that builds a network with a backbone, with torchvision or timm and without tuner."""

from __future__ import annotations

from tuner.architecture.backbone_modules import head_name_of
from tuner.architecture.backbones import is_timm, rebuild_source

LINE_LENGTH = 120
BUILD_HEAD = """

def build(layers):
    return nn.Sequential(*(getattr(nn, layer["type"])(**layer["arguments"]) for layer in layers))


"""


def library_of(backbone: str) -> str:
    """Name of the package that builds a backbone."""
    return "timm" if is_timm(backbone) else "torchvision"


def import_lines(backbone: str) -> str:
    """The imports of torch and of the backbone's library, in alphabetical order."""
    return "".join(f"import {name}\n" for name in sorted(["torch", library_of(backbone)]))


def assigned_backbone(target: str, backbone: str, *, indent: int = 0) -> str:
    """The statement that assigns the backbone with random weights; on three lines if one would be too long."""
    margin, source = " " * indent, rebuild_source(backbone)
    line = f"{margin}{target} = {source}\n"
    if len(line) <= LINE_LENGTH:
        return line
    function, _, arguments = source.removesuffix(")").partition("(")
    return f"{margin}{target} = {function}(\n{margin}    {arguments}\n{margin})\n"


def rebuilt_model(backbone: str) -> str:
    """The statements that build a checkpoint's network, `model`, with `build` from BUILD_HEAD."""
    head = f'model.set_submodule("{head_name_of(backbone)}", build(checkpoint["layers"]))\n'
    return assigned_backbone("model", backbone) + head
