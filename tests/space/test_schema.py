import re
from pathlib import Path
from typing import Any

import pytest

from tests.strategies import ALL_SPACES, BUNDLED, make_space
from tuner.errors import SpaceError
from tuner.space.schema import SearchSpace
from tuner.space.toml_file import bundled_spaces, load_space, parse_space

BLOCK, RECIPE, RATE = "\n[block]\nout_channels = 8\n", "\n[recipe]\n", "learning_rate = 1e-3\n"
REST = BLOCK + RECIPE + RATE


def refusal(tmp_path: Path, text: str) -> str:
    """What is said about a file of that text, without the file's name, which must come first."""
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpaceError) as caught:
        load_space(str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # Keys
        ("colour = 3" + REST, r"colour: unknown key"),
        ("[network]\nnum_block = 3" + REST, r"network\.num_block: unknown key"),
        (REST + "rate = 3", r"recipe\.rate: unknown key"),
        (BLOCK + "kernal_size = 3" + RECIPE + RATE, r"block\.kernal_size: unknown key"),
        (
            "[block]\nout_channels = { low = 1, high = 3, stop = 2 }" + RECIPE + RATE,
            r"block\.out_channels\.stop: unknown key",
        ),
        ("[recipe]\nlearning_rate = 1e-3", r"a space needs either \[block\], .*, or \[stage\]"),
        ("[block]\nkernel_size = 3" + RECIPE + RATE, r"block\.out_channels: required key is missing"),
        (BLOCK, r"recipe: required key is missing"),
        (BLOCK + RECIPE + "batch_size = 8", r"recipe\.learning_rate: required key is missing"),
        ("name = 'mine'" + REST, r"name: a space is named after its file; remove the key"),
        # Types
        ("[network]\nnum_blocks = 'two'" + REST, r"network\.num_blocks.*integer.*got 'two'"),
        ("[network]\nnum_blocks = 2.5" + REST, r"network\.num_blocks.*integer.*got 2\.5"),
        ("[network]\nnum_blocks = true" + REST, r"network\.num_blocks.*integer.*got True"),
        ("[head]\ndropout = '0.1'" + REST, r"head\.dropout.*number.*got '0\.1'"),
        ("[head]\nactivation = 'swish'" + REST, r"head\.activation.*'relu'.*got 'swish'"),
        ("[head]\npooling = ['average', 'max']" + REST, r"head\.pooling.*'flatten'.*got 'max'"),
        ("description = 3" + REST, r"description.*string.*got 3"),
        ("network = 3" + REST, r"network.*got 3"),
        # Bounds
        ("[network]\nnum_blocks = 0" + REST, r"network\.num_blocks.*greater than or equal to 1.*got 0"),
        ("[head]\ndropout = 1.0" + REST, r"head\.dropout.*less than 1.*got 1\.0"),
        ("[head]\ndropout = [0.1, -0.1]" + REST, r"head\.dropout.*greater than or equal to 0.*got -0\.1"),
        (BLOCK + RECIPE + "learning_rate = 0.0", r"recipe\.learning_rate.*greater than 0.*got 0\.0"),
        (BLOCK + RECIPE + "learning_rate = nan", r"recipe\.learning_rate.*got nan"),
        (BLOCK + RECIPE + "learning_rate = { low = 0.1, high = inf }", r"recipe\.learning_rate\.high.*got inf"),
        # Choices and ranges
        ("[head]\ndropout = []" + REST, r"head\.dropout.*at least 1 item.*got \[\]"),
        ("[head]\ndropout = [0.1, 0.2, 0.1]" + REST, r"head\.dropout: choices must differ, got 0\.1 more than once"),
        (
            "[network]\nnum_blocks = { low = 3, high = 3 }" + REST,
            r"network\.num_blocks: a range needs low < high, got low = 3 and high = 3",
        ),
        (
            "[network]\nnum_blocks = { low = 5, high = 1 }" + REST,
            r"network\.num_blocks: a range needs low < high, got low = 5 and high = 1",
        ),
        (
            "[network]\nnum_blocks = { low = 1 }" + REST,
            r"network\.num_blocks: needs choices, or a range .*got low = 1 and high = None",
        ),
        (
            "[network]\nnum_blocks = {}" + REST,
            r"network\.num_blocks: needs choices, or a range .*got low = None and high = None",
        ),
        (
            "[network]\nnum_blocks = { choices = [1], low = 1, high = 3 }" + REST,
            r"network\.num_blocks: give either choices or a range",
        ),
        (
            "[network]\nnum_blocks = { low = 1, high = 4, step = 2 }" + REST,
            r"network\.num_blocks: high must be .* whole steps, got low = 1, high = 4, step = 2",
        ),
        (
            "[network]\nnum_blocks = { low = 1, high = 4, step = 5 }" + REST,
            r"network\.num_blocks: high must be low plus .* whole steps",
        ),
        (
            "[head]\ndropout = { low = 0.0, high = 0.5, step = 1e-300 }" + REST,
            r"head\.dropout: high must be low plus at most 1,000,000 whole steps, got .* step = 1e-300",
        ),
        (
            "[head]\ndropout = { low = 0.0, high = 0.5, step = 5e-324 }" + REST,
            r"head\.dropout: high must be low plus at most 1,000,000 whole steps, got",
        ),
        ("[network]\nnum_blocks = " + "[" * 5_000 + REST, "not a TOML file"),
        ("[head]\ndropout = { low = 0.0, high = 0.5, step = -0.1 }" + REST, r"head\.dropout\.step: .*got -0\.1"),
        ("[head]\ndropout = { low = 0.0, high = 0.5, step = inf }" + REST, r"head\.dropout\.step: .*above 0, got inf"),
        ("[head]\ndropout = { low = 0.0, high = 0.5, step = '0.1' }" + REST, r"head\.dropout\.step: .*got '0\.1'"),
        (
            "[network]\nnum_blocks = { low = 1, high = 3, step = 0.5 }" + REST,
            r"network\.num_blocks\.step: must be a whole number above 0, got 0\.5",
        ),
        (
            "[network]\nnum_blocks = { low = 1, high = 3, step = true }" + REST,
            r"network\.num_blocks\.step: must be a whole number above 0, got True",
        ),
        (
            "[head]\nhidden_features = { low = 0, high = 70_000, step = 70_000 }" + REST,
            r"head\.hidden_features\.high: .*less than or equal to 65536, got 70000",
        ),
        (
            "[head]\ndropout = { low = 0.0, high = 0.5, log = true }" + REST,
            r"head\.dropout: a log range needs low > 0 and no step, got low = 0\.0",
        ),
        (
            "[network]\nnum_blocks = { low = 1, high = 5, log = true, step = 2 }" + REST,
            r"network\.num_blocks: a log range needs .*step = 2",
        ),
        (
            "[head]\nactivation = { low = 'relu', high = 'tanh' }" + REST,
            r"head\.activation: needs choices, or a range of numbers",
        ),
        # Augmentation
        (REST + "flip = 'vertical'", r"recipe\.flip.*'none', 'horizontal' or 'auto', got 'vertical'"),
        (REST + "flip = true", r"recipe\.flip.*got True"),
        (REST + "translate = 0.6", r"recipe\.translate.*less than or equal to 0\.5, got 0\.6"),
        (REST + "translate = { low = -0.1, high = 0.1 }", r"recipe\.translate\.low: .*greater than.*0, got -0\.1"),
        (REST + "cutout = [0.0, 1.1]", r"recipe\.cutout.*less than or equal to 1, got 1\.1"),
        (REST + "mixup = -1.0", r"recipe\.mixup.*greater than or equal to 0, got -1\.0"),
        (REST + "cutmix = 101.0", r"recipe\.cutmix.*less than or equal to 100, got 101\.0"),
        (REST + "brightness = 1.5", r"recipe\.brightness.*less than or equal to 1, got 1\.5"),
        (REST + "contrast = nan", r"recipe\.contrast"),
        (REST + "contrast = '0.2'", r"recipe\.contrast.*got '0\.2'"),
        # Rules over several keys
        (
            BLOCK + "kernel_size = [3, 4]" + RECIPE + RATE,
            r'block: kernel_size must be odd where padding may be "same", got 4',
        ),
        (
            BLOCK + "kernel_size = { low = 3, high = 5 }\npadding = ['valid', 'same']" + RECIPE + RATE,
            r"block: kernel_size must be odd .*got 4",
        ),
        (
            BLOCK + RECIPE + "optimizer = ['adam', 'sgd']\nlearning_rate = { adam = 1e-3 }",
            r"recipe: learning_rate is given per optimizer, but not for sgd",
        ),
        (
            BLOCK + RECIPE + "learning_rate = { adam = 1e-3, low = 0.1, high = 0.2 }",
            r"recipe\.learning_rate: give either one parameter for all optimizers or one for each",
        ),
        (
            BLOCK + RECIPE + "optimizer = ['adam', 'sgd']\nlearning_rate = { adam = 0.1, sgd = 0.2, log = true }",
            r"recipe\.learning_rate: give either one parameter for all optimizers or one for each",
        ),
        (
            BLOCK + RECIPE + "learning_rate = { adam = 0.1, shared = true }",
            r"recipe\.learning_rate: give either one parameter for all optimizers or one for each",
        ),
        (
            "[network]\nnum_blocks = { choices = [1, 2], shared = true }" + REST,
            r"network: num_blocks: shared has no effect",
        ),
        (
            "[head]\ndropout = { choices = [0.1, 0.2], shared = true }" + REST,
            r"head: dropout: shared has no effect, since a trial has one value",
        ),
        (REST + "batch_size = { choices = [8, 16], shared = true }", r"recipe: batch_size: shared has no effect"),
        (BLOCK + RECIPE + "learning_rate = { rmsprop = 1e-3 }", r"recipe\.learning_rate\.rmsprop: unknown key"),
        (
            BLOCK + RECIPE + "learning_rate = { adam = { low = 0.2, high = 0.1 } }",
            r"recipe\.learning_rate\.adam: a range needs low < high, got low = 0\.2",
        ),
        # Configurations to try first
        (REST + "[[first]]\nblock = []", r"first\.0\.block.*at least 1 item"),
        (REST + "[[first]]\nhead = {}", r"first\.0: needs either block or stage"),
        (REST + "[[first]]\nblock = [{}, {}]\nheads = {}", r"first\.0\.heads: unknown key"),
        (
            REST + "[[first]]\nblock = [{ out_channels = 16 }, {}]",
            r"first\.0: block1_out_channels: must be within the space's .*got 16",
        ),
        (
            REST + "[[first]]\nblock = [{}, {}]\nhead = { width = 1 }",
            r"first\.0: head\.width: not a parameter of this space",
        ),
        (
            "[block]\nout_channels = { choices = [8, 9], shared = true }"
            + RECIPE
            + RATE
            + "[[first]]\nblock = [{ out_channels = 8 }, { out_channels = 9 }]",
            r"first\.0: block\.out_channels: is shared, so all blocks must have the same value, got 8 and 9",
        ),
        (
            "[block]\nout_channels = { low = 1, high = 3, log = 'yes' }" + RECIPE + RATE,
            r"block\.out_channels\.log: .*'yes'",
        ),
        ("[block]\nout_channels = { choices = [3], shared = 1 }" + RECIPE + RATE, r"block\.out_channels\.shared: .*1"),
        # Not TOML at all
        ("[block\n", r"not a TOML file: .*line 1"),
        ("a = 1\na = 2\n", r"not a TOML file: "),
    ],
)
def test_a_wrong_space_is_refused_with_file_key_rule_and_value(tmp_path: Path, text: str, said: str) -> None:
    message = refusal(tmp_path, text)
    assert re.match(said, message), message


