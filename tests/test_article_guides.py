"""The tutorial for readers of the article: every command and snippet of it runs, and both languages have the same ones.

They run as they are printed, in a folder of their own, but on less data and for less time:

- MNIST is replaced by scikit-learn's digits, enlarged to 28x28 pixels and stored as MNIST's files in `data/MNIST/raw`.
- `--dataset cifar10` becomes `--dataset stand-ins/cifar10`, a folder of generated colour images of 32x32 pixels.
- `hymenoptera_data` is a folder of generated colour images of 80x80 pixels, and `--space pretrained` becomes
  `--space stand-ins/pretrained.toml`, the bundled space with one small backbone, whose weights are random.
- `--budget ...` becomes `--trials 2 --epochs 1`.

A block of `text` is the output of the block before it. Any number may stand where it has a number, and anything where
it has `...`. What `inspect` prints is the same on every machine, so an output of it without `...` must be exact.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from tests.data.sample_data import write_idx
from tests.pretrained_networks import NAME
from tuner.architecture.backbones import build_backbone

ROOT = Path(__file__).resolve().parents[1]
GUIDES = [ROOT / "docs" / name for name in ("from-the-article.md", "from-the-article.zh-CN.md")]
REPLACEMENTS = (
    (r"--dataset cifar10\b", "--dataset stand-ins/cifar10"),
    (r"--space pretrained\b", f"--space stand-ins/pretrained.toml --weights {NAME}=stand-ins/weights.pth"),
    (r"--budget \S+", "--trials 2 --epochs 1"),
)
SPACE_FILE = "my-space.toml"
SECONDS = 600
"""Limit of one command, so that one that hangs fails."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a guide. output: the block of text that follows it, or None."""

    language: str
    text: str
    output: str | None = None


def blocks_of(path: Path) -> list[Block]:
    """The blocks of a guide, each with its output."""
    blocks = list[Block]()
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", path.read_text(encoding="utf-8"), re.S | re.M):
        if language == "text":
            assert blocks[-1].output is None, f"two outputs of {blocks[-1].text}"
            blocks[-1] = Block(blocks[-1].language, blocks[-1].text, output=text)
        else:
            blocks.append(Block(language, text))
    return blocks


def write_stand_ins(folder: Path) -> None:
    """Write the stand-ins for MNIST, CIFAR-10, ants and bees, and pretrained weights below a folder."""
    digits = load_digits()
    for part, images, labels in (
        ("train", digits.images[:600], digits.target[:600]),
        ("t10k", digits.images[600:800], digits.target[600:800]),
    ):
        pictures = [Image.fromarray((image * 15).astype(np.uint8)).resize((28, 28)) for image in images]
        raw = folder / "data" / "MNIST" / "raw"
        write_idx(raw / f"{part}-images-idx3-ubyte", np.stack([np.asarray(picture) for picture in pictures]))
        write_idx(raw / f"{part}-labels-idx1-ubyte", labels.astype(np.uint8))
    random = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 10)):
        for name in ("airplane", "cat", "ship"):
            classes = folder / "stand-ins" / "cifar10" / part / name
            classes.mkdir(parents=True)
            for number in range(count):
                draw_thing(name, random).save(classes / f"{number}.png")
    for part, count in (("train", 40), ("test", 10)):
        for name, thing in (("ants", "cat"), ("bees", "ship")):
            classes = folder / "hymenoptera_data" / part / name
            classes.mkdir(parents=True)
            for number in range(count):
                draw_thing(thing, random).resize((80, 80)).save(classes / f"{number}.png")
    bundled = (ROOT / "search_spaces" / "pretrained.toml").read_text(encoding="utf-8")
    small = re.sub(r"^name = .*$", f'name = "{NAME}"', bundled, flags=re.M).replace("image_size = 0", "image_size = 64")
    (folder / "stand-ins" / "pretrained.toml").write_text(small, encoding="utf-8")
    torch.manual_seed(0)
    torch.save(build_backbone(NAME).model.state_dict(), folder / "stand-ins" / "weights.pth")


def draw_thing(name: str, random: np.random.Generator) -> Image.Image:
    """A shape of each class on a ground of its own colour, at a random place."""
    image = Image.new("RGB", (32, 32), tuple(int(value) for value in random.integers(0, 100, 3)))
    draw = ImageDraw.Draw(image)
    left, top = (int(value) for value in random.integers(2, 14, 2))
    colour = tuple(int(value) for value in random.integers(150, 256, 3))
    box = (left, top, left + 14, top + 14)
    match name:
        case "airplane":
            draw.line(box, fill=colour, width=3)
        case "cat":
            draw.ellipse(box, fill=colour)
        case "ship":
            draw.rectangle(box, fill=colour)
    return image


