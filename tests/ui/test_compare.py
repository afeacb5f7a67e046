"""Two studies side by side: what cannot be compared is reported."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.ui.synthetic import make_study
from tests.ui.test_tables import shown
from tuner.search.record import SETTINGS
from tuner.search.settings import space_to_json
from tuner.space.toml_file import load_space
from tuner.ui.compare import _differences, comparison_table


@pytest.mark.parametrize(("digest", "is_other"), [("same", False), ("other", True)])
def test_confirmed_scores_of_other_test_images_cannot_be_compared(tmp_path: Path, digest: str, is_other: bool) -> None:
    first, second = (make_study(tmp_path, 2, name=name) for name in ("one", "two"))
    first.save_sealed("same", 10)
    second.save_sealed(digest, 10)
    text = " ".join(shown(comparison_table(first, second, studies=tmp_path), width=200).split())
    assert ("The test images are not the same" in text) == is_other


def test_a_key_that_a_study_was_begun_without_has_its_default(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('[backbone]\nname = "resnet18"\n[recipe]\nlearning_rate = 0.1\n', encoding="utf-8")
    space = space_to_json(load_space(str(file)))
    earlier = {**space, "backbone": {key: one for key, one in space["backbone"].items() if key != "crop_fraction"}}
    first, second = (make_study(tmp_path, 2, name=name) for name in ("one", "two"))
    for record, stored in ((first, earlier), (second, space)):
        settings = replace(record.settings, space_name="own", space=stored)
        record.storage.set_study_user_attr(record.study_id, SETTINGS, settings.to_json())
    assert first.settings != second.settings
    text = shown(comparison_table(first, second, studies=tmp_path), width=200)
    assert "best of the search" in text
    assert "settings that differ" not in text


def test_what_only_one_study_has_is_one_row_however_much_is_in_it() -> None:
    stage = {"out_channels": {"low": 8, "high": 64}, "dropout": 0.1}
    first = {"space": {"stage": [stage, stage], "rate": {"low": 0.1, "high": 0.5}, "seed": 1, "optimizer": "muon"}}
    second = {"space": {"backbone": {"views": 4}, "rate": [0.1], "seed": 1, "optimizer": "adamw"}}
    assert list(_differences(first, second)) == [
        ("space.stage", "given", ""),
        ("space.rate", "low 0.1, high 0.5", "[0.1]"),
        ("space.optimizer", "muon", "adamw"),
        ("space.backbone", "", "views 4"),
    ]
    assert list(_differences([stage], [{**stage, "dropout": 0.2}, stage])) == [
        ("1.dropout", "0.1", "0.2"),
        ("2", "", "given"),
    ]
