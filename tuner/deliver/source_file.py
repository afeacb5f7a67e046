"""Write a checkpoint as readable Python source: one file that imports only torch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import groupby

from torch import Tensor

from tuner.architecture.cost import network_cost
from tuner.architecture.shapes import Layer
from tuner.architecture.trace import trace
from tuner.training.checkpoint import Checkpoint

LINE_LENGTH = 120
_LAYER_INDENT = " " * 12


def source_of(checkpoint: Checkpoint) -> str:
    """Return the text of model.py: the network layer by layer, its preprocessing and classes, and how to use it.

    The file loads the weights that `named_weights` returns.
    """
    architecture, preprocessing = checkpoint.candidate.architecture, checkpoint.preprocessing
    channels, height, width = architecture.input_shape
    shape = f"{channels}, {height}, {width}"
    parts = _parts(checkpoint)
    return f'''"""{_title(checkpoint)}

Needs torch and weights.pt. Run as a script, it names the classes of the images in images.pt: a uint8 tensor of shape
(N, {shape}), {_colours(channels)}.

In names of tensors: N images, K classes, C channels, H height, W width. The comments give each layer's output shape.
"""

import torch
from torch import Tensor, nn

{_class_names(checkpoint.class_names)}
MEAN = {list(preprocessing.mean)!r}  # of pixel / 255 in the training images, per channel
STD = {list(preprocessing.std)!r}


class Network(nn.Module):
    """{channels}x{height}x{width} images to {_counted(architecture.num_classes, "logit")}; \
{_counted(network_cost(trace(architecture)).num_parameters, "parameter")}."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(-1, 1, 1), persistent=False)
{"".join(_part_source(name, layers) for name, layers in parts.items())}
    def forward(self, images_NCHW: Tensor) -> Tensor:
        """uint8 images (N, {shape}) to logits (N, {architecture.num_classes})."""
        x = (images_NCHW / 255 - self.mean) / self.std
{"".join(f"        x = self.{name}(x){chr(10)}" for name in list(parts)[:-1])}\
        return self.{list(parts)[-1]}(x)


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
    """Return the weights by their names in model.py, such as `block1.0.weight` for `0.weight`."""
    positions = [f"{part}.{number}" for part, layers in _parts(checkpoint).items() for number in range(len(layers))]
    weights = {}
    for name, weight in checkpoint.weights.items():
        position, _, rest = name.partition(".")
        weights[f"{positions[int(position)]}.{rest}"] = weight.detach().cpu().contiguous().clone()
    return weights


def _parts(checkpoint: Checkpoint) -> dict[str, list[Layer]]:
    """Return the layers by block, under the names of its attributes: `block1`, `block2`, ..., `head`."""
    grouped = groupby(trace(checkpoint.candidate.architecture), key=lambda layer: layer.part)
    return {part.replace(" ", ""): list(layers) for part, layers in grouped}


def _part_source(name: str, layers: list[Layer]) -> str:
    lines = [f"        self.{name} = nn.Sequential("]
    for layer in layers:
        lines += _layer_source(layer)
    return "\n".join([*lines, "        )", ""])


def _layer_source(layer: Layer) -> Iterator[str]:
    """Yield the layer with its comment, which is placed above the layer if the line would be too long."""
    code, comment = f"{_LAYER_INDENT}{layer.source},", f"# {_comment(layer)}"
    if len(code) + 2 + len(comment) <= LINE_LENGTH:
        yield f"{code}  {comment}"
    else:
        yield f"{_LAYER_INDENT}{comment}"
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
    title = f"A convolutional network for {origin['dataset']}" if "dataset" in origin else "A convolutional network"
    found = f", trial {origin['trial']} of study {origin['study']}" if {"trial", "study"} <= origin.keys() else ""
    escaped = repr(f"{title}{found}.")[1:-1].replace('"', '\\"')  # names are the user's: none may end the docstring
    return "\n".join(textwrap.wrap(escaped, LINE_LENGTH - 3, break_long_words=False, break_on_hyphens=False))


def _colours(channels: int) -> str:
    return "grey" if channels == 1 else "red, green, blue"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
