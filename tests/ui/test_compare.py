"""Two studies side by side: what cannot be compared is reported."""

from pathlib import Path

import pytest

from tests.ui.synthetic import make_study
from tests.ui.test_tables import shown
from tuner.ui.compare import comparison_table


@pytest.mark.parametrize(("digest", "is_other"), [("same", False), ("other", True)])
def test_confirmed_scores_of_other_test_images_cannot_be_compared(tmp_path: Path, digest: str, is_other: bool) -> None:
    first, second = (make_study(tmp_path, 2, name=name) for name in ("one", "two"))
    first.save_sealed("same", 10)
    second.save_sealed(digest, 10)
    text = " ".join(shown(comparison_table(first, second, studies=tmp_path), width=200).split())
    assert ("The test images are not the same" in text) == is_other
