"""FirstCandidates: what a search tries before it samples: the baseline, then the configurations that a space gives."""

from __future__ import annotations

from tuner.search.candidate_limits import CandidateLimits
from tuner.search.search_plan import SearchPlan
from tuner.search.trial_record import TrialRecord
from tuner.space.baseline import Baseline, Given, baselines, smaller_batches
from tuner.space.sampling import Params


class FirstCandidates:
    """The baseline and the given configurations that are still to be tried.

    baseline_number: number of the baseline's trial; None if the baseline is still to be tried.
    """

    def __init__(self, plan: SearchPlan, limits: CandidateLimits) -> None:
        self._limits = limits
        self._given = [
            list(smaller_batches(one, plan.space, plan.input_spec, epochs=plan.epochs))
            for one in plan.space.first[1:]  # the first of them is the baseline
        ]
        self._baselines = list(baselines(plan.space, plan.input_spec, epochs=plan.epochs))
        self.baseline_number: int | None = None

    def remember(self, trial: TrialRecord) -> None:
        """Take note of a stored trial; a baseline that does not fit into memory is followed by a smaller one."""
        self.remove(dict(trial.params))
        if trial.baseline is None:
            return
        self.baseline_number = trial.number
        if trial.outcome == "rejected":
            self.give_smaller_baseline(trial.candidate.fingerprint)

    def remove(self, params: Params) -> None:
        """Remove a configuration that was tried, if it is a given one or a version of it with a smaller batch."""
        self._given = [one for one in self._given if all(version.params != params for version in one)]

    def give_smaller_baseline(self, fingerprint: str) -> None:
        """Replace the baseline that has this fingerprint by the next smaller one; the last of all stays rejected."""
        known = [one.candidate.fingerprint for one in self._baselines]
        if fingerprint in known[:-1]:
            self._baselines = self._baselines[known.index(fingerprint) + 1 :]
            self.baseline_number = None

    def begin_baseline(self, number: int) -> Baseline | None:
        """Return the baseline for the trial `number`: the first that fits into memory, or the smallest if none does.

        None if the baseline has been tried.
        """
        if self.baseline_number is not None:
            return None
        self.baseline_number = number
        fitting = (one for one in self._baselines if not self._limits.excess(one.candidate)[1])
        return next(fitting, self._baselines[-1])

    def next_given(self, num_missing: float) -> Given | None:
        """Return the next configuration that the space gives, in its order; None if all were tried.

        If it does not fit into memory, its batch is smaller, unless no such version of it is in the space and fits.
        num_missing: how many trials are still to be started. If nothing but given configurations remains, the most
        expensive one starts first, so that no runner waits for another at the end. The baseline has come before them.
        Source: Graham, Bounds on Multiprocessing Timing Anomalies (1969).
        """
        if num_missing > len(self._given):
            return self._that_fits(self._given.pop(0)) if self._given else None
        longest = max(range(int(num_missing)), key=lambda at: self._limits.work(self._given[at][0].params))
        return self._that_fits(self._given.pop(longest))

    def _that_fits(self, versions: list[Given]) -> Given:
        return next((one for one in versions if not self._limits.is_too_large(one.params)), versions[0])
