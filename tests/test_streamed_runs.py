"""Whole runs on images that may take next to no memory, and so are streamed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tuner.errors import SpaceError
from tuner.hardware import memory_bytes
from tuner.options import RunOptions
from tuner.pipeline import load_summary, run, run_events
from tuner.search.events import DataReady, TrialEnded
from tuner.search.record import CONSTRAINTS
from tuner.search.study_location import existing_storage
from tuner.search.study_lookup import list_studies, load_study

SPACE = """
[block]
out_channels = 4
[recipe]
learning_rate = { low = 1e-3, high = 1e-2, log = true }
batch_size = [BATCH_SIZES]
"""
FIRST = """
[[first]]
block = [{ out_channels = 4 }, { out_channels = 4 }]
recipe = { batch_size = 64 }
"""


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much for digits, 64 bytes each, as streaming them in batches of 40 takes; and half an image more."""
    allowed = 128 * (2 * 40 + 9) + 32
    monkeypatch.setattr("tuner.data.training_data.IMAGES_SHARE", allowed / memory_bytes(torch.device("cpu")))


def options_in(folder: Path, batch_sizes: str, *, first: str = "", **changes: Any) -> RunOptions:
    space = folder / "space.toml"
    space.write_text(SPACE.replace("BATCH_SIZES", batch_sizes) + first, encoding="utf-8")
    defaults = {"study": "small", "trials": 3, "epochs": 1, "workers": 1, "device": "cpu"}
    return RunOptions(space=str(space), studies=folder / "studies", **{**defaults, **changes})


def test_batches_that_cannot_be_streamed_are_rejected_before_they_train_and_all_others_are_scored(
    tmp_path: Path,
) -> None:
    options = options_in(tmp_path, "32, 64", first=FIRST)
    events = list(run_events(options))
    ready = events[0]
    assert isinstance(ready, DataReady)
    assert ready.held.endswith("allowed: streamed from disk with at most 11.2 KiB in memory for each runner")
    ended = [event for event in events if isinstance(event, TrialEnded)]
    assert ended[0].outcome == "complete"  # the baseline, with batches that fit
    assert "rejected" in {event.outcome for event in ended}
    assert [event.outcome for event in ended if event.outcome != "rejected"] == ["complete"] * 3
    record = load_study(existing_storage(options.studies), "small")
    for trial, stored in zip(record.trials(), record.stored_trials(), strict=True):
        is_rejected = trial.outcome == "rejected"
        assert trial.candidate.recipe.batch_size == (64 if is_rejected else 32)
        assert (stored.system_attrs[CONSTRAINTS][0] > 0) == is_rejected
        assert trial.reason == is_rejected * (
            "a batch size of 64 needs 17.1 KiB of memory to stream images of 64 bytes, "
            "more than the 11.2 KiB allowed; at most 40 fits"
        )
    # The test set is streamed, too, and scored in batches that fit.
    confirmed = load_summary(options).confirmed
    assert confirmed is not None
    assert 0 < confirmed.test_accuracy < 1


def test_a_space_of_which_no_batch_can_be_streamed_is_refused_before_there_is_a_study(tmp_path: Path) -> None:
    refused = options_in(tmp_path, "128, 64", trials=1, confirm="no")
    with pytest.raises(SpaceError, match=r"'space': recipe.batch_size: even the smallest is too large: .* at most 40"):
        run(refused)
    assert list_studies(existing_storage(refused.studies)) == []
    mended = options_in(tmp_path, "32", trials=1, confirm="no")
    assert run(mended).num_counted == 1
