"""Tasks that a runner can train, and how training ends, as frozen values that can be sent to a process."""

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
    """A stored trial that is trained for another number of epochs. Its best epoch is saved to `output`."""

    number: int
    candidate: Candidate
    seed: int
    output: Path


@dataclass(frozen=True)
class FreshSplitTask:
    """A trial that is retrained on another split of the same sizes, drawn from `split_seed`.

    A data set's own validation part is kept. Only the last epoch is scored, and no weights are saved.
    """

    number: int
    candidate: Candidate
    seed: int
    split_seed: int


@dataclass(frozen=True)
class AllImagesTask:
    """A trial that is trained on train and validation together, without a score.

    Its last epoch is saved to `output`.
    """

    number: int
    candidate: Candidate
    seed: int
    output: Path


@dataclass(frozen=True)
class SeedGroup:
    """Retraining of one trial with several seeds in the same steps."""

    tasks: tuple[FreshSplitTask | AllImagesTask, ...]

    @property
    def number(self) -> int:
        """Number of the trial."""
        return self.tasks[0].number

    @property
    def candidate(self) -> Candidate:
        """The candidate that all of them train."""
        return self.tasks[0].candidate


SingleTask = SearchTask | LongerTask | FreshSplitTask | AllImagesTask
"""A single training run."""
TrialTask = SingleTask | SeedGroup
"""Any task that a runner can train."""


@dataclass(frozen=True)
class TrainingEnded:
    """Training has ended, after the last epoch or with an error. `details` is the traceback of the error.

    lost: the process that trained has died, which need not be the trial's fault.
    device_is_broken: the process may be unable to use its device again, and should train nothing more.
    """

    kind: Literal["finished", "diverged", "out of memory", "failed", "lost"]
    reason: str = ""
    details: str = field(default="", repr=False)
    device_is_broken: bool = False


def training_seed(seed: int, candidate: Candidate) -> int:
    """Return the seed that a candidate trains with in a study with this seed."""
    return derive_seed(seed, "training", candidate.fingerprint)