def test_further_mistakes_are_counted(tmp_path: Path) -> None:
    assert refusal(tmp_path, "colour = 3\nsize = 4" + REST).endswith("(and 1 more)")


def test_bytes_that_are_not_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpaceError, match="not a TOML file"):
        load_space(str(path))


def test_the_mark_that_some_editors_put_in_front_is_no_part_of_a_space(tmp_path: Path) -> None:
    path = tmp_path / "marked.toml"
    path.write_bytes(b"\xef\xbb\xbf" + bundled_spaces()["article"].read_bytes())
    assert load_space(str(path)).block == load_space("article").block


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    path = folder if name == "." else tmp_path / name
    with pytest.raises(SpaceError, match="cannot be read") as caught:
        load_space(str(path))
    assert str(caught.value).startswith(str(path))


def test_a_name_that_is_not_bundled_is_refused_with_those_that_are() -> None:
    with pytest.raises(
        SpaceError, match=r"no search space 'cmm': bundled are article, cnn, mobile, pretrained, resnet;.*\.toml"
    ):
        load_space("cmm")


def test_the_spaces_of_the_issue_are_bundled() -> None:
    assert {"cnn", "article"} <= set(bundled_spaces())


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_space_loads_by_its_name_and_by_its_path_to_the_same(name: str, tmp_path: Path) -> None:
    space = load_space(name)
    assert space == load_space(str(bundled_spaces()[name]))
    assert space.name == name
    assert space.description
    copy = tmp_path / f"{name}.toml"
    copy.write_bytes(bundled_spaces()[name].read_bytes())
    assert load_space(str(copy)) == space


