"""Write the README.md of an export: what the files are, how accurate they are, and tested code that uses them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

from tuner.__about__ import __version__
from tuner.architecture.any_architecture import cost_of
from tuner.data.reading import DEFAULT, reading_in_words
from tuner.data.resizing import resizing_in_words
from tuner.deliver.backbone_source import library_of
from tuner.deliver.export_formats import FORMATS, FormatName
from tuner.training.checkpoint import Checkpoint, backbone_of

MARK = "<!-- written by tuner export -->"
"""First line of the README, by which a later export recognizes a folder as its own."""
HEADING = "## "


@dataclass(frozen=True)
class StoredScore:
    """The network's score when it was chosen, or with a flip test. part: part of the data set, test or validation."""

    part: str
    num_correct: int
    num_images: int

    def __str__(self) -> str:
        accuracy = f"{self.part} accuracy {self.num_correct / self.num_images:.2%}"
        return f"{accuracy} ({self.num_correct:,} of {self.num_images:,} images)"


def readme_of(
    checkpoint: Checkpoint,
    score: StoredScore,
    files: Mapping[FormatName, str],
    *,
    without_flip_test: StoredScore | None = None,
) -> str:
    """Return the text of README.md for these files, by format; its code is the code that the check has run.

    without_flip_test: the score of the network itself, where `score` is with a flip test.
    """
    architecture, origin = checkpoint.candidate.architecture, checkpoint.origin
    channels, height, width = architecture.input_shape
    reading = checkpoint.preprocessing.reading
    resized = resizing_in_words(checkpoint.preprocessing.resizing, (height, width)) or (
        f"An image of another size is scaled to cover {height}x{width} pixels (height x width) and centre-cropped."
    )
    num_parameters = cost_of(architecture).num_parameters
    dataset = " ".join(str(origin.get("dataset", "images")).replace("`", "'").split())
    images = f"(N, {channels}, {height}, {width}), {'grey' if channels == 1 else 'red, green, blue'}"
    optimistic = "" if score.part == "test" else " The score is that of the search, and so optimistic."
    mirrored = (
        "\nThe logits are the mean of those of an image and of its mirror image, which takes two passes. Without the "
        f"mirror image, the network has {without_flip_test}.\n"
        if without_flip_test
        else ""
    )
    backbone = backbone_of(checkpoint)
    parts = [
        f"""{MARK}
# A network for {dataset}

Trial {origin["trial"]} of study {origin["study"]}, written by tuner {__version__}: \
{architecture.num_classes:,} classes, {num_parameters:,} parameters, {score}.{optimistic}
{mirrored}{_pretrained(backbone, files) if backbone else ""}
Every file was loaded again in a separate process by the lines below, and run on all of these images: it classified
exactly as many of them correctly as the network itself.

The lines read `images.pt`, a uint8 tensor of shape {images}, or `images.npy`, the same as an array.
{resized}
{"" if reading == DEFAULT else f"{reading_in_words(reading)}{chr(10)}"}"""
    ]
    for name, file_name in files.items():
        one = FORMATS[name]
        usage = one.usage(file_name, flip_test=checkpoint.flip_test, backbone=backbone)
        parts.append(f"{HEADING}{file_name}\n\n{one.description(backbone=backbone)}.\n\n```python\n{usage}```\n")
    return "\n".join(parts)


def _pretrained(backbone: str, files: Mapping[FormatName, str]) -> str:
    """A paragraph about a network with a backbone: where its layers come from, and what its files need."""
    library = library_of(backbone)
    needing = [name for format, name in files.items() if format in ("pt", "safetensors", "python")]
    listed = " and ".join(filter(None, [", ".join(needing[:-1]), *needing[-1:]]))
    needs = f" {listed} need{'' if len(needing) > 1 else 's'} the package {library}." if needing else ""
    return f"""
The network is {backbone} with pretrained weights and a new head, built by {library} {version(library)}. Every file
contains all of its weights, so nothing is downloaded.{needs}
"""


def headings_of(readme: str) -> set[str]:
    """Return the file names that the text of a README.md lists."""
    return {line.removeprefix(HEADING) for line in readme.splitlines() if line.startswith(HEADING)}
