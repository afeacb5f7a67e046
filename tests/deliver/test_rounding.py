"""The check of an export: which differences are rounding, and which are not."""

import pytest
import torch

from tests.training.test_checkpoint import checkpoint_of
from tuner.deliver.export import _check_stored
from tuner.deliver.export_check import TOLERANCE, Reference, num_undecided
from tuner.deliver.export_readme import StoredScore
from tuner.errors import CheckpointError


@pytest.mark.parametrize(
    ("margins", "largest", "expected"),
    [
        ([0.0, 1.0, 2.0], 1.0, 1),
        ([1.9 * TOLERANCE, 2.1 * TOLERANCE, 1.0], 1.0, 1),
        ([1.9 * TOLERANCE, 2.1 * TOLERANCE, 1.0], 20.0, 2),  # of larger logits rounding is larger
        ([3.0, 4.0, 5.0], 1.0, 0),
    ],
)
def test_rounding_decides_between_classes_whose_logits_may_both_move_so_far(
    margins: list[float], largest: float, expected: int
) -> None:
    logits_NK = torch.tensor([[0.0, -margin, -largest] for margin in margins], dtype=torch.float64)
    assert num_undecided(Reference(logits_NK, torch.zeros(3, dtype=torch.int64), 3)) == expected


@pytest.mark.parametrize(
    ("num_correct", "num_undecided", "is_refused"), [(75, 0, False), (74, 0, True), (74, 1, False), (77, 1, True)]
)
def test_a_stored_score_may_differ_by_the_images_that_rounding_decides(
    num_correct: int, num_undecided: int, is_refused: bool
) -> None:
    score = StoredScore("validation", num_correct, 100)
    if is_refused:
        with pytest.raises(
            CheckpointError, match=rf"classifies {num_correct} of 100 .* but its stored score is 75\.00"
        ):
            _check_stored(checkpoint_of(), score, num_undecided=num_undecided)
    else:
        _check_stored(checkpoint_of(), score, num_undecided=num_undecided)
