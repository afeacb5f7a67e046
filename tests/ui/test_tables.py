"""Tables in terminals of any width: no figure and no arithmetic is cut."""

from __future__ import annotations

import io
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console, RenderableType

from tests.strategies import BUNDLED
from tests.ui.synthetic import confirmation, make_study
from tuner.architecture.cost import layer_cost, network_cost
from tuner.architecture.parts import layers_of
from tuner.architecture.spec import InputSpec
from tuner.architecture.trace import trace
from tuner.search.summary import StudySummary, summarise
from tuner.space.sampling import candidate_from, random_params
from tuner.space.toml_file import load_space, parse_space
from tuner.ui.tables import NetworkTable, delivery_lines, space_table, studies_table


def shown(table: RenderableType, *, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False).print(table)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("side", [8, 28, 224])
def test_every_figure_of_a_network_is_whole(width: int, side: int) -> None:
    space = BUNDLED["cnn"]
    for seed in range(20):
        params = random_params(space, random.Random(seed))
        candidate = candidate_from(params, space, InputSpec(3, side, side, 10), epochs=1)
        lines = shown(NetworkTable(candidate), width=width).splitlines()
        assert max(map(len, lines)) <= width
        words = set(" ".join(lines).split())
        layers = trace(candidate.architecture)
        figures = {layer.arithmetic.split()[-1] for layer in layers_of(layers) if layer.arithmetic}
        figures |= {f"{network_cost(layers).flops:,}", f"{network_cost(layers).num_parameters:,}"}
        figures |= {f"{layer_cost(layer).flops:,}" for layer in layers_of(layers) if layer_cost(layer).flops}
        figures |= {"x".join(map(str, layer.output_shape)) for layer in layers_of(layers)}
        assert figures <= words


@pytest.mark.parametrize(("name", "sharing"), [("cnn", "silu, one for all blocks"), ("resnet", "one for all stages")])
def test_a_shared_parameter_says_what_shares_it(name: str, sharing: str) -> None:
    table = shown(space_table(load_space(name)), width=200)
    assert sharing in table
    assert len(re.findall("one for all (blocks|stages)", table)) == {"cnn": 1, "resnet": 3}[name]


def test_ranges_of_the_first_stage_have_rows_of_their_own() -> None:
    stage = {"growth": [1.5, 2.0], "first_growth": [0.5, 1.0], "first_stride": 1}
    space = parse_space({"name": "made", "recipe": {"learning_rate": 1e-3}, "stage": stage}, origin="made")
    rows = [line.split() for line in shown(space_table(space), width=200).splitlines()]
    assert ["stage.growth", "1.5", "|", "2.0"] in rows
    assert ["stage.first_growth", "0.5", "|", "1.0"] in rows
    assert ["stage.first_stride", "1"] in rows
    without = parse_space({"name": "made", "recipe": {"learning_rate": 1e-3}, "stage": {}}, origin="made")
    assert "first_" not in shown(space_table(without), width=200)


@pytest.mark.parametrize(("name", "has_pooling"), [("pretrained", False), ("cnn", True)])
def test_a_space_of_backbones_lists_no_pooling_of_the_head(name: str, has_pooling: bool) -> None:
    assert ("head.pooling" in shown(space_table(load_space(name)), width=200)) == has_pooling


@pytest.mark.parametrize(("name", "words"), [("cnn", "1 configuration first"), ("resnet", "2 configurations first")])
def test_the_number_of_configurations_to_try_first_is_in_plain_words(name: str, words: str) -> None:
    assert f"  tries {words}\n" in shown(space_table(load_space(name)), width=200)


def test_what_a_study_delivers_is_its_confirmed_winner(tmp_path: Path) -> None:
    record, found = make_study(tmp_path, 3), confirmation(number=1, baseline_number=0)
    search, delivered = tmp_path / "synthetic" / "trial-00000.pt", tmp_path / "synthetic" / "confirmed.pt"
    delivered.parent.mkdir(exist_ok=True)
    delivered.touch()
    before = summarise(record, studies=tmp_path)
    assert before.best is not None
    words, file = delivery_lines(before)
    assert "not confirmed" in words
    assert "confirmed.pt" not in file
    record.save_confirmed(found)
    after = summarise(record, studies=tmp_path)
    words, file = delivery_lines(after)
    assert words.startswith(
        "confirmed: trial 1, 97.12% on the sealed test set, 95 % interval 96.00% to 98.00%; it beats"
    )
    assert str(delivered) in file
    assert "; the study had 2 trials then and has 3 now" in words
    listed = shown(studies_table([after], [1]), width=200)
    assert "97.12%" in listed
    assert "of 2 trials" in listed
    assert str(delivered) in listed
    assert str(search) not in listed
    record.save_confirmed(replace(found, num_trials=3))
    after = summarise(record, studies=tmp_path)
    assert "later ones" not in delivery_lines(after)[0]
    assert "of 2 trials" not in shown(studies_table([after], [1]), width=200)


def test_the_counts_and_the_file_of_a_study_are_whole_in_a_narrow_terminal() -> None:
    checkpoint = Path("studies") / "a-study-with-a-rather-long-name" / "trial-00012.pt"
    summary = StudySummary("a-study-with-a-rather-long-name", "fashion-mnist", "article", 123_456, {}, None, checkpoint)
    lines = shown(studies_table([summary], [1_500_000]), width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert "123456" in lines[1]
    starts = lines[0].index("checkpoint")
    assert "".join(line[starts:].strip() for line in lines[1:]) == str(checkpoint)
