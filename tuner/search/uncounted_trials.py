"""UncountedTrials: how many trials in a row did not count, and whether a search gives up because of them."""

from __future__ import annotations

MAX_UNCOUNTED = 1_000
"""Number of rejected, repeated and failed trials in a row after which a search ends."""
MAX_TOO_LARGE = 200
"""The same if all of them have more parameters than the space allows."""


class UncountedTrials:
    """The trials since the last one that counted. Once it has given up, a trial that still ran does not change it."""

    def __init__(self, max_parameters: int | None) -> None:
        self._max_parameters = max_parameters
        self._in_a_row = 0
        self._sizes: list[int] = []

    def add(self, *, counts: bool, num_parameters: int) -> None:
        """Take the end of a trial into account."""
        if self.has_given_up:
            return
        self._in_a_row = 0 if counts else self._in_a_row + 1
        if counts:
            self._sizes = []
        elif self._max_parameters is not None and num_parameters > self._max_parameters:
            self._sizes.append(num_parameters)

    @property
    def is_space_too_large(self) -> bool:
        """Whether the search gives up because of the space's own limit alone."""
        return len(self._sizes) == self._in_a_row >= MAX_TOO_LARGE

    @property
    def has_given_up(self) -> bool:
        """Whether the search ends because of these trials."""
        return self.is_space_too_large or self._in_a_row >= MAX_UNCOUNTED

    @property
    def reason(self) -> str:
        """Why a search that gives up ends."""
        if self.is_space_too_large:
            return (
                f"the last {MAX_TOO_LARGE:,} candidates all had more than max_parameters = {self._max_parameters:,} "
                f"parameters, the smallest {min(self._sizes):,}; raise max_parameters, or make the space's networks "
                "smaller"
            )
        return (
            f"gave up after {MAX_UNCOUNTED:,} trials in a row that were rejected, repeated or failed: "
            "the space has too few candidates that can be trained here"
        )
