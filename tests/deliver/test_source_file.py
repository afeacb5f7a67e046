import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings

from tests.strategies import BUNDLED, networks
from tests.training.test_checkpoint import checkpoint_of
from tuner.architecture.blocks import InvertedResidualBlock, PlainBlock, ResidualBlock
from tuner.architecture.spec import Architecture, Head, InputSpec
from tuner.architecture.trace import resolve
from tuner.deliver.classifier import classifier_from
from tuner.deliver.source_file import LINE_LENGTH, named_weights, source_of
from tuner.space.sampling import candidate_from, first_params
from tuner.training.checkpoint import Checkpoint


def names_in(source: str) -> dict[str, Any]:
    """What model.py defines, run as a module and not as a script."""
    namespace: dict[str, Any] = {"__name__": "model"}
    exec(compile(source, "model.py", "exec"), namespace)
    return namespace


def article() -> Checkpoint:
    (params,) = first_params(BUNDLED["article"])
    return checkpoint_of(candidate_from(params, BUNDLED["article"], InputSpec(1, 28, 28, 10), epochs=1).architecture)


@settings(max_examples=60)
@given(networks(max_side=24))
def test_the_source_of_any_network_gives_the_networks_logits(architecture: Architecture) -> None:
    checkpoint = checkpoint_of(architecture, seed=3)
    network = names_in(source_of(checkpoint))["Network"]()
    network.load_state_dict(named_weights(checkpoint))
    network.eval()
    images_NCHW = torch.randint(0, 256, (3, *architecture.input_shape), dtype=torch.uint8)
    wanted_NK = classifier_from(checkpoint).logits(images_NCHW)
    with torch.inference_mode():
        torch.testing.assert_close(network(images_NCHW), wanted_NK, rtol=1e-5, atol=1e-5)


@settings(max_examples=60)
@given(networks())
def test_the_source_imports_torch_alone_and_its_lines_can_be_read(architecture: Architecture) -> None:
    source = source_of(checkpoint_of(architecture))
    modules = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert modules == {"torch"}
    assert max(map(len, source.splitlines())) <= LINE_LENGTH


def test_each_layer_of_the_articles_network_stands_with_its_shape_and_arithmetic() -> None:
    source = source_of(article())
    for line in (
        "            nn.Conv2d(1, 16, kernel_size=3),  # 16x26x26: 28-3+1=26",
        "            nn.MaxPool2d(kernel_size=2, stride=2),  # 32x5x5: (11-2)//2+1=5",
        "            nn.Flatten(),  # 32*5*5=800",
        "            nn.Linear(800, 10),  # 10",
        "        x = self.block1(x)",
    ):
        assert line in source.splitlines()
    assert '"""1x28x28 images to 10 logits; 12,810 parameters."""' in source


def test_a_shortcut_stands_beside_its_main_path_in_a_module_of_a_few_lines() -> None:
    blocks = (PlainBlock(8, normalization="batch"), ResidualBlock(12, stride=2), InvertedResidualBlock(12, squeeze=4))
    source = source_of(checkpoint_of(resolve(Architecture(InputSpec(3, 9, 9, 10), blocks, Head("average")))))
    lines = """\
        self.block2 = nn.Sequential(
            Residual(  # residual: 12x5x5
                nn.Sequential(
                    nn.Conv2d(8, 12, kernel_size=3, stride=2, padding=1, bias=False),  # 12x5x5: (9+2*1-3)//2+1=5
                    nn.BatchNorm2d(12),  # 12x5x5
                    nn.ReLU(),  # 12x5x5
                    nn.Conv2d(12, 12, kernel_size=3, padding=1, bias=False),  # 12x5x5: 5+2*1-3+1=5
                    nn.BatchNorm2d(12),  # 12x5x5
                ),
                nn.Sequential(
                    nn.Conv2d(8, 12, kernel_size=1, stride=2, bias=False),  # 12x5x5: (9-1)//2+1=5
                ),
            ),
            nn.ReLU(),  # 12x5x5
        )
"""
    assert lines in source
    assert "                    Scaled(  # excitation: 72x5x5" in source
    assert [node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)] == [
        "Residual",
        "Scaled",
        "Network",
    ]
    assert "class Residual" not in source_of(article())


@pytest.mark.parametrize(
    "name",
    ['"', "'", "\"'", '"""', "'''", "\\", "a\nb", "\\n", "{x}", "犬", "\udc80", "#", '""" + print() + """', "a" * 300],
)
def test_names_of_classes_data_and_study_are_never_read_as_code(name: str) -> None:
    checkpoint = article()
    class_names = (name, *checkpoint.class_names[1:])
    origin = {"dataset": name, "study": name, "trial": 3}
    source = source_of(replace(checkpoint, class_names=class_names, origin=origin))
    module = names_in(source.encode("utf-8").decode("utf-8"))
    assert module["CLASS_NAMES"] == list(class_names)
    kinds = [type(node) for node in ast.parse(source).body]
    assert kinds == [type(node) for node in ast.parse(source_of(checkpoint)).body]
    assert "Needs torch" in module["__doc__"]


def test_many_classes_have_a_line_each() -> None:
    checkpoint = article()
    source = source_of(replace(checkpoint, class_names=tuple(f"a class of number {n}" for n in range(10))))
    assert '    "a class of number 9",' in source.splitlines()


def test_load_and_classify_name_the_classes(tmp_path: Path) -> None:
    checkpoint = article()
    torch.save(named_weights(checkpoint), tmp_path / "weights.pt")
    module = names_in(source_of(checkpoint))
    images_NCHW = torch.randint(0, 256, (70, 1, 28, 28), dtype=torch.uint8)
    network = module["load"](str(tmp_path / "weights.pt"))
    assert not network.training
    indices = classifier_from(checkpoint).logits(images_NCHW).argmax(1).tolist()
    assert module["classify"](network, images_NCHW) == [checkpoint.class_names[index] for index in indices]
