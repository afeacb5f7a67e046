"""Write a checkpoint as readable Python source: one file that imports torch, and the library of a backbone."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from tuner.architecture.any_architecture import cost_of
from tuner.architecture.backbone_modules import head_name_of, layers_of_head
from tuner.architecture.backbone_network import BackboneNetwork
from tuner.architecture.layer_kinds import Layer
from tuner.architecture.parts import Items, Join, Part, steps_of
from tuner.architecture.spec import Architecture
from tuner.architecture.trace import trace
from tuner.data.images import Preprocessing
from tuner.data.reading import reading_in_words
from tuner.data.resizing import resizing_in_words
from tuner.deliver.backbone_source import LINE_LENGTH, assigned_backbone, import_lines, library_of
from tuner.training.checkpoint import Checkpoint, backbone_of

_JOINS: Mapping[Join, str] = {"add": "Residual", "multiply": "Scaled"}
"""Name of the module of each join in the source."""
_MODULES: Mapping[Join, str] = {
    "add": '''\
class Residual(nn.Module):
    """The sum of a main path and a shortcut. Without a shortcut, what enters is added."""

    def __init__(self, main: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.main, self.shortcut = main, shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the shape that leaves both."""
        return self.main(x) + self.shortcut(x)


''',
    "multiply": '''\
class Scaled(nn.Module):
    """What enters, each channel times a factor that the main path computes from all of them."""

    def __init__(self, main: nn.Module) -> None:
        super().__init__()
        self.main = main

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; the factors are (N, C, 1, 1)."""
        return x * self.main(x)


''',
}


def source_of(checkpoint: Checkpoint) -> str:
    """Return the text of model.py: the network layer by layer, its preprocessing and classes, and how to use it.

    The file loads the weights that `named_weights` returns.
    """
    architecture, preprocessing = checkpoint.candidate.architecture, checkpoint.preprocessing
    channels, height, width = architecture.input_shape
    shape = f"{channels}, {height}, {width}"
    body = _body_of(architecture)
    return f'''"""{_title(checkpoint)}

{body.needs}Run as a script, it names the classes of the images in images.pt: a uint8 tensor of shape
(N, {shape}), {_colours(channels)}.{f" {reading_in_words(preprocessing.reading)}".rstrip()}{_resizing(preprocessing)}

In names of tensors: N images, K classes, C channels, H height, W width. The comments give each layer's output shape.
"""

{body.imports}from torch import Tensor, nn

{_class_names(checkpoint.class_names)}
MEAN = {list(preprocessing.mean)!r}  # of pixel / 255 in {body.measured_on}, per channel
STD = {list(preprocessing.std)!r}


{body.modules}class Network(nn.Module):
    """{channels}x{height}x{width} images to {_counted(architecture.num_classes, "logit")}; \
{_counted(cost_of(architecture).num_parameters, "parameter")}."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(-1, 1, 1), persistent=False)
{body.source}
{_forward_source(body.attributes, shape=shape, num_classes=architecture.num_classes, flip_test=checkpoint.flip_test)}


def load(path: str = "weights.pt") -> Network:
    """The network with its trained weights, ready to classify."""
    network = Network()
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval()


def classify(network: Network, images_NCHW: Tensor) -> list[str]:
    """The likeliest class of each image."""
    with torch.inference_mode():
        logits_NK = torch.cat([network(batch_NCHW) for batch_NCHW in images_NCHW.split(64)])
    return [CLASS_NAMES[index] for index in logits_NK.argmax(1).tolist()]


if __name__ == "__main__":
    images_NCHW = torch.load("images.pt", weights_only=True)
    for class_name in classify(load(), images_NCHW):
        print(class_name)
