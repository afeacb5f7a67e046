"""The result of a confirmation, as the study stores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from tuner.formats import refuse_newer_format

CONFIRMATION_FORMAT = 1
"""Raised when a confirmation of a later version would be read wrongly by this one; a new key raises nothing."""
BeatsBaseline = Literal["yes", "no", "undecided"]


@dataclass(frozen=True)
class RetrainedTrial:
    """A trial that a confirmation retrained, with its accuracy (0..1) on a fresh split for each seed.

    dropped: why it could not win; empty if it could.
    """

    number: int
    validation_accuracies: tuple[float, ...]
    dropped: str


@dataclass(frozen=True, kw_only=True)
class Confirmation:
    """Result of a confirmation. Accuracies are between 0 and 1, and intervals are 95 % intervals.

    number: the winner's trial. interval: None if it is unknown how much seeds differ. validation_mean: mean of the
    winner over the splits of the race; None if it was not raced. search_accuracy: the winner's accuracy in the search;
    gap: search_accuracy minus test_accuracy. baseline_number: the trial that the winner is compared with; baseline:
    description of that trial. Both are None in a study without a baseline. difference: winner minus baseline, on the
    test set. It is None, like its interval and baseline_test_accuracy, if the baseline could not be trained again.
    candidates: every retrained trial, with its accuracy for each seed. num_trials: number of trials that the study had
    at that time. test_set_openings: how often the study has opened its test set, this time included. is_full: whether
    nothing was skipped to save time or by choice.

    Fields with a default are absent from confirmations of older versions.
    """

    number: int
    epochs: int
    seeds: tuple[int, ...]
    test_accuracy: float
    interval: tuple[float, float] | None
    validation_mean: float | None
    search_accuracy: float
    gap: float
    baseline_number: int | None
    baseline: str | None = None
    baseline_test_accuracy: float | None
    difference: float | None
    difference_interval: tuple[float, float] | None
    beats_baseline: BeatsBaseline
    delivered_test_accuracy: float
    num_test_images: int
    candidates: tuple[RetrainedTrial, ...]
    num_trials: int
    test_set_openings: int = 1
    is_full: bool = False
    seconds: float
    notes: tuple[str, ...]

    @property
    def is_of_baseline(self) -> bool:
        """Whether the winner is the baseline itself, so that there is nothing to compare."""
        return self.number == self.baseline_number

    @property
    def is_compared(self) -> bool:
        """Whether there is a difference to report: the baseline is another trial, and could be trained again."""
        return not self.is_of_baseline and self.difference is not None

    def to_json(self) -> dict[str, Any]:
        """A JSON object; `show --json` prints it under `confirmed`."""
        data: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return data

    def to_stored(self) -> dict[str, Any]:
        """The JSON object that a study stores, which has a format number."""
        return {"format": CONFIRMATION_FORMAT, **self.to_json()}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Confirmation:
        """The confirmation in a JSON object; one without a format number is of format 1.

        Raises NewerFormatError, and ValueError (or its subclass pydantic.ValidationError) for anything else.
        """
        refuse_newer_format(data, known=CONFIRMATION_FORMAT, what="confirmations")
        return _ADAPTER.validate_python(data)


_ADAPTER = TypeAdapter(Confirmation)
