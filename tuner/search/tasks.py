"""Tasks: what a runner is asked to train, and how a training ends, as frozen values that can be sent to a process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tuner.training.candidate import Candidate
from tuner.training.seeds import derive_seed


@dataclass(frozen=True)
class SearchTask:
    """A trial of a search, on the study's own split. The weights of its best epoch become the trial's checkpoint."""

    number: int
    candidate: Candidate
    seed: int


@dataclass(frozen=True)
class LongerTask:
    """A stored trial that is trained for other epochs, on the study's own split; its best epoch goes to `output`."""

    number: int
    candidate: Candidate
    seed: int
    output: Path


@dataclass(frozen=True)
class FreshSplitTask:
    """A trial that is retrained on another split of the same sizes, drawn from `split_seed`.

    A data set's own validation part stays the validation part. The last epoch alone is scored; no weights are kept.
    """

    number: int
    candidate: Candidate
    seed: int
    split_seed: int


@dataclass(frozen=True)
class AllImagesTask:
    """A trial that is trained on train and validation together, without a score; its last epoch goes to `output`."""

    number: int
    candidate: Candidate
    seed: int
    output: Path


@dataclass(frozen=True)
class SeedGroup:
    """Retrainings of one trial that differ in their seeds alone and train together, in the same steps."""

    tasks: tuple[FreshSplitTask | AllImagesTask, ...]

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.tasks[0].number

    @property
    def candidate(self) -> Candidate:
        """What all of them train."""
        return self.tasks[0].candidate


SingleTask = SearchTask | LongerTask | FreshSplitTask | AllImagesTask
"""One training."""
TrialTask = SingleTask | SeedGroup
"""Whatever a runner can be asked to train."""


@dataclass(frozen=True)
class TrainingEnded:
    """No more epochs come: the last one is done, or something went wrong; `details` is a traceback for the latter.

    lost: the process that trained is gone, which says little of the trial.
    device_is_broken: the process may be unable to use its device again, and should train nothing more.
    """

    kind: Literal["finished", "diverged", "out of memory", "failed", "lost"]
    reason: str = ""
    details: str = field(default="", repr=False)
    device_is_broken: bool = False


def training_seed(seed: int, candidate: Candidate) -> int:
    """The seed that a candidate trains with in a study of this seed."""
    return derive_seed(seed, "training", candidate.fingerprint)
