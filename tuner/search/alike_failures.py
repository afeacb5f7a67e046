"""AlikeFailures: whether the trials of a run fail for a reason that every other trial would share."""

from __future__ import annotations

import re

from tuner.errors import RunnerError
from tuner.search.events import Outcome

MAX_ALIKE = 5
"""If this many first trials of a run all fail for the same reason, the run ends, since every other trial would too."""
MAX_ALIKE_LATER = 20
"""The same for trials that fail in a row after others were trained, such as when the disk becomes full."""
ADVICE = "fix that and run the same command again (the trials are stored with their tracebacks)"


class AlikeFailures:
    """The first trials of a run until one was trained, and the trials that failed alike since the last that did not.

    has_trained: whether a trial of the study has ever finished an epoch.
    """

    def __init__(self) -> None:
        self.has_trained = False
        self._num_ended = 0
        self._reasons: set[str] = set()
        self._in_a_row = ("", 0)

    def end(self, outcome: Outcome) -> None:
        """Take into account how any trial ended: one that was trained ends a row of failures."""
        if outcome in ("complete", "pruned", "diverged"):
            self._in_a_row = ("", 0)

    def refuse_alike(self, outcome: Outcome, reason: str) -> None:
        """Take a trial that a runner has finished into account.

        Raises RunnerError if the first trials of this run all failed alike, and no trial ever finished an epoch, or if
        many trials in a row have failed alike after that.
        """
        alike = f"{outcome}: {re.sub(r'[0-9]+', '0', reason)}"  # sizes differ by trial
        self._num_ended += 1
        self._reasons.add(alike)
        if outcome == "failed":
            before, number = self._in_a_row
            self._in_a_row = (alike, number + 1 if alike == before else 1)
        if self._in_a_row[1] >= MAX_ALIKE_LATER:
            raise RunnerError(f"the last {MAX_ALIKE_LATER} trials all failed in the same way: {reason}; {ADVICE}")
        are_first_alike = self._num_ended == MAX_ALIKE and len(self._reasons) == 1
        if outcome == "failed" and are_first_alike and not self.has_trained:
            raise RunnerError(
                f"the first {MAX_ALIKE} trials all failed in the same way in their first epoch: {reason}; {ADVICE}"
            )
