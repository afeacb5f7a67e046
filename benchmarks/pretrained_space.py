"""The space `pretrained` with a single backbone, so that both sides of a comparison start from the same weights."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from tuner.architecture.backbones import input_of
from tuner.errors import BackboneError
from tuner.options import weights_from
from tuner.space.toml_file import bundled_spaces, load_space


def parse_weights(text: str) -> tuple[str, Path]:
    """Return the name and the file of `NAME=FILE`. Raises typer.BadParameter."""
    if not all(text.partition("=")):
        raise typer.BadParameter(f"must be NAME=FILE, with the name of a backbone; got {text!r}")
    ((name, file),) = weights_from((text,)).items()
    return name, file


def check_image_size(backbone: str, image_size: int) -> None:
    """Raise BackboneError for a side in pixels that a backbone cannot take."""
    own = input_of(backbone)
    if own.fixed_size and (own.height, own.width) != (image_size, image_size):
        raise BackboneError(
            f"--image-size must be {own.height} for {backbone}, which has no other size; got {image_size}"
        )


def write_space(folder: Path, backbone: str, *, image_size: int = 0) -> Path:
    """Write the bundled space with one backbone and one image size to `pretrained.toml`, and return its path.

    image_size: side in pixels; 0 is the size that the weights were trained with. Raises SpaceError for a size that a
    space cannot have.
    """
    text = bundled_spaces()["pretrained"].read_text(encoding="utf-8")
    for key, value in (("name", f'"{backbone}"'), ("image_size", str(image_size))):
        text, count = re.subn(rf"^{key} = (\[[^\]]*\]|.*)$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert count == 1, f"the bundled space must have {key} once"
    path = folder / "pretrained.toml"
    path.write_text(text, encoding="utf-8")
    section = load_space(str(path)).backbone
    assert section is not None
    assert (list(section.name.values), list(section.image_size.values)) == ([backbone], [image_size])
    return path