'''


def named_weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights by the names that they have in model.py: `block1.0.weight` for what was `0.weight`.

    The names of a network with a backbone have `network.` before them.
    """
    architecture = checkpoint.candidate.architecture
    if isinstance(architecture, BackboneNetwork):
        names = {name: f"network.{name}" for name in checkpoint.weights}
    else:
        steps = [
            f"{name}.{number}"
            for name, part in _parts(architecture).items()
            for number, _ in enumerate(steps_of([part]))
        ]
        split = {name: name.partition(".") for name in checkpoint.weights}
        names = {name: f"{steps[int(position)]}.{rest}" for name, (position, _, rest) in split.items()}
    return {names[name]: weight.detach().cpu().contiguous().clone() for name, weight in checkpoint.weights.items()}


@dataclass(frozen=True)
class _Body:
    """What the source of a network consists of.

    attributes: of the class, in the order in which its forward pass calls them. source: the lines of its constructor
    that create them. modules: classes that they need. needs: what the file needs, up to the next sentence.
    measured_on: the images whose mean and standard deviation the source contains.
    """

    attributes: tuple[str, ...]
    source: str
    modules: str = ""
    imports: str = "import torch\n"
    needs: str = "Needs torch and weights.pt. "
    measured_on: str = "the training images"


def _body_of(architecture: Architecture | BackboneNetwork) -> _Body:
    if isinstance(architecture, Architecture):
        parts = _parts(architecture)
        return _Body(
            tuple(parts),
            "".join(_part_source(name, part) for name, part in parts.items()),
            "".join(_MODULES[join] for join in _joins(parts.values())),
        )
    name = architecture.backbone
    head = "\n".join(_path_source("head = nn.Sequential(", layers_of_head(architecture), indent=8, end=")"))
    attached = f'        self.network.set_submodule("{head_name_of(name)}", head)\n'
    return _Body(
        ("network",),
        f"{assigned_backbone('self.network', name, indent=8)}{head}\n{attached}",
        imports=import_lines(name),
        needs=f"Needs torch, {library_of(name)} and weights.pt, which has all of the weights: nothing is downloaded.\n",
        measured_on="the images of the pretraining",
    )


def _parts(architecture: Architecture) -> dict[str, Part]:
    """The parts by the names of attributes: `block1`, `block2`, ..., `head`."""
    return {part.name.replace(" ", ""): part for part in trace(architecture)}


def _joins(items: Iterable[Layer | Part]) -> list[Join]:
    """The joins that there are, each once."""
    found: dict[Join, None] = {}
    for item in items:
        if isinstance(item, Part):
            found |= {} if item.join == "none" else {item.join: None}
            found |= dict.fromkeys(_joins([*item.main, *item.shortcut]))
    return list(found)


def _forward_source(parts: Iterable[str], *, shape: str, num_classes: int, flip_test: bool) -> str:
    *earlier, last = parts
    layers = "".join(f"        x = self.{name}(x)\n" for name in earlier) + f"        return self.{last}(x)"
    opening = f"""\
    def forward(self, images_NCHW: Tensor) -> Tensor:
        \"""uint8 images (N, {shape}) to logits (N, {num_classes})\
{": the mean of those of each image and of its mirror image" if flip_test else ""}.\"""
        x = (images_NCHW / 255 - self.mean) / self.std
"""
    if not flip_test:
        return opening + layers
    return f"""{opening}        return (self.logits(x) + self.logits(x.flip(3))) / 2

    def logits(self, x: Tensor) -> Tensor:
        \"""Normalized images (N, {shape}) to logits (N, {num_classes}).\"""
{layers}"""


def _part_source(name: str, part: Part) -> str:
    return "\n".join([*_path_source(f"self.{name} = nn.Sequential(", [part], indent=8, end=")"), ""])


def _path_source(opening: str, path: Items, *, indent: int, end: str) -> Iterator[str]:
    """The steps of a path on lines of their own, between an opening and an end."""
    yield f"{' ' * indent}{opening}"
    for step in steps_of(path):
        yield from _layer_source(step, indent + 4) if isinstance(step, Layer) else _joined_source(step, indent + 4)
    yield f"{' ' * indent}{end}"


def _joined_source(part: Part, indent: int) -> Iterator[str]:
    assert part.join == "add" or not part.shortcut
    yield f"{' ' * indent}{_JOINS[part.join]}(  # {part.name}: {'x'.join(map(str, part.output_shape))}"
    yield from _path_source("nn.Sequential(", part.main, indent=indent + 4, end="),")
    if part.shortcut:
        yield from _path_source("nn.Sequential(", part.shortcut, indent=indent + 4, end="),")
    yield f"{' ' * indent}),"


def _layer_source(layer: Layer, indent: int) -> Iterator[str]:
    """The layer with its comment behind it, or above it where the line would be too long."""
    code, comment = f"{' ' * indent}{layer.source},", f"# {_comment(layer)}"
    if len(code) + 2 + len(comment) <= LINE_LENGTH:
        yield f"{code}  {comment}"
    else:
        yield f"{' ' * indent}{comment}"
        yield code


def _comment(layer: Layer) -> str:
    if layer.kind == "Flatten":
        return layer.arithmetic  # ends with the shape
    shape = "x".join(map(str, layer.output_shape))
    return f"{shape}: {layer.arithmetic}" if layer.arithmetic else shape


def _class_names(class_names: tuple[str, ...]) -> str:
    """Return the list of classes on as many lines as needed; each name is a literal, whatever it contains."""
    literals = ", ".join(map(literal, class_names))
    if len(literals) + len("CLASS_NAMES = []") <= LINE_LENGTH:
        return f"CLASS_NAMES = [{literals}]"
    return "\n".join(["CLASS_NAMES = [", *(f"    {literal(name)}," for name in class_names), "]"])


def literal(text: str) -> str:
    """Format text as Python source: in double quotes if no character needs an escape, otherwise as `repr` does."""
    typed = repr(text)
    return f'"{text}"' if typed == f"'{text}'" and '"' not in text else typed


def _title(checkpoint: Checkpoint) -> str:
    origin = checkpoint.origin
    backbone = backbone_of(checkpoint)
    network = f"A pretrained {backbone} with a new head" if backbone else "A convolutional network"
    title = f"{network} for {origin['dataset']}" if "dataset" in origin else network
    found = f", trial {origin['trial']} of study {origin['study']}" if {"trial", "study"} <= origin.keys() else ""
    escaped = repr(f"{title}{found}.")[1:-1].replace('"', '\\"')  # names are the user's: none may end the docstring
    return "\n".join(textwrap.wrap(escaped, LINE_LENGTH - 3, break_long_words=False, break_on_hyphens=False))


def _resizing(preprocessing: Preprocessing) -> str:
    """How images are resized, on lines of their own; empty for the default."""
    described = resizing_in_words(preprocessing.resizing, preprocessing.image_size)
    return "".join(f"\n{line}" for line in textwrap.wrap(described, LINE_LENGTH))


def _colours(channels: int) -> str:
    return "grey" if channels == 1 else "red, green, blue"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