def test_the_default_space_samples_two_to_four_blocks_and_what_tells_good_ones_apart() -> None:
    space, parameters = BUNDLED["cnn"], BUNDLED["cnn"].parameters
    assert space.network.num_blocks.values == [2, 3, 4]
    for part in ("out_channels", "kernel_size", "pooling", "pool_size", "dropout"):
        assert not parameters[f"block4_{part}"].is_fixed, part
    assert not parameters["block_activation"].is_fixed
    assert space.block is not None
    assert not {"sigmoid", "tanh"} & set(space.block.activation.values)
    assert space.block.normalization.values == ["batch"]


@pytest.mark.parametrize("space", ALL_SPACES.values(), ids=ALL_SPACES)
def test_a_space_survives_being_stored(space: SearchSpace) -> None:
    assert parse_space(space.model_dump(mode="json", exclude_none=True), origin="stored") == space


@pytest.mark.parametrize(
    ("written", "values"),
    [
        (3, [3]),
        ([3, 5], [3, 5]),
        ({"choices": [5, 3]}, [5, 3]),
        ({"low": 1, "high": 4}, [1, 2, 3, 4]),
        ({"low": 1, "high": 7, "step": 3}, [1, 4, 7]),
    ],
)
def test_a_parameter_has_the_values_it_is_written_with_both_ends_included(written: Any, values: list[int]) -> None:
    parameter = make_space(network={"num_blocks": written}).network.num_blocks
    assert parameter.values == values
    assert parameter.default == values[0]
    assert parameter.is_fixed == (len(values) == 1)


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (0.25, "0.25"),
        ([0.0, 0.5], "0.0 | 0.5"),
        ({"low": 0.0, "high": 0.5}, "0.0 to 0.5"),
        ({"low": 0.0, "high": 0.5, "step": 0.25}, "0.0 to 0.5 by 0.25"),
        ({"low": 0.1, "high": 0.5, "log": True}, "0.1 to 0.5, log"),
        ({"choices": [0.0, 0.5], "shared": True}, "0.0 | 0.5"),
    ],
)
def test_a_parameter_is_shown_in_a_few_words(written: Any, words: str) -> None:
    assert str(make_space(block={"dropout": written}).block.dropout) == words


def test_a_parameter_is_named_for_its_block_or_for_all_where_shared() -> None:
    space = make_space(
        network={"num_blocks": {"low": 1, "high": 3}},
        block={"kernel_size": {"choices": [3, 5], "shared": True}},
        recipe={"optimizer": ["adam", "sgd"], "weight_decay": {"adam": 0.1, "sgd": 0.2, "adamw": 0.3}},
    )
    names = list(space.parameters)
    assert [name for name in names if "kernel_size" in name] == ["block_kernel_size"]
    assert [name for name in names if "stride" in name and "pool" not in name] == [
        f"block{number}_stride" for number in (1, 2, 3)
    ]
    assert [name for name in names if name.startswith(("weight_decay", "learning_rate"))] == [
        "learning_rate",
        "weight_decay_adam",
        "weight_decay_sgd",
    ]