def run_blocks(blocks: list[Block], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run blocks one after another in a folder, with its stand-ins, and compare what they print."""
    write_stand_ins(folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("COLUMNS", "120")  # a narrower terminal hides a column of `inspect`
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    names: dict[str, Any] = {}
    for block in blocks:
        match block.language:
            case "python":
                assert_printed(block, run_snippet(block, names))
            case "sh":
                assert_printed(block, "".join(run_command(line) for line in block.text.splitlines()))
            case "toml":
                (folder / SPACE_FILE).write_text(block.text, encoding="utf-8")


def run_snippet(block: Block, names: dict[str, Any]) -> str:
    """What a snippet prints, or the error that the guide shows; any other error is raised."""
    error = re.match(r"(\w+Error): (.*)", block.output or "")
    with redirect_stdout(io.StringIO()) as printed:
        if error is None:
            exec(block.text, names)
            return printed.getvalue()
        with pytest.raises(RuntimeError) as caught:
            exec(block.text, names)
    return f"{caught.type.__name__}: {caught.value}\n"


def run_command(line: str) -> str:
    """The standard output of a command, shortened by the replacements."""
    for phrase, replacement in REPLACEMENTS:
        line = re.sub(phrase, replacement, line)
    program, *arguments = shlex.split(line)
    assert program == "python"
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def assert_printed(block: Block, printed: str) -> None:
    """The lines of the block's output are among those printed, in this order."""
    if block.output is None:
        return
    lines = [line.rstrip() for line in printed.splitlines()]
    if "inspect" in block.text and "..." not in block.output:
        assert lines == block.output.splitlines()
    position = 0
    for expected in block.output.splitlines():
        pattern = re.compile(pattern_of(expected))
        found = [number for number, line in enumerate(lines) if number >= position and pattern.fullmatch(line)]
        assert found, f"{expected!r} is not in what {block.text} prints:\n{printed}"
        position = found[0] if expected == "..." else found[0] + 1


def pattern_of(expected: str) -> str:
    """A pattern for a line of output: any number for a number, anything for `...`."""
    parts = re.split(r"(\.\.\.|\d+(?:[.,]\d+)*)", expected)
    return "".join(
        ".*" if part == "..." else r"\d+(?:[.,]\d+)*" if part[:1].isdigit() else re.escape(part) for part in parts
    )


def headings_of(path: Path) -> list[str]:
    """The number of each heading, such as `## 1.`"""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)
    return re.findall(r"^(#+ (?:\d+\.)?)", text, re.M)


def test_both_languages_have_the_same_commands_snippets_and_outputs() -> None:
    english, chinese = (blocks_of(path) for path in GUIDES)
    assert english == chinese
    assert {block.language for block in english} == {"python", "sh", "toml"}
    assert sum(len(block.text.splitlines()) for block in english if block.language == "sh") > 10


def test_both_languages_have_the_same_chapters_and_link_to_each_other() -> None:
    english, chinese = (headings_of(path) for path in GUIDES)
    assert english == chinese
    for path, other in (GUIDES, reversed(GUIDES)):
        assert f"]({other.name})" in path.read_text(encoding="utf-8")


def test_a_line_of_output_matches_other_numbers_and_no_other_words() -> None:
    assert re.fullmatch(pattern_of("seed 0 96.35%"), "seed 0 8.5%")
    assert re.fullmatch(pattern_of("winner   trial ... of ...: ..."), "winner   trial 3 of 20: 16 k3 relu")
    assert not re.fullmatch(pattern_of("seed 0 96.35%"), "seed 0 unknown")


def test_the_snippets_in_plain_pytorch_run_up_to_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = blocks_of(GUIDES[0])
    (search, *_) = [number for number, block in enumerate(blocks) if "tuner run" in block.text]
    assert search > 8
    run_blocks(blocks[:search], tmp_path, monkeypatch)


@pytest.mark.slow
def test_every_command_and_snippet_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        run_blocks(blocks_of(GUIDES[0]), tmp_path, monkeypatch)
    finally:
        for name in ("winner", "winner.model"):  # imported by a snippet from its folder
            sys.modules.pop(name, None)
