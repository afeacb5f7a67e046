from collections.abc import Iterator

import pytest
import torch
from rehearsal import DIGITS, EPOCHS, SPACE, ends_with, rehearse

from tuner.errors import BackboneError
from tuner.search.tasks import SearchTask, TrainingEnded, TrialTask
from tuner.search.trial_runner import TrialRunner
from tuner.space.sampling import candidate_from, first_params
from tuner.training.results import Diverged, EpochResult

CANDIDATE = candidate_from(first_params(SPACE)[0], SPACE, DIGITS, epochs=EPOCHS)
TASK = SearchTask(3, CANDIDATE, seed=5)


def test_a_runner_gives_each_epoch_once_then_says_that_it_has_finished() -> None:
    runner = TrialRunner(rehearse)
    runner.start(TASK)
    assert [runner.next_epoch() for _ in range(EPOCHS)] == list(rehearse(TASK))
    assert runner.next_epoch() == TrainingEnded("finished")


def test_a_runner_sends_no_weights() -> None:
    def heavy(task: TrialTask) -> Iterator[EpochResult]:
        yield EpochResult(1, 0.0, 0.0, 0.5, 0.0, weights={"a": torch.zeros(3)})

    runner = TrialRunner(heavy)
    runner.start(TASK)
    result = runner.next_epoch()
    assert isinstance(result, EpochResult)
    assert result.weights is None


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (Diverged("the loss is nan"), "diverged", "the loss is nan"),
        (ValueError("bad\nworse"), "failed", "ValueError: bad"),
        (BackboneError("it does not agree"), "failed", "it does not agree"),
        (MemoryError(), "out of memory", "MemoryError: "),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory", "OutOfMemoryError: CUDA out of memory"),
        (torch.AcceleratorError("CUDA error: illegal\nmore"), "failed", "AcceleratorError: CUDA error: illegal"),
    ],
)
def test_what_goes_wrong_comes_back_as_a_value(error: Exception, kind: str, reason: str) -> None:
    runner = TrialRunner(ends_with(error, after=1))
    runner.start(TASK)
    assert isinstance(runner.next_epoch(), EpochResult)
    answer = runner.next_epoch()
    assert isinstance(answer, TrainingEnded)
    assert (answer.kind, answer.reason) == (kind, reason)
    assert ("Traceback" in answer.details) == (kind != "diverged")
    assert answer.device_is_broken == ("illegal" in reason)


def test_a_trainer_that_raises_at_once_fails_its_trial_alone() -> None:
    def refuses(task: TrialTask) -> Iterator[EpochResult]:
        raise OSError("no such data")
        yield

    runner = TrialRunner(refuses)
    runner.start(TASK)
    answer = runner.next_epoch()
    assert isinstance(answer, TrainingEnded)
    assert answer.kind == "failed"


def test_a_stopped_runner_drops_its_trial_and_takes_the_next() -> None:
    runner = TrialRunner(rehearse)
    runner.start(TASK)
    runner.next_epoch()
    runner.stop()
    assert runner.next_epoch() == TrainingEnded("finished")
    runner.start(TASK)
    assert runner.next_epoch() == next(rehearse(TASK))
