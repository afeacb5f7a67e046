"""RankingLimit: how much of a time budget the ranking of backbones may take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tuner.data.dataset import Report

RANKING_SHARE = 0.15
"""Largest share of a budget in which another backbone is begun."""
LONGEST_SHARE = 2 * RANKING_SHARE
"""Share of a budget after which a backbone that was begun is given up, if another one is ranked."""


class OutOfTime(Exception):  # noqa: N818 - an end that was agreed on, not a mistake
    """The ranking has used its time."""


@dataclass(frozen=True)
class RankingLimit:
    """Times on the clock: after `share_ends` no other backbone begins, after `gives_up` one that has begun is given up.

    ends: the end of the whole budget, at which the first backbone is given up, too.
    """

    share_ends: float = float("inf")
    gives_up: float = float("inf")
    ends: float = float("inf")
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def from_budget(cls, seconds: float, *, started: float) -> RankingLimit:
        """Return the limit of a run that started at this time and has a budget; the ranking begins now."""
        now = time.monotonic()
        return cls(now + RANKING_SHARE * seconds, now + LONGEST_SHARE * seconds, started + seconds)

    @property
    def is_share_used(self) -> bool:
        """Whether no other backbone begins."""
        return self.clock() >= min(self.share_ends, self.ends)

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up."""
        return self.clock() >= self.ends

    def reporting(self, report: Report | None, *, is_first: bool) -> Report:
        """Return a report that raises OutOfTime when a backbone is given up."""
        end = self.ends if is_first else min(self.gives_up, self.ends)

        def limited(what: str, done: int, total: int) -> None:
            if report is not None:
                report(what, done, total)
            if self.clock() >= end:
                raise OutOfTime

        return limited
