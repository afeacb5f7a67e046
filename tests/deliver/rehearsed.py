"""The confirmation of a rehearsed study: the real one, but for a test set that nobody may open."""

import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch

from tests.search.rehearsal import EPOCHS, Rehearsal
from tuner.data.dataset import ImageDataset
from tuner.deliver.confirm import ConfirmEvent, confirm
from tuner.deliver.confirm_plan import ConfirmPlan
from tuner.deliver.contenders import Splits
from tuner.search.executors import Executor, InProcess
from tuner.search.record import StudyRecord
from tuner.search.trial_runner import Trainer

TEST_SET_OPENED = "the test set was opened"


NO_IMAGES = ImageDataset("none", torch.empty(0), torch.empty(0), (), "", None, Path(), ())


class Opened(Exception):  # noqa: N818 - a signal, not a mistake
    """The test set is about to be opened."""


def sealed() -> ImageDataset:
    raise Opened(TEST_SET_OPENED)


def confirming(
    rehearsal: Rehearsal,
    trainer: Trainer,
    *,
    plan: ConfirmPlan = ConfirmPlan(),
    num_validation: int = 1_000,
    executor: Executor | None = None,
    record: StudyRecord | None = None,
    is_validation_fixed: bool = False,
    **options: Any,
) -> Generator[ConfirmEvent]:
    """The events of the confirmation; Opened is raised where it would open the test set."""
    return confirm(
        record or rehearsal.record(),
        plan,
        executor or InProcess(trainer),
        folder=rehearsal.study_folder,
        seed=0,
        epochs=EPOCHS,
        splits=Splits(num_validation, 5 * num_validation, is_validation_fixed),
        load_test_set=sealed,
        development=NO_IMAGES,
        device=torch.device("cpu"),
        memory_bytes=sys.maxsize,
        **options,
    )
