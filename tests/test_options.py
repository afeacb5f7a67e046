import re
from pathlib import Path
from typing import Any

import pytest

from tuner.errors import OptionError
from tuner.options import RunOptions, check_options
from tuner.pipeline import run_events


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("trials", 0),
        ("trials", True),
        ("trials", 2.0),
        ("trials", "50"),
        ("epochs", -1),
        ("epochs", 100_001),
        ("seed", -1),
        ("seed", 0.0),
        ("seed", 2**63),
        ("workers", 0),
        ("workers", "auto"),
        ("budget_seconds", 0.0),
        ("budget_seconds", float("nan")),
        ("budget_seconds", "30m"),
        ("dataset", ""),
        ("dataset", 3),
        ("group", ""),
        ("group_column", 1),
        ("label_column", ""),
        ("space", ""),
        ("study", ""),
        ("storage", ""),
        ("device", None),
        ("engine", None),
        ("studies", "studies"),
        ("data_dir", "data"),
        ("image_size", 8),
        ("image_size", (8,)),
        ("image_size", (8.0, 8.0)),
        ("confirm", True),
    ],
)
def test_a_value_that_an_option_cannot_have_is_refused_in_one_line(tmp_path: Path, option: str, value: Any) -> None:
    options = RunOptions(**{"studies": tmp_path / "studies", option: value})
    with pytest.raises(OptionError, match=rf"^{option} must be .*, got {re.escape(repr(value))}$"):
        next(run_events(options))
    assert not (tmp_path / "studies").exists()


def test_a_path_object_names_the_data_set_as_its_text_does(tmp_path: Path) -> None:
    options = RunOptions(dataset=tmp_path / "pets")
    check_options(options)
    assert options == RunOptions(dataset=str(tmp_path / "pets"))
    assert options.study_name == "pets-auto"
